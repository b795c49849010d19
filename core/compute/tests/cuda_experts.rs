//! Compares mixtures of experts and the matrices of heads on the GPU with the CPU's. Without a GPU, every
//! test says that it was skipped; with `REALM_NEEDS_GPU` in the environment, it fails instead.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::mixture::{Adapter, Case, Weights};
use common::{Random, buffer, contents, gpu, relative_error};
use realm_compute::cpu::{CpuBackend, Isa};
use realm_compute::cuda::CudaBackend;
use realm_compute::{Activation, Backend, Batch, Error, Gating, GroupRank, Groups, Routing, Want};
use realm_gguf::TensorType;

/// Largest difference from the CPU: `|got - want| / |want|`. Codes of hidden numbers may be rounded
/// otherwise.
const BOUND: f64 = 5e-3;

/// Numbers of rows: of pairs each by itself, of all sizes of segments, and several of these.
const ROWS: [usize; 7] = [1, 2, 3, 8, 17, 64, 299];

fn scalar() -> CpuBackend {
    CpuBackend::with_isa(2, Isa::Scalar).unwrap()
}

/// Compares all numbers of rows with the CPU, and the rows of fewer with those of all.
fn check(b: &CudaBackend, case: &Case, random: &mut Random, what: &str) {
    let (cpu, hidden, most) = (CpuBackend::new(8).unwrap(), case.hidden(), 300);
    let (x, before) = (random.floats(most * hidden, 1.0), random.floats(most * hidden, 1.0));
    let (ours, theirs) = (case.load(b), case.load(&cpu));
    let all = case.run(b, &ours, &x, &before);
    let want = case.run(&cpu, &theirs, &x[..40 * hidden], &before[..40 * hidden]);
    let error = relative_error(&all[..40 * hidden], &want);
    println!("{what}: {error:.2e}");
    assert!(error < BOUND, "{what}: {error:.2e}, {:?}, {:?}", case.routing, case.activation);
    for rows in ROWS {
        let got = case.run(b, &ours, &x[..rows * hidden], &before[..rows * hidden]);
        let differ = got.iter().zip(&all).position(|(a, b)| a != b);
        assert!(
            differ.is_none(),
            "{what}: {rows} rows are not those of {most} at {differ:?}, {:?}",
            case.routing
        );
    }
    // A row in other company, at another place.
    let last = case.run(b, &ours, &x[299 * hidden..], &before[299 * hidden..]);
    assert!(last == all[299 * hidden..], "{what}: the last row alone");
}

#[test]
fn mixtures_equal_the_cpu_and_rows_do_not_depend_on_company() {
    let Some(b) = gpu() else { return };
    let mut random = Random(77);
    for ty in TensorType::ALL {
        for round in 0..2 {
            let mut case = Case::random(ty, &mut random);
            if case.router.ty != TensorType::F32 {
                // Scores of 8-bit products could choose other experts here than on the CPU.
                let shape = case.router.shape;
                case.router = Weights::new(TensorType::F32, shape, &mut random);
            }
            check(&b, &case, &mut random, &format!("{ty}, round {round}"));
        }
    }
}

/// Every way to score, choose, weigh and activate.
#[test]
fn every_routing_and_activation_equals_the_cpu() {
    let Some(b) = gpu() else { return };
    let mut random = Random(5);
    let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 1.5 };
    let gated = [Activation::Silu, Activation::GeluTanh, Activation::Gelu, Activation::Sigmoid, clamped];
    let plain = [Activation::Silu, Activation::Gelu, Activation::ReluSquared];
    let activations = gated.map(|a| (a, true)).into_iter().chain(plain.map(|a| (a, false)));
    let mut round = 0;
    for (activation, with_gate) in activations {
        for gating in [Gating::Softmax, Gating::Sigmoid, Gating::SoftmaxOfChosen] {
            round += 1;
            let (hidden, inner, experts) = (352, 416, [24, 12, 96, 288][round % 4]);
            let weights = |shape, random: &mut Random| Weights::new(TensorType::Q8_0, shape, random);
            let mut router = Weights::new(TensorType::F32, [1, experts, hidden], &mut random);
            router.values.iter_mut().for_each(|x| *x /= (hidden as f32).sqrt());
            router.data = router.values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let groups = (round % 2 == 0).then_some(Groups {
                count: 4,
                used: 2,
                rank: if round % 4 == 0 { GroupRank::BestTwo } else { GroupRank::Best },
            });
            let case = Case {
                routing: Routing {
                    used: [1, 3, 6, 5][round % 4],
                    gating,
                    groups,
                    normalize: round % 3 == 0,
                    scale: [1.0, 2.5][round % 2],
                    weights_input: round % 5 == 0,
                },
                activation,
                accumulate: round % 2 == 0,
                router,
                gate: with_gate.then(|| weights([experts, inner, hidden], &mut random)),
                up: weights([experts, inner, hidden], &mut random),
                down: weights([experts, hidden, inner], &mut random),
                router_bias: (round % 3 == 1).then(|| random.floats(experts, 1.0)),
                selection_bias: (round % 3 != 0).then(|| random.floats(experts, 0.3)),
                biases: (round % 2 == 1)
                    .then(|| [inner, inner, hidden].map(|n| random.floats(experts * n, 0.5))),
                adapters: Vec::new(),
            };
            check(&b, &case, &mut random, &format!("{activation:?}, {gating:?}, {experts} experts"));
        }
    }
}

/// Sizes of real models, of which chunks and rounds are many, and the last chunk is not whole.
#[test]
fn large_experts_have_the_same_rows_in_any_company() {
    let Some(b) = gpu() else { return };
    let mut random = Random(9);
    for (ty, down, hidden, inner) in [
        (TensorType::MXFP4, TensorType::MXFP4, 2880, 2880),
        (TensorType::Q4_K, TensorType::Q6_K, 2048, 768),
        (TensorType::Q8_0, TensorType::F16, 2880, 1440),
    ] {
        let experts = 4;
        let case = Case {
            gate: Some(Weights::new(ty, [experts, inner, hidden], &mut random)),
            up: Weights::new(ty, [experts, inner, hidden], &mut random),
            down: Weights::new(down, [experts, hidden, inner], &mut random),
            router: Weights::new(TensorType::F32, [1, experts, hidden], &mut random),
            routing: Routing {
                used: 3,
                gating: Gating::Softmax,
                groups: None,
                normalize: true,
                scale: 1.0,
                weights_input: false,
            },
            activation: Activation::Silu,
            accumulate: false,
            router_bias: None,
            selection_bias: None,
            biases: None,
            adapters: Vec::new(),
        };
        check(&b, &case, &mut random, &format!("{ty} and {down}, {hidden} x {inner}"));
    }
}

#[test]
fn matrices_of_an_expert_may_have_different_types() {
    let Some(b) = gpu() else { return };
    let mut random = Random(31);
    let types = [TensorType::Q8_0, TensorType::Q4_0, TensorType::F32, TensorType::BF16];
    for (gate, up) in types.into_iter().zip(types.into_iter().cycle().skip(1)) {
        let mut case = Case::random(up, &mut random);
        let [experts, inner, hidden] = case.up.shape;
        let (inner, hidden) = (inner.next_multiple_of(32), hidden.next_multiple_of(32));
        case.router = Weights::new(TensorType::F32, [1, experts, hidden], &mut random);
        case.up = Weights::new(up, [experts, inner, hidden], &mut random);
        case.gate = Some(Weights::new(gate, [experts, inner, hidden], &mut random));
        case.down = Weights::new(TensorType::Q5_1, [experts, hidden, inner], &mut random);
        case.biases = Some([inner, inner, hidden].map(|n| random.floats(experts * n, 0.5)));
        case.activation = Activation::Silu;
        check(&b, &case, &mut random, &format!("{gate} and {up}"));
    }
}

/// A router of another type than F32 multiplies like any matrix.
#[test]
fn a_router_may_be_of_any_type() {
    let Some(b) = gpu() else { return };
    let mut random = Random(13);
    for ty in [TensorType::F16, TensorType::BF16, TensorType::Q8_0] {
        let mut case = Case::random(TensorType::Q8_0, &mut random);
        let [experts, _, hidden] = case.up.shape;
        case.router = Weights::new(ty, [1, experts, hidden], &mut random);
        check(&b, &case, &mut random, &format!("a router of {ty}"));
    }
}

#[test]
fn all_rows_may_choose_the_same_experts_and_of_equal_ones_the_first_are_chosen() {
    let Some(b) = gpu() else { return };
    let mut random = Random(5);
    for ty in [TensorType::Q4_0, TensorType::Q4_K] {
        for favourite in [None, Some(1)] {
            let mut case = Case::random(ty, &mut random);
            let experts = case.router.shape[1];
            case.router.ty = TensorType::F32;
            case.router.values.fill(0.0);
            case.router.data = vec![0; 4 * case.router.values.len()];
            case.router_bias = favourite.map(|one| (0..experts).map(|e| (e == one) as u8 as f32).collect());
            case.selection_bias = None;
            case.routing = Routing {
                used: 2,
                gating: Gating::Sigmoid,
                groups: None,
                weights_input: false,
                ..case.routing
            };
            check(&b, &case, &mut random, &format!("{ty}, all alike, favourite {favourite:?}"));
        }
    }
}

/// Rows with one of two adapters equal the CPU's, and have the same bits alone and among 300. Rows without an
/// adapter have the bits that they have without any adapter in the operation, where kernels are fused.
#[test]
fn adapters_of_experts_equal_the_cpu_and_change_no_other_rows() {
    let Some(b) = gpu() else { return };
    let (cpu, mut random, most) = (CpuBackend::new(8).unwrap(), Random(91), 300);
    let floats = [TensorType::F32, TensorType::F16, TensorType::BF16];
    let types = [TensorType::Q8_0, TensorType::Q4_K, TensorType::MXFP4, TensorType::F32, TensorType::F16];
    let gates =
        [Activation::Silu, Activation::GeluTanh, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 }];
    for (round, ty) in types.into_iter().cycle().take(15).enumerate() {
        let mut case = Case::random(ty, &mut random);
        let shape = case.router.shape;
        case.router = Weights::new(TensorType::F32, shape, &mut random);
        if case.gate.is_some() {
            case.activation = gates[round % 3];
        }
        // Gates, ups and downs; gates alone only where there are some.
        let mut of =
            [[true, true, true], [false, true, true], [true, false, false], [false, false, true]][round % 4];
        of[1] |= case.gate.is_none();
        for (rank, of) in [([1, 5, 16, 33][round % 4], [true; 3]), (3, of)] {
            let adapter = Adapter::new(floats[round % 3], &case, rank, of, &mut random);
            case.adapters.push(adapter);
        }
        let hidden = case.hidden();
        let (x, before) = (random.floats(most * hidden, 1.0), random.floats(most * hidden, 1.0));
        let uses: Vec<Option<usize>> = (0..most).map(|row| [Some(0), Some(1), None][row * 7 % 3]).collect();
        let (ours, theirs) = ((case.load(&b), case.pairs(&b)), (case.load(&cpu), case.pairs(&cpu)));
        let all = case.run_adapted(&b, (&ours.0, &ours.1), &x, &before, &uses);
        let n = 40;
        let want = case.run_adapted(
            &cpu,
            (&theirs.0, &theirs.1),
            &x[..n * hidden],
            &before[..n * hidden],
            &uses[..n],
        );
        let error = relative_error(&all[..n * hidden], &want);
        let what = format!("{ty}, round {round}, {:?}, {:?}", case.routing, case.activation);
        println!("{what}: {error:.2e}");
        assert!(error < BOUND, "{what}: {error:.2e}");
        for rows in ROWS {
            let (x, before) = (&x[..rows * hidden], &before[..rows * hidden]);
            let got = case.run_adapted(&b, (&ours.0, &ours.1), x, before, &uses[..rows]);
            assert!(got == all[..rows * hidden], "{what}: {rows} rows are not those of {most}");
        }
        let plain = case.run(&b, &ours.0, &x, &before);
        for (row, used) in uses.iter().enumerate() {
            let [got, plain] = [&all, &plain].map(|rows| &rows[row * hidden..][..hidden]);
            assert_eq!(got != plain, used.is_some(), "{what}: row {row}");
        }
    }
}

#[test]
fn each_head_is_multiplied_with_its_own_matrix() {
    let Some(b) = gpu() else { return };
    let cpu = scalar();
    let mut random = Random(9);
    for ty in TensorType::ALL {
        for (outputs, inputs) in [(53, 40), (512, 128)] {
            let inputs = if ty.block_len() == 1 { inputs } else { ty.block_len().max(inputs / 32 * 32) };
            let (heads, most) = (3, 70);
            let weights = Weights::new(ty, [heads, outputs, inputs], &mut random);
            let x = random.floats(most * heads * inputs, 1.0);
            let (ours, theirs) =
                (weights.with(|t| b.experts(t)).unwrap(), weights.with(|t| cpu.experts(t)).unwrap());
            let mut want = cpu.buffer(0, heads * outputs).unwrap();
            cpu.each_head(&buffer(&cpu, most, heads * inputs, &x), &theirs, &mut want).unwrap();
            let run = |rows: usize| {
                let mut out = b.buffer(0, heads * outputs).unwrap();
                let x = buffer(&b, rows, heads * inputs, &x[..rows * heads * inputs]);
                b.each_head(&x, &ours, &mut out).unwrap();
                contents(&b, &out)
            };
            let all = run(most);
            let error = relative_error(&all, &contents(&cpu, &want));
            println!("{ty}, {outputs} x {inputs}: {error:.2e}");
            assert!(error < 2e-3, "{ty}: {error:.2e}");
            for rows in [1, 2, 8, 9, 17, 33] {
                assert!(run(rows) == all[..rows * heads * outputs], "{rows} rows of {ty}");
            }
        }
    }
}

#[test]
fn more_experts_than_there_is_room_for_are_refused() {
    let Some(b) = gpu() else { return };
    let mut random = Random(3);
    let mut case = Case::random(TensorType::Q8_0, &mut random);
    let experts = 600;
    case.router = Weights::new(TensorType::F32, [1, experts, 32], &mut random);
    case.up = Weights::new(TensorType::Q8_0, [experts, 32, 32], &mut random);
    case.down = Weights::new(TensorType::Q8_0, [experts, 32, 32], &mut random);
    let up = case.up.with(|tensor| b.experts(tensor)).unwrap();
    let down = case.down.with(|tensor| b.experts(tensor)).unwrap();
    let router = case.router.with(|tensor| b.matrix(tensor)).unwrap();
    let spec = realm_compute::Mixture {
        router: &router,
        router_bias: None,
        routing: Routing { used: 2, groups: None, ..case.routing },
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
    let x = buffer(&b, 1, 32, &[1.0; 32]);
    let error = b.mixture(&x, &spec, &mut b.buffer(0, 32).unwrap()).unwrap_err().to_string();
    assert!(error.contains("512") && error.contains("on the CPU"), "{error}");
}

/// A recording is made of one pass and repeated for others, whose rows choose other experts.
#[test]
fn a_recorded_mixture_follows_the_choices_of_each_pass() {
    let Some(b) = gpu() else { return };
    let mut random = Random(41);
    for rows in [1, 6, 70] {
        let mut case = Case::random(TensorType::Q8_0, &mut random);
        let [_, inner, hidden] = case.up.shape;
        let experts = 40;
        case.router = Weights::new(TensorType::F32, [1, experts, hidden], &mut random);
        case.gate = Some(Weights::new(TensorType::Q8_0, [experts, inner, hidden], &mut random));
        case.up = Weights::new(TensorType::Q8_0, [experts, inner, hidden], &mut random);
        case.down = Weights::new(TensorType::Q8_0, [experts, hidden, inner], &mut random);
        (case.router_bias, case.selection_bias, case.biases) = (None, None, None);
        case.activation = Activation::Silu;
        case.accumulate = false;
        case.routing.groups = None;
        let loaded = case.load(&b);
        let mut batch = Batch::default();
        (0..rows).for_each(|row| batch.push(&[row as u32], 0, &[[0u32]], Want::Logits));
        let mut x = b.buffer(rows, hidden).unwrap();
        let mut out = b.buffer(rows, hidden).unwrap();
        for round in 0..5 {
            let values = random.floats(rows * hidden, 1.0);
            b.write(&values, &mut x).unwrap();
            b.pass::<Error>(rows as u64, &batch, &mut || b.mixture(&x, &case.spec(&loaded), &mut out))
                .unwrap();
            let want = case.run(&b, &loaded, &values, &vec![0.0; values.len()]);
            assert!(contents(&b, &out) == want, "{rows} rows, pass {round}");
        }
    }
}
