//! Compares weights and products with candle (<https://github.com/huggingface/candle>), which has its own
//! code for ggml's blocks: if our dequantization and our kernels misread a layout in the same way, these
//! tests show it.

#![cfg(test)]

#[allow(dead_code, reason = "the tests of realm-compute share more")]
#[path = "../../../core/compute/tests/common/mod.rs"]
mod common;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor as CandleTensor};
use common::{Random, backends, blocks, relative_error};
use realm_compute::cpu::CpuBackend;
use realm_compute::{Backend, quant};
use realm_gguf::TensorType;

/// The types that both libraries read. Candle's Q8_1 is for activations; GGUF files do not have it.
const TYPES: [(TensorType, GgmlDType); 14] = [
    (TensorType::F32, GgmlDType::F32),
    (TensorType::F16, GgmlDType::F16),
    (TensorType::BF16, GgmlDType::BF16),
    (TensorType::Q4_0, GgmlDType::Q4_0),
    (TensorType::Q4_1, GgmlDType::Q4_1),
    (TensorType::Q5_0, GgmlDType::Q5_0),
    (TensorType::Q5_1, GgmlDType::Q5_1),
    (TensorType::Q8_0, GgmlDType::Q8_0),
    (TensorType::Q2_K, GgmlDType::Q2K),
    (TensorType::Q3_K, GgmlDType::Q3K),
    (TensorType::Q4_K, GgmlDType::Q4K),
    (TensorType::Q5_K, GgmlDType::Q5K),
    (TensorType::Q6_K, GgmlDType::Q6K),
    (TensorType::Q8_K, GgmlDType::Q8K),
];

/// The types that candle does not read. `cpu.rs` compares their kernels with `quant::dequantize`, and the
/// tiny models of `tests/reference` compare both with the gguf package for Python.
const OURS_ALONE: [TensorType; 15] = [
    TensorType::IQ4_NL,
    TensorType::IQ4_XS,
    TensorType::IQ2_XXS,
    TensorType::IQ2_XS,
    TensorType::IQ2_S,
    TensorType::IQ3_XXS,
    TensorType::IQ3_S,
    TensorType::IQ1_S,
    TensorType::IQ1_M,
    TensorType::TQ1_0,
    TensorType::TQ2_0,
    TensorType::MXFP4,
    TensorType::NVFP4,
    TensorType::Q1_0,
    TensorType::Q2_0,
];

/// Outputs and inputs of every matrix here: not a multiple of the 16 outputs of a panel, and several blocks
/// per row.
const N: usize = 83;
const K: usize = 768;
/// Rows of the activations: one token, part of a tile, several tiles.
const ROWS: [usize; 3] = [1, 7, 33];

/// The largest difference of two f32 products, relative to their norm.
///
/// A running sum of `K` independent terms, rounded after each to within `u = 2⁻²⁴` of itself, errs by at most
/// `√(K / 2) · u / √3 = 6.7e-7` in the root mean square, two of them by 9.5e-7; the rest is a margin for
/// chance. Measured: at most 7e-7.
const FLOAT_BOUND: f64 = 1.5e-6;

/// Returns `[N, K]`, quantized by candle from roughly normal numbers.
fn quantized(ty: GgmlDType, random: &mut Random) -> QTensor {
    let values = CandleTensor::from_vec(random.floats(N * K, 0.05), (N, K), &Device::Cpu).unwrap();
    QTensor::quantize(&values, ty).unwrap()
}

/// Returns `[N, K]` with any bits for codes and with small scales: includes codes that no quantizer chooses.
fn any_bits(ours: TensorType, candles: GgmlDType, random: &mut Random) -> QTensor {
    let data = blocks(ours, N * K, random);
    QTensor::new(QStorage::from_data(data.into(), &Device::Cpu, candles).unwrap(), (N, K)).unwrap()
}

/// Computes `x · wᵀ` in f32 with candle, `[rows, N]`, from the weights as candle reads them.
fn product_by_candle(x: &[f32], w: &QTensor) -> Vec<f32> {
    let x = CandleTensor::from_slice(x, (x.len() / K, K), &Device::Cpu).unwrap();
    let w = w.dequantize(&Device::Cpu).unwrap();
    x.matmul(&w.t().unwrap()).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Computes `x · wᵀ` with our kernels, `[rows, N]`.
fn product(b: &CpuBackend, ty: TensorType, x: &[f32], w: &QTensor) -> Vec<f32> {
    common::product(b, ty, &w.data().unwrap(), N, K, x)
}

/// Returns whether kernels multiply floats; all other types are multiplied with 8-bit activations.
fn is_float(ty: TensorType) -> bool {
    ty.block_len() == 1 || ty == TensorType::Q8_K
}

/// The relative error that 8-bit activations cause in a product with weights independent of them.
///
/// A block's numbers are rounded to multiples of `d = max|x| / 127`, which errs by `d² / 12` in the mean of
/// squares. Independent weights amplify the errors as much as the activations, so the ratio of their norms is
/// the product's relative error. Blocks have the weights' block length.
fn expected_error(x: &[f32], block: usize) -> f64 {
    let square = |x: f32| (x as f64).powi(2);
    let errors: f64 = x
        .chunks_exact(block)
        .map(|x| square(x.iter().fold(0f32, |max, x| max.max(x.abs())) / 127.0) / 12.0 * block as f64)
        .sum();
    (errors / x.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

/// Activations that 8 bits hold exactly: in every block, whole multiples, up to ±127, of a power of two.
fn representable(rows: usize, block: usize, random: &mut Random) -> Vec<f32> {
    let mut x = Vec::with_capacity(rows * K);
    for _ in 0..rows * K / block {
        let step = 0.5f32.powi(5 + (random.next() >> 62) as i32);
        let first = x.len();
        x.extend((0..block).map(|_| ((random.next() >> 33) % 255) as f32 * step - 127.0 * step));
        x[first + (random.next() >> 33) as usize % block] = 127.0 * step;
    }
    x
}

#[test]
fn every_type_is_compared_or_listed() {
    for ty in TensorType::ALL {
        assert!(TYPES.iter().any(|(t, _)| *t == ty) != OURS_ALONE.contains(&ty), "{ty}");
    }
    assert_eq!(TYPES.len() + OURS_ALONE.len(), TensorType::ALL.len());
}

/// Both libraries do the same steps in the same order (`d * scale` first, then times the code, then minus the
/// minimum), and Rust never fuses them, so the test compares the bits.
#[test]
fn weights_are_those_that_candle_reads() {
    let mut random = Random(17);
    for (ours, candles) in TYPES {
        for w in [quantized(candles, &mut random), any_bits(ours, candles, &mut random)] {
            let want: Vec<f32> =
                w.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let mut got = vec![0.0; N * K];
            quant::dequantize(ours, &w.data().unwrap(), &mut got).unwrap();
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!(got.to_bits() == want.to_bits(), "{ours}: number {i} is {got}, not {want}");
            }
        }
    }
}

#[test]
fn products_differ_from_candles_by_the_rounding_of_activations_to_8_bits() {
    let mut random = Random(23);
    for (ours, candles) in TYPES {
        let w = quantized(candles, &mut random);
        let x = random.floats(ROWS[2] * K, 1.0);
        let want = product_by_candle(&x, &w);
        for (b, rows) in backends().iter().flat_map(|b| ROWS.map(|rows| (b, rows))) {
            let x = &x[..rows * K];
            let error = relative_error(&product(b, ours, x, &w), &want[..rows * N]);
            let expected = expected_error(x, ours.block_len());
            // One row is 83 outputs, whose error differs from the expected one by 1 / √83 = 11 %.
            let bound = if is_float(ours) { FLOAT_BOUND } else { 1.4 * expected };
            assert!(error < bound, "{ours}, {rows} rows on {}: {error:.2e} > {bound:.2e}", b.description());
        }
    }
}

/// The bound above would hide a rare code that is read wrong. With activations that need no rounding, only
/// the rounding of f32 sums is left.
#[test]
fn products_equal_candles_where_8_bits_hold_the_activations() {
    let mut random = Random(29);
    for (ours, candles) in TYPES {
        let block = if is_float(ours) { 32 } else { ours.block_len() };
        let x = representable(ROWS[2], block, &mut random);
        for w in [quantized(candles, &mut random), any_bits(ours, candles, &mut random)] {
            let want = product_by_candle(&x, &w);
            for (b, rows) in backends().iter().flat_map(|b| ROWS.map(|rows| (b, rows))) {
                let error = relative_error(&product(b, ours, &x[..rows * K], &w), &want[..rows * N]);
                assert!(error < FLOAT_BOUND, "{ours}, {rows} rows on {}: {error:.2e}", b.description());
            }
        }
    }
}
