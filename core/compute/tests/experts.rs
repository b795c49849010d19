//! Compares mixtures of experts and the matrices of heads with plain loops in f64.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::mixture::{Adapter, Case, Weights};
use common::{Random, backends, buffer, relative_error};
use realm_compute::cpu::CpuBackend;
use realm_compute::{Activation, Backend, Error, Gating, GroupRank, Groups, Lora, LoraRow, Mixture, Routing};
use realm_gguf::TensorType;

/// Types of experts, of every family of kernels.
const TYPES: [TensorType; 12] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q4_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q4_K,
    TensorType::Q6_K,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
    TensorType::NVFP4,
    TensorType::IQ2_S,
];

#[test]
fn mixtures_equal_a_loop_over_each_rows_experts() {
    let mut random = Random(77);
    for (round, ty) in TYPES.into_iter().cycle().take(24).enumerate() {
        let case = Case::random(ty, &mut random);
        let hidden = case.hidden();
        let loaded: Vec<_> = backends().into_iter().map(|b| (case.load(&b), b)).collect();
        for rows in [1, 2 + round % 9, 20] {
            let x = random.floats(rows * hidden, 1.0);
            let before = random.floats(rows * hidden, 1.0);
            let row = |x: &[f32], row: usize| x[row * hidden..][..hidden].to_vec();
            let want: Vec<f64> = (0..rows).flat_map(|i| case.want(&row(&x, i), &row(&before, i))).collect();
            let mut first: Option<Vec<f32>> = None;
            for (loaded, b) in &loaded {
                let got = case.run(b, loaded, &x, &before);
                let error = relative_error(&got, &want);
                let bound = if ty.block_len() > 1 {
                    1e-1
                } else if case.activation == Activation::Gelu {
                    1e-3
                } else {
                    1e-5
                };
                let what = format!("{rows} rows of {ty}, {:?} on {}", case.routing, b.description());
                // The 8-bit scores of other routers can choose other experts.
                assert!(error < bound || case.router.ty.block_len() > 1, "{what}: {error:.2e}");
                assert!(first.get_or_insert_with(|| got.clone()) == &got, "{what}");
                for (i, got) in got.chunks_exact(hidden).enumerate().step_by(7) {
                    let alone = case.run(b, loaded, &row(&x, i), &row(&before, i));
                    assert!(alone == got, "row {i} alone, {what}");
                }
            }
        }
    }
}

/// Two adapters, one of which changes two of the matrices only, and rows without one.
#[test]
fn rows_with_adapters_of_experts_equal_a_loop_and_keep_their_bits_in_any_company() {
    let mut random = Random(31);
    let floats = [TensorType::F32, TensorType::F16, TensorType::BF16];
    for (round, ty) in TYPES.into_iter().cycle().take(15).enumerate() {
        let mut case = Case::random(ty, &mut random);
        if case.router.ty != TensorType::F32 {
            let shape = case.router.shape;
            case.router = Weights::new(TensorType::F32, shape, &mut random);
        }
        let of = [[true, true, true], [false, true, true], [true, false, false]][round % 3];
        for (rank, of) in [([1, 5, 16, 33][round % 4], [true; 3]), (3, of)] {
            let adapter = Adapter::new(floats[round % 3], &case, rank, of, &mut random);
            case.adapters.push(adapter);
        }
        let (hidden, rows) = (case.hidden(), 19);
        let x = random.floats(rows * hidden, 1.0);
        let before = random.floats(rows * hidden, 1.0);
        let uses: Vec<Option<usize>> = (0..rows).map(|row| [Some(0), Some(1), None][row * 7 % 3]).collect();
        let row = |x: &[f32], row: usize| x[row * hidden..][..hidden].to_vec();
        let want: Vec<f64> =
            (0..rows).flat_map(|i| case.want_adapted(&row(&x, i), &row(&before, i), uses[i])).collect();
        let mut first: Option<Vec<f32>> = None;
        for b in backends() {
            let (loaded, pairs) = (case.load(&b), case.pairs(&b));
            let got = case.run_adapted(&b, (&loaded, &pairs), &x, &before, &uses);
            let error = relative_error(&got, &want);
            let exact = ty.block_len() == 1 && case.activation != Activation::Gelu;
            let bound = if ty.block_len() > 1 {
                1e-1
            } else if exact {
                1e-5
            } else {
                1e-3
            };
            let what = format!("{ty}, {:?} on {}", case.routing, b.description());
            assert!(error < bound, "{what}: {error:.2e}");
            assert!(first.get_or_insert_with(|| got.clone()) == &got, "{what}");
            let plain = case.run(&b, &loaded, &x, &before);
            for (i, got) in got.chunks_exact(hidden).enumerate() {
                let alone = match uses[i] {
                    // Without an adapter in the operation.
                    None => plain[i * hidden..][..hidden].to_vec(),
                    used => {
                        let (x, before) = (row(&x, i), row(&before, i));
                        case.run_adapted(&b, (&loaded, &pairs), &x, &before, &[used])
                    }
                };
                assert!(alone == got, "row {i} alone, {what}");
                let differs = plain[i * hidden..][..hidden] != *got;
                assert_eq!(differs, uses[i].is_some(), "row {i}, {what}");
            }
        }
    }
}

#[test]
fn groups_compete_by_their_best_expert_or_by_their_best_two() {
    let mut random = Random(8);
    let (hidden, b) = (8, CpuBackend::new(1).unwrap());
    // Of the first group one expert is the best, of the second two are good.
    let scores = [3.0, -9.0, 2.0, 2.0];
    let mut case = Case::random(TensorType::F32, &mut random);
    let weights = |shape, random: &mut Random| Weights::new(TensorType::F32, shape, random);
    case.router = weights([1, 4, hidden], &mut random);
    case.router.values = scores.iter().flat_map(|&s| std::iter::once(s).chain([0.0; 7])).collect();
    case.router.data = case.router.values.iter().flat_map(|x| x.to_le_bytes()).collect();
    (case.gate, case.activation, case.accumulate) = (None, Activation::Silu, false);
    case.up = weights([4, 8, hidden], &mut random);
    case.down = weights([4, hidden, 8], &mut random);
    (case.router_bias, case.selection_bias, case.biases) = (None, None, None);
    let x = [&[1.0], &random.floats(7, 1.0)[..]].concat();
    for (rank, experts) in [(GroupRank::Best, [0, 1]), (GroupRank::BestTwo, [2, 3])] {
        let groups = Some(Groups { count: 2, used: 1, rank });
        case.routing =
            Routing { used: 2, gating: Gating::Sigmoid, groups, weights_input: false, ..case.routing };
        let got = case.run(&b, &case.load(&b), &x, &[0.0; 8]);
        let mut chosen: Vec<usize> =
            case.route(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()).iter().map(|c| c.0).collect();
        chosen.sort_unstable();
        assert_eq!(chosen, experts);
        assert!(relative_error(&got, &case.want(&x, &[0.0; 8])) < 1e-5, "{rank:?}");
    }
}

#[test]
fn of_equal_experts_the_first_are_chosen() {
    let mut random = Random(5);
    let mut case = Case::random(TensorType::F32, &mut random);
    let experts = case.router.shape[1];
    case.router.data.fill(0);
    case.router.values.fill(0.0);
    (case.router_bias, case.selection_bias, case.accumulate) = (None, None, false);
    case.routing = Routing { used: 2.min(experts), gating: Gating::Sigmoid, groups: None, ..case.routing };
    let x = random.floats(case.hidden(), 1.0);
    let b = CpuBackend::new(2).unwrap();
    let got = case.run(&b, &case.load(&b), &x, &vec![0.0; x.len()]);
    let want = case.want(&x, &vec![0.0; x.len()]);
    let chosen: Vec<usize> =
        case.route(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()).iter().map(|c| c.0).collect();
    assert_eq!(chosen, (0..case.routing.used).collect::<Vec<_>>());
    assert!(relative_error(&got, &want) < 1e-3);
}

#[test]
fn each_head_is_multiplied_with_its_own_matrix() {
    let mut random = Random(9);
    for ty in TYPES {
        let whole = if ty.block_len() > 1 { ty.block_len() } else { 40 };
        let (heads, outputs, inputs, rows) = (3, 53, whole, 19);
        let weights = Weights::new(ty, [heads, outputs, inputs], &mut random);
        let x = random.floats(rows * heads * inputs, 1.0);
        let want: Vec<f64> = x
            .chunks_exact(inputs)
            .enumerate()
            .flat_map(|(i, x)| {
                let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                weights.product(i % heads, &x)
            })
            .collect();
        let mut first: Option<Vec<f32>> = None;
        for b in backends() {
            let w = weights.with(|tensor| b.experts(tensor)).unwrap();
            for rows in [rows, 1, 8] {
                let mut out = b.buffer(0, heads * outputs).unwrap();
                let x = buffer(&b, rows, heads * inputs, &x[..rows * heads * inputs]);
                b.each_head(&x, &w, &mut out).unwrap();
                let error = relative_error(out.data(), &want[..rows * heads * outputs]);
                let bound = if ty.block_len() == 1 { 1e-6 } else { 1.5e-2 };
                assert!(error < bound, "{ty} on {}: {error:.2e}", b.description());
                let all = first.get_or_insert_with(|| out.data().to_vec());
                assert!(out.data() == &all[..out.data().len()], "{rows} rows of {ty}, {}", b.description());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let b = CpuBackend::new(1).unwrap();
    let mut random = Random(3);
    let weights = |shape| Weights::new(TensorType::F32, shape, &mut Random(3));
    let experts = |shape| weights(shape).with(|tensor| b.experts(tensor)).unwrap();
    let (up, down) = (experts([4, 24, 16]), experts([4, 16, 24]));
    let router = weights([1, 4, 16]).with(|tensor| b.matrix(tensor)).unwrap();
    let x = buffer(&b, 2, 16, &random.floats(32, 1.0));
    let routing = Routing {
        used: 2,
        gating: Gating::Softmax,
        groups: None,
        normalize: true,
        scale: 1.0,
        weights_input: false,
    };
    let spec = || Mixture {
        router: &router,
        router_bias: None,
        routing,
        selection_bias: None,
        gate: None,
        up: &up,
        down: &down,
        gate_bias: None,
        up_bias: None,
        down_bias: None,
        activation: Activation::Silu,
        gate_lora: &[],
        up_lora: &[],
        down_lora: &[],
        accumulate: false,
    };
    let refused = |spec: Mixture<'_, CpuBackend>| {
        let mut out = b.buffer(1, 16).unwrap();
        assert!(matches!(b.mixture(&x, &spec, &mut out), Err(Error::InvalidArgument(_))));
    };
    b.mixture(&x, &spec(), &mut b.buffer(0, 16).unwrap()).unwrap();
    refused(Mixture { down: &up, ..spec() });
    refused(Mixture { gate: Some(&down), ..spec() });
    refused(Mixture { up_bias: Some(&vec![0.0; 24]), ..spec() });
    refused(Mixture { accumulate: true, ..spec() });
    // Adapters: of other shapes, of rows that do not exist, and of a gate that does not exist.
    let pair = |a: [usize; 3], second: [usize; 3]| {
        weights(a).with_all(|a| weights(second).with_all(|second| b.low_rank(a, second))).unwrap()
    };
    let (fits, other) = (pair([4, 2, 16], [4, 24, 2]), pair([3, 2, 16], [3, 24, 2]));
    let row = |row: u32| [LoraRow { row, scale: 1.0 }];
    for (pair, row) in [(&other, row(0)), (&fits, row(2))] {
        refused(Mixture { up_lora: &[Lora { pair, scale: 1.0, rows: &row }], ..spec() });
    }
    refused(Mixture { gate_lora: &[Lora { pair: &fits, scale: 1.0, rows: &row(0) }], ..spec() });
    refused(Mixture { down_lora: &[Lora { pair: &fits, scale: 1.0, rows: &row(0) }], ..spec() });
    let up_lora = [Lora { pair: &fits, scale: 1.0, rows: &row(1) }];
    b.mixture(&x, &Mixture { up_lora: &up_lora, ..spec() }, &mut b.buffer(0, 16).unwrap()).unwrap();
    refused(Mixture { activation: Activation::ClampedSwiglu { alpha: 1.0, limit: 1.0 }, ..spec() });
    for used in [0, 5] {
        refused(Mixture { routing: Routing { used, ..routing }, ..spec() });
    }
    for (count, used) in [(3, 1), (4, 1), (2, 3)] {
        let groups = Groups { count, used, rank: GroupRank::BestTwo };
        refused(Mixture { routing: Routing { groups: Some(groups), ..routing }, ..spec() });
    }
    let wrong = weights([1, 5, 16]).with(|tensor| b.matrix(tensor)).unwrap();
    refused(Mixture { router: &wrong, ..spec() });
    assert!(b.each_head(&x, &up, &mut b.buffer(0, 96).unwrap()).is_err());
}
