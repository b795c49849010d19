//! Compares what only some models need with the CPU, on a GPU: norms, activations, sums and copies, and
//! attention with all its options. Without a GPU, every test says that it was skipped.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::options::Case;
use common::{Random, blocks, buffer, contents, gpu, relative_error};
use realm_compute::cpu::{CpuBackend, Isa};
use realm_compute::{
    Activation, Backend, CacheType, Columns, Feature, MatMul, Norm, NormKind, NormSpan, RopeStyle,
    Temperature, Window,
};
use realm_gguf::{Tensor, TensorInfo, TensorType};

const CLAMPED: Activation = Activation::ClampedSwiglu { alpha: 1.702, limit: 1.5 };
const ACTIVATIONS: [Activation; 6] = [
    Activation::Silu,
    Activation::GeluTanh,
    Activation::Gelu,
    Activation::ReluSquared,
    Activation::Sigmoid,
    CLAMPED,
];

/// The norms of rows that models have: kind, weight, bias.
const NORMS: [(NormKind, bool, bool); 6] = [
    (NormKind::Rms, true, false),
    (NormKind::Rms, false, false),
    (NormKind::Rms, true, true),
    (NormKind::Layer, true, true),
    (NormKind::Layer, true, false),
    (NormKind::Layer, false, true),
];

fn cpu() -> CpuBackend {
    let best = *Isa::available().last().unwrap();
    CpuBackend::with_isa(std::thread::available_parallelism().map_or(2, usize::from).min(16), best).unwrap()
}

/// Returns the results of all operations on the first `rows` of the same rows, with their columns.
fn operations<B: Backend>(b: &B, columns: usize, rows: usize) -> Vec<(String, usize, Vec<f32>)> {
    let mut random = Random(61);
    let mut input = || random.floats(300 * columns, 2.0);
    let (x, y) = (input(), input());
    let mut vector = |len: usize| random.floats(len, 1.0);
    let (weight, bias, gates) = (vector(columns), vector(columns), vector(300));
    let (weight, bias) = (b.vector(&weight).unwrap(), b.vector(&bias).unwrap());
    let take = |x: &[f32]| buffer(b, rows, columns, &x[..rows * columns]);
    let (x, y, gates) = (|| take(&x), take(&y), buffer(b, rows, 1, &gates[..rows]));
    let mut all = Vec::new();
    let mut put = |what: String, x: &B::Buffer| all.push((what, b.columns(x), contents(b, x)));
    for (kind, weighted, biased) in NORMS {
        let what = format!("{kind:?} norm, weight {weighted}, bias {biased}");
        let (weight, bias) = (weighted.then_some(&weight), biased.then_some(&bias));
        let norm = Norm { kind, weight, bias, eps: 1e-3 };
        let (mut out, mut sum) = (b.buffer(0, columns).unwrap(), x());
        b.norm(&y, &norm, &mut out).unwrap();
        put(what.clone(), &out);
        b.add_norm(&mut sum, &y, &norm).unwrap();
        put(format!("{what}, added"), &sum);
    }
    for activation in ACTIVATIONS {
        let mut gated = x();
        b.gated_activation(activation, &mut gated, &y).unwrap();
        put(format!("{activation:?}, gated"), &gated);
        let mut plain = x();
        match activation {
            CLAMPED => assert!(b.activation(activation, &mut plain).is_err()),
            _ => b.activation(activation, &mut plain).unwrap(),
        }
        put(format!("{activation:?}"), &plain);
    }
    let mut sum = x();
    b.add(&mut sum, &y, 0.22).unwrap();
    put("add".into(), &sum);
    b.scale(&mut sum, 0.7).unwrap();
    put("scale".into(), &sum);
    b.scale_rows(&gates, &mut sum).unwrap();
    put("scale_rows".into(), &sum);
    // Three pieces of a third of the columns each, turned around, behind a column of zeros.
    let width = columns / 3;
    let mut out = buffer(b, rows, columns + 2, &vec![0.0; rows * (columns + 2)]);
    for piece in 0..3 {
        let (from, to) = (piece * width, 1 + (2 - piece) * width);
        let columns = Columns { count: 1, width, from, from_step: 0, to, to_step: 0 };
        b.copy_columns(&sum, &columns, &mut out).unwrap();
    }
    put("one piece after another".into(), &out);
    let columns =
        Columns { count: 3, width: width / 2, from: 1, from_step: width, to: 2, to_step: width / 2 };
    b.copy_columns(&sum, &columns, &mut out).unwrap();
    put("several pieces".into(), &out);
    all
}

#[test]
fn operations_equal_the_cpu_and_rows_do_not_depend_on_company() {
    let Some(b) = gpu() else { return };
    let cpu = cpu();
    for columns in [3, 64, 100, 513, 2880, 5001] {
        let all = operations(&b, columns, 300);
        for ((what, _, got), (_, _, want)) in all.iter().zip(operations(&cpu, columns, 300)) {
            let error = relative_error(got, &want);
            assert!(error < 2e-6, "{what} of {columns} columns: {error:.2e}");
        }
        for rows in [1, 3, 17] {
            for ((what, columns, some), (_, _, all)) in operations(&b, columns, rows).iter().zip(&all) {
                assert!(some[..] == all[..rows * columns], "{what} of {columns} columns: {rows} rows of 300");
            }
        }
    }
}

#[test]
fn a_norm_in_the_tails_of_its_inputs_equals_the_cpu() {
    let Some(b) = gpu() else { return };
    let cpu = cpu();
    let mut random = Random(67);
    let (columns, rows) = (1000, 4);
    // A mean a thousand times the deviation, a deviation far below epsilon, and large numbers.
    let mut x = random.floats(rows * columns, 1.0);
    x[..columns].iter_mut().for_each(|x| *x = *x * 1e-2 + 10.0);
    x[columns..2 * columns].iter_mut().for_each(|x| *x *= 1e-6);
    x[2 * columns..3 * columns].iter_mut().for_each(|x| *x *= 1e6);
    fn norm<B: Backend>(b: &B, x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let (x, mut out) = (buffer(b, rows, columns, x), b.buffer(0, columns).unwrap());
        let norm = Norm { kind: NormKind::Layer, weight: None, bias: None, eps: 1e-5 };
        b.norm(&x, &norm, &mut out).unwrap();
        contents(b, &out)
    }
    let (got, want) = (norm(&b, &x, rows, columns), norm(&cpu, &x, rows, columns));
    for row in 0..rows {
        let part = row * columns..(row + 1) * columns;
        let error = relative_error(&got[part.clone()], &want[part]);
        // The mean itself is rounded to 1e-7 of 10, which is 1e-4 of the deviation.
        assert!(error < if row == 0 { 2e-4 } else { 2e-6 }, "row {row}: {error:.2e}");
    }
}

/// A product whose input forms were made by the operation that filled the input equals a product that made
/// them itself, also for rows that end inside a chunk.
#[test]
fn forms_of_any_norm_and_activation_are_those_of_their_results() {
    let Some(b) = gpu() else { return };
    let mut random = Random(71);
    for (ty, k) in [(TensorType::Q4_K, 1280), (TensorType::Q4_1, 992), (TensorType::F16, 1000)] {
        let data = blocks(ty, 64 * k, &mut random);
        let info = TensorInfo::new("w", vec![k as u64, 64], ty).unwrap();
        let weight = b.matrix(&Tensor { info: &info, data: &data }).unwrap();
        for rows in [3, 70] {
            let x = buffer(&b, rows, k, &random.floats(rows * k, 1.0));
            let (gain, bias) =
                (b.vector(&random.floats(k, 1.0)).unwrap(), b.vector(&random.floats(k, 1.0)).unwrap());
            let norm = Norm { kind: NormKind::Layer, weight: Some(&gain), bias: Some(&bias), eps: 1e-5 };
            let (mut made, mut out) = (b.buffer(0, k).unwrap(), b.buffer(0, 64).unwrap());
            let product = |x: &_, out: &mut _| {
                let job =
                    MatMul { weight: &weight, bias: None, out: &mut *out, accumulate: false, lora: &[] };
                b.matmul(x, &mut [job]).unwrap();
                contents(&b, out)
            };
            // The first round makes the product ask for its forms.
            for round in 0..2 {
                b.norm(&x, &norm, &mut made).unwrap();
                let fresh = buffer(&b, rows, k, &contents(&b, &made));
                assert!(product(&made, &mut out) == product(&fresh, &mut out), "{ty}, norm, round {round}");
                b.activation(Activation::Sigmoid, &mut made).unwrap();
                let fresh = buffer(&b, rows, k, &contents(&b, &made));
                assert!(
                    product(&made, &mut out) == product(&fresh, &mut out),
                    "{ty}, sigmoid, round {round}"
                );
            }
        }
    }
}

/// The largest error of an output, as on the CPU; GPUs also round queries and exponentials to half floats.
fn bound(kind: CacheType) -> f64 {
    match kind {
        CacheType::F32 => 1e-5,
        CacheType::F16 => 2e-3,
        _ => 2.5e-2,
    }
}

#[test]
fn every_combination_of_options_of_attention_equals_the_full_score_matrix() {
    let Some(b) = gpu() else { return };
    let mut random = Random(73);
    for round in 0..60 {
        let mut case = Case::random(&mut random);
        case.kind = CacheType::ALL[round % 3];
        let whole = case.run(&b, case.rows);
        let error = relative_error(&whole, &case.want());
        // Norms without learned weights stay near 1; with random weights and biases a score may be large, and
        // half floats then move it by more.
        assert!(error < 2.0 * bound(case.kind), "{error:.2e}, {}", case.words());
        let piece = 1 + round % 40;
        assert!(case.run(&b, piece) == whole, "pieces of {piece}, {}", case.words());
    }
}

/// Cases of one option each, and of all together.
fn options(shape: [usize; 4], random: &mut Random) -> Vec<(&'static str, Case)> {
    let [heads, kv_heads, dim, _] = shape;
    let temperature = Some(Temperature { offset: 1.0, period: 64.0, scale: 0.1 });
    let mut case = |what: &'static str, change: &dyn Fn(&mut Case, &mut Random)| {
        let mut case = Case::new(shape, random);
        change(&mut case, random);
        (what, case)
    };
    vec![
        case("sinks", &|c, random| c.sinks = Some(random.floats(heads, 3.0))),
        case("a sink above all scores", &|c, _| c.sinks = Some(vec![40.0; heads])),
        case("chunks", &|c, _| c.window = Some(Window::Chunked(100))),
        case("temperature", &|c, _| c.temperature = temperature),
        case("no rope", &|c, _| c.rotated = None),
        case("fewer heads than the layout's", &|c, _| c.page_heads = kv_heads + 3),
        case("all", &|c, random| {
            c.sinks = Some(random.floats(heads, 3.0));
            c.window = Some(Window::Chunked(1000));
            c.temperature = temperature;
            c.rotated = Some(dim / 4);
            c.style = RopeStyle::Interleaved;
            c.page_heads = kv_heads + 1;
            (c.norm, c.span) = (Some(NormKind::Layer), NormSpan::Row);
            c.norm_after_rope = true;
        }),
    ]
}

#[test]
fn options_of_attention_equal_the_cpu_at_any_context_in_any_cache_and_company() {
    let Some(b) = gpu() else { return };
    let cpu = cpu();
    let mut random = Random(79);
    for context in [16, 300, 5000] {
        for (what, mut case) in options([6, 2, 64, context], &mut random) {
            case.kind = CacheType::F32;
            let exact = case.run(&cpu, 512);
            for kind in CacheType::ALL {
                case.kind = kind;
                let what = format!("{what}, {}", case.words());
                let whole = case.run(&b, context);
                let error = relative_error(&whole, &exact);
                println!("{what}: {error:.2e}");
                assert!(error < 2.0 * bound(kind), "{what}: {error:.2e}");
                // A prompt in pieces, then the last rows one by one, beside another sequence.
                let alone = context.min(9);
                let mut pieces = vec![700; (context - alone) / 700];
                pieces.extend([(context - alone) % 700; 1].iter().filter(|&&n| n > 0));
                pieces.extend(vec![1; alone]);
                for others in [0, 40, 900] {
                    let same = case.run_beside(&b, &pieces, others) == whole;
                    assert!(same, "{what}, beside {others} rows");
                }
            }
        }
    }
}

#[test]
fn heads_of_up_to_576_are_attended_in_any_cache() {
    let Some(b) = gpu() else { return };
    let mut random = Random(83);
    for kind in CacheType::ALL {
        // Tiles of 16 queries, one of them cut off; wide heads that end in a chunk; a context of many blocks.
        for [heads, kv_heads, dim, rows] in [[20, 1, 576, 300], [3, 3, 300, 70], [16, 2, 577 - 31, 40]] {
            let case = Case::new([heads, kv_heads, dim, rows], &mut random);
            let mut case = Case { kind, rotated: Some(16), ..case };
            case.sinks = Some(random.floats(heads, 3.0));
            case.norm = (dim < 576).then_some(NormKind::Rms);
            let whole = case.run(&b, rows);
            let error = relative_error(&whole, &case.want());
            assert!(error < 2.0 * bound(kind), "{error:.2e}, {}", case.words());
            for (piece, others) in [(1, 0), (7, 33), (64, 0)] {
                let pieces = vec![piece; rows.div_ceil(piece)];
                assert!(case.run_beside(&b, &pieces, others) == whole, "pieces of {piece}, {}", case.words());
            }
        }
    }
}

#[test]
fn a_gpu_computes_everything_that_is_listed() {
    let Some(b) = gpu() else { return };
    let all = [
        Feature::LayerNorm,
        Feature::PlainNorm,
        Feature::RowNorms,
        Feature::HeadNorms,
        Feature::NormAfterRope,
        Feature::NoRope,
        Feature::Sinks,
        Feature::Temperature,
        Feature::ChunkedWindow,
        Feature::HeadDim(576),
        Feature::Ungated,
        Feature::Multipliers,
        Feature::Columns,
        Feature::UnequalHeads,
    ];
    let gated = ACTIVATIONS.map(Feature::Gated);
    for feature in all.into_iter().chain(gated) {
        assert!(b.supports(feature), "{feature}");
    }
    assert!(!b.supports(Feature::HeadDim(577)));
}
