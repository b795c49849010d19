//! Our quantizers against ggml's, on tensors of real models.

use half::f16;
use proptest::prelude::*;
use realm_compute::quant;
use realm_convert::{Error, WRITTEN, quantize};
use realm_gguf::{Gguf, TensorType};
use realm_hub::{Hub, Reference};
use serde_json::Value;

/// Rows and columns of the samples of `tests/reference/quantize_errors.py`.
const ROWS: usize = 48;
const COLUMNS: usize = 256;

fn errors() -> Value {
    serde_json::from_str(include_str!("data/ggml_errors.json")).unwrap()
}

fn importance() -> Vec<f32> {
    (0..COLUMNS).map(|i| 1.0 + (i * 37 % 101) as f32 / 10.0).collect()
}

/// Samples of all-MiniLM-L6-v2, in the order of `ggml_errors.json`.
fn minilm() -> Vec<Vec<f32>> {
    let bytes = include_bytes!("data/minilm.f16");
    let floats: Vec<f32> = bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect();
    floats.chunks(ROWS * COLUMNS).map(<[f32]>::to_vec).collect()
}

/// Rows from all over a tensor of SmolLM2.
fn smollm(gguf: &Gguf, name: &str) -> Vec<f32> {
    let info = gguf.require_tensor(name).unwrap();
    let (mut buffer, mut values) = (Vec::new(), vec![0.0; info.len()]);
    quant::dequantize(info.ty, gguf.read(info, &mut buffer).unwrap(), &mut values).unwrap();
    let step = values.len() / COLUMNS / ROWS;
    values.chunks(COLUMNS).step_by(step).take(ROWS).flatten().copied().collect()
}

fn back(ty: TensorType, values: &[f32], columns: usize, importance: Option<&[f32]>) -> Vec<f32> {
    let mut blocks = Vec::new();
    quantize(ty, values, columns, importance, &mut blocks).unwrap();
    let mut out = vec![0.0; values.len()];
    quant::dequantize(ty, &blocks, &mut out).unwrap();
    out
}

/// The weighted squared error over the weighted sum of squares.
fn error(x: &[f32], y: &[f32], w: &[f32]) -> f64 {
    let w = |i: usize| f64::from(w[i % w.len()]);
    let sum = |f: &dyn Fn(usize) -> f32| (0..x.len()).map(|i| w(i) * f64::from(f(i)).powi(2)).sum::<f64>();
    sum(&|i| x[i] - y[i]) / sum(&|i| x[i])
}

#[test]
fn every_type_errs_at_most_as_much_as_ggmls_quantizer() {
    let entry = realm_hub::catalog().iter().find(|entry| entry.name == "smollm2-135m").unwrap();
    let path = Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ())).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let (errors, minilm, importance) = (errors(), minilm(), importance());
    let samples = errors.as_object().unwrap().iter().skip(1);
    let (mut lost, mut table) = (Vec::new(), String::new());
    for (i, (name, types)) in samples.enumerate() {
        let x = minilm.get(i).cloned().unwrap_or_else(|| smollm(&gguf, name));
        for (ty, theirs) in types.as_object().unwrap() {
            let ty = WRITTEN.into_iter().find(|t| t.to_string() == *ty).unwrap();
            for (k, weights) in [None, Some(&importance[..])].into_iter().enumerate() {
                let ours = error(&x, &back(ty, &x, COLUMNS, weights), weights.unwrap_or(&[1.0]));
                let theirs = theirs[k].as_f64().unwrap();
                table += &format!("{name} {ty} {k}: {:.4} {:.4}\n", ours.sqrt(), (ours / theirs).sqrt());
                // Some samples are multiples of one scale, which both find.
                if ours > theirs * 1.000_01 {
                    lost.push(format!("{name} {ty} {k}: {ours:e}, ggml {theirs:e}"));
                }
            }
        }
    }
    println!("{table}");
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// Types, bits and errors, in the order of their sizes.
#[test]
fn the_guides_table_of_errors_is_measured() {
    let (errors, samples) = (errors(), minilm());
    let names: Vec<_> = errors.as_object().unwrap().keys().skip(1).take(samples.len()).cloned().collect();
    let mut table = "| type | bits for each weight | error | ggml's error |\n|---|---|---|---|\n".to_owned();
    for ty in WRITTEN.into_iter().filter(|ty| ty.block_len() > 1) {
        let mean = |each: &dyn Fn(usize) -> f64| {
            let sum: f64 = (0..samples.len()).map(each).sum();
            100.0 * (sum / samples.len() as f64).sqrt()
        };
        let ours = mean(&|i| error(&samples[i], &back(ty, &samples[i], COLUMNS, None), &[1.0]));
        let theirs = mean(&|i| errors[&names[i]][ty.to_string()][0].as_f64().unwrap());
        let bits = 8.0 * ty.block_bytes() as f64 / ty.block_len() as f64;
        table += &format!("| {ty} | {bits} | {ours:.2} % | {theirs:.2} % |\n");
    }
    let guide = include_str!("../../../docs/guide/converting.md");
    assert!(guide.contains(&table), "docs/guide/converting.md needs this table:\n{table}");
}

#[test]
fn zeros_and_constants_survive() {
    for ty in WRITTEN {
        assert_eq!(back(ty, &[0.0; 512], 256, None), [0.0; 512], "{ty}");
        for value in [1.0, -1.0, 0.1, -300.0f32] {
            let y = back(ty, &[value; 256], 256, Some(&[0.0; 256]));
            // MXFP4's scales are powers of two.
            let near = if ty == TensorType::MXFP4 { 0.2 } else { 0.02 };
            assert!(y.iter().all(|y| (y / value - 1.0).abs() < near), "{ty} {value}: {}", y[0]);
        }
    }
}

#[test]
fn importances_move_the_error_to_other_columns() {
    let x = &minilm()[0];
    let weights: Vec<f32> = (0..COLUMNS).map(|i| if i % 4 == 0 { 100.0 } else { 1.0 }).collect();
    for ty in WRITTEN.into_iter().filter(|ty| ty.block_len() > 1) {
        let (plain, weighted) = (back(ty, x, COLUMNS, None), back(ty, x, COLUMNS, Some(&weights)));
        assert!(error(x, &weighted, &weights) <= error(x, &plain, &weights), "{ty}");
        let experts = [vec![1.0; COLUMNS], weights.clone()].concat();
        let both = back(ty, &[&x[..], x].concat(), COLUMNS, Some(&experts));
        assert!(both == [plain, weighted].concat(), "{ty}: each matrix has importances of its own");
    }
}

#[test]
fn wrong_arguments_are_refused_with_the_reason() {
    let refused = |ty, values: &[f32], columns, importance| {
        let error = quantize(ty, values, columns, importance, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Quantize(_)));
        error.to_string()
    };
    assert!(refused(TensorType::Q4_K, &[0.0; 576], 576, None).contains("blocks of 256"));
    assert!(refused(TensorType::IQ1_S, &[0.0; 256], 256, None).contains("Q4_K"));
    assert!(refused(TensorType::F32, &[f32::NAN], 1, None).contains("number 0 is NaN"));
    assert!(refused(TensorType::F16, &[1e6], 1, None).contains("bf16"));
    assert!(refused(TensorType::Q8_0, &[1.0; 32], 32, Some(&[1.0; 31])).contains("31 importances"));
    assert!(refused(TensorType::Q8_0, &[1.0; 32], 32, Some(&[-1.0; 32])).contains("at least 0"));
}

proptest! {
    #[test]
    fn any_numbers_become_finite_ones(bits in prop::collection::vec(any::<u32>(), 256), scale in -30i32..16) {
        let x: Vec<f32> = bits.iter().map(|&b| (b as i32 as f32 / i32::MAX as f32) * 2f32.powi(scale)).collect();
        for ty in WRITTEN {
            let y = back(ty, &x, 256, None);
            prop_assert!(y.iter().all(|y| y.is_finite()), "{ty}");
            // Smaller scales are no normal f16.
            prop_assert!(scale < -8 || error(&x, &y, &[1.0]) <= 0.2, "{ty}: {}", error(&x, &y, &[1.0]));
        }
    }
}
