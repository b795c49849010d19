//! Compares the CPU backend with plain arithmetic on dequantized weights.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::attention::Case;
use common::{Random, backends, blocks, buffer, matrix_f64, product, relative_error};
use realm_compute::cpu::CpuBackend;
use realm_compute::{Backend, CacheType, MatMul, RopeStyle, quant};
use realm_gguf::{Tensor, TensorInfo, TensorType};

#[test]
fn products_equal_those_of_dequantized_weights() {
    let (n, k) = (83, 768);
    let mut random = Random(7);
    for ty in TensorType::ALL {
        let data = blocks(ty, n * k, &mut random);
        let x = random.floats(9 * k, 1.0);
        let want = matrix_f64(ty, &data, n, k, &x);
        for b in backends() {
            let got = product(&b, ty, &data, n, k, &x);
            let error = relative_error(&got, &want);
            // 8-bit activations have an error of d / sqrt(12) on values of about 40 d; floats only rounding
            // errors.
            let bound = if ty.block_len() == 1 || ty == TensorType::Q8_K { 1e-6 } else { 1e-2 };
            assert!(error < bound, "{ty} on {}: {error:.2e}", b.description());
        }
    }
}

#[test]
fn instruction_sets_agree_to_the_last_bit_and_rows_do_not_depend_on_company() {
    // More columns than one tile, and rows for every remainder of the kernels' row counts.
    let (n, k, rows) = (40, 5120, 23);
    let mut random = Random(11);
    for ty in TensorType::ALL {
        let data = blocks(ty, n * k, &mut random);
        let x = random.floats(rows * k, 3.0);
        let all = backends();
        let want = product(&all[0], ty, &data, n, k, &x);
        for b in &all {
            for m in [1, 2, 3, 4, 5, 6, 7, 8, 13, rows] {
                let got = product(b, ty, &data, n, k, &x[..m * k]);
                assert!(got == want[..m * n], "{ty}, {m} rows on {}", b.description());
            }
        }
    }
}

#[test]
fn embedding_rows_are_the_dequantized_rows() {
    let (n, k) = (35, 512);
    let mut random = Random(3);
    let b = CpuBackend::new(2).unwrap();
    for ty in TensorType::ALL {
        let data = blocks(ty, n * k, &mut random);
        let info = TensorInfo::new("w", vec![k as u64, n as u64], ty).unwrap();
        let table = b.matrix(&Tensor { info: &info, data: &data }).unwrap();
        let mut out = b.buffer(2, k).unwrap();
        b.embed(&table, &[34, 17], 1.0, &mut out).unwrap();
        let mut want = vec![0.0; n * k];
        quant::dequantize(ty, &data, &mut want).unwrap();
        for (row, token) in [34, 17].into_iter().enumerate() {
            for (got, want) in out.data()[row * k..][..k].iter().zip(&want[token * k..]) {
                assert!(got.to_bits() == want.to_bits(), "{ty}: {got} {want}");
            }
        }
    }
}

#[test]
fn bias_and_residual_are_added_in_one_product_of_several_matrices() {
    let k = 256;
    let mut random = Random(5);
    let x = random.floats(3 * k, 1.0);
    for b in backends() {
        let mut weights = Vec::new();
        for (ty, n) in [(TensorType::Q4_K, 48), (TensorType::Q8_0, 16), (TensorType::F16, 20)] {
            let data = blocks(ty, n * k, &mut random);
            let info = TensorInfo::new("w", vec![k as u64, n as u64], ty).unwrap();
            let plain = product(&b, ty, &data, n, k, &x);
            weights.push((b.matrix(&Tensor { info: &info, data: &data }).unwrap(), n, plain));
        }
        let bias = b.vector(&random.floats(16, 1.0)).unwrap();
        let residual = random.floats(3 * 20, 1.0);
        let input = buffer(&b, 3, k, &x);
        let mut outs: Vec<_> = weights.iter().map(|(_, n, _)| b.buffer(3, *n).unwrap()).collect();
        outs[2] = buffer(&b, 3, 20, &residual);
        let mut jobs: Vec<_> = weights
            .iter()
            .zip(&mut outs)
            .enumerate()
            .map(|(i, ((weight, ..), out))| MatMul {
                weight,
                bias: (i == 1).then_some(&bias),
                out,
                accumulate: i == 2,
                lora: &[],
            })
            .collect();
        b.matmul(&input, &mut jobs).unwrap();
        assert_eq!(outs[0].data(), weights[0].2);
        for (i, &got) in outs[1].data().iter().enumerate() {
            assert_eq!(got, weights[1].2[i] + bias[i % 16]);
        }
        for (i, &got) in outs[2].data().iter().enumerate() {
            assert_eq!(got, residual[i] + weights[2].2[i]);
        }
    }
}

#[test]
fn attention_equals_the_full_score_matrix_in_any_chunking() {
    let cases = [
        Case { heads: 9, kv_heads: 3, dim: 64, window: None, soft_cap: None, kind: CacheType::F32 },
        Case { heads: 4, kv_heads: 1, dim: 80, window: Some(40), soft_cap: None, kind: CacheType::F16 },
        Case { heads: 7, kv_heads: 1, dim: 24, window: Some(9), soft_cap: Some(2.0), kind: CacheType::F32 },
        Case { heads: 2, kv_heads: 2, dim: 128, window: None, soft_cap: Some(5.0), kind: CacheType::F16 },
        Case { heads: 9, kv_heads: 3, dim: 64, window: None, soft_cap: None, kind: CacheType::Q8_0 },
        Case { heads: 4, kv_heads: 1, dim: 80, window: Some(300), soft_cap: None, kind: CacheType::Q8_0 },
        Case { heads: 7, kv_heads: 1, dim: 24, window: Some(9), soft_cap: Some(2.0), kind: CacheType::Q8_0 },
    ];
    for (case, style) in cases.iter().zip([RopeStyle::Half, RopeStyle::Interleaved].into_iter().cycle()) {
        let want = case.naive(150, style);
        let mut first: Option<Vec<f32>> = None;
        for b in backends() {
            let whole = case.run(&b, 150, 150, style);
            let error = relative_error(&whole, &want);
            assert!(error < case.bound(), "{error:.2e} on {}", b.description());
            for piece in [1, 33, 64] {
                assert!(case.run(&b, 150, piece, style) == whole, "pieces of {piece} on {}", b.description());
            }
            assert!(first.get_or_insert_with(|| whole.clone()) == &whole, "{}", b.description());
        }
    }
}

#[test]
fn what_an_earlier_sequence_left_in_its_pages_changes_nothing() {
    let case = |dim, kind| Case { heads: 7, kv_heads: 1, dim, window: None, soft_cap: None, kind };
    for (kind, b) in
        CacheType::ALL.into_iter().flat_map(|kind| backends().into_iter().map(move |b| (kind, b)))
    {
        case(64, kind).check_used_pages(&b);
        case(24, kind).check_used_pages(&b);
    }
}

/// When a sequence decodes alone, threads share the chunks of its long context; when its prompt is computed,
/// they do not.
#[test]
fn a_long_context_gives_the_same_bits_alone_and_among_many_rows() {
    let cases = [
        Case { heads: 9, kv_heads: 3, dim: 64, window: None, soft_cap: None, kind: CacheType::F32 },
        Case { heads: 4, kv_heads: 1, dim: 80, window: Some(300), soft_cap: None, kind: CacheType::F16 },
        Case { heads: 7, kv_heads: 1, dim: 64, window: None, soft_cap: Some(5.0), kind: CacheType::Q8_0 },
    ];
    for case in cases {
        let want = case.naive(600, RopeStyle::Half);
        let mut first: Option<Vec<f32>> = None;
        for b in backends() {
            let whole = case.run(&b, 600, 600, RopeStyle::Half);
            let error = relative_error(&whole, &want);
            assert!(error < case.bound(), "{error:.2e} on {}", b.description());
            let pieces = case.run(&b, 600, 599, RopeStyle::Half);
            assert!(pieces == whole, "{} cache on {}", case.kind, b.description());
            assert!(first.get_or_insert_with(|| whole.clone()) == &whole, "{}", b.description());
        }
    }
}

#[test]
fn pages_keep_their_contents_when_copied_exported_and_imported() {
    for kind in CacheType::ALL {
        for dim in [64, 80, 24] {
            let case = Case { heads: 4, kv_heads: 2, dim, window: None, soft_cap: None, kind };
            let (b, style) = (CpuBackend::new(2).unwrap(), RopeStyle::Half);
            let mut cache = b.cache(&case.spec()).unwrap();
            case.feed(&b, &mut cache, &[3, 5], 65, 0..64, style);
            let mut other = b.cache(&case.spec()).unwrap();
            for (from, to, copy) in [(3, 1, 7), (5, 0, 19)] {
                let mut bytes = Vec::new();
                b.export_page(&cache, from, &mut bytes).unwrap();
                assert_eq!(bytes.len(), case.spec().page_bytes());
                assert!(b.import_page(&mut other, to, &bytes[1..]).is_err());
                b.import_page(&mut other, to, &bytes).unwrap();
                b.copy_page(&mut other, to, copy).unwrap();
            }
            let want = case.feed(&b, &mut cache, &[3, 5, 9], 65, 64..65, style);
            for pages in [[1, 0, 2], [7, 19, 2]] {
                assert_eq!(case.feed(&b, &mut other, &pages, 65, 64..65, style), want, "{kind}, {dim}");
            }
        }
    }
}
