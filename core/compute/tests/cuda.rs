//! Compares the CUDA backend with the CPU's plain code. Without a GPU, every test says that it was skipped;
//! with `REALM_NEEDS_GPU` in the environment, it fails instead.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::attention::Case;
use common::{Random, blocks, buffer, contents, gpu, matrix_f64, product, relative_error};
use realm_compute::cpu::{CpuBackend, Isa};
use realm_compute::{
    Activation, Backend, CacheLayout, CacheSpec, CacheType, Error, Lora, LoraRow, MatMul, Norm, RopeStyle,
    quant,
};
use realm_gguf::{Tensor, TensorInfo, TensorType};

/// Largest difference from the CPU: `|got - want| / |want|`.
const BOUND: f64 = 2e-3;

/// Columns for a type: `few`, or the next smaller whole number of blocks; K-quants have 256.
fn columns(ty: TensorType, few: usize) -> usize {
    if ty.block_len() == 256 { 256 } else { few / ty.block_len() * ty.block_len() }
}

fn scalar() -> CpuBackend {
    CpuBackend::with_isa(2, Isa::Scalar).unwrap()
}

#[test]
fn embedding_rows_are_the_dequantized_rows() {
    let Some(b) = gpu() else { return };
    let mut random = Random(3);
    for ty in TensorType::ALL {
        for (n, k) in [(35, 512), (70, 768), (33, columns(ty, 736))] {
            let data = blocks(ty, n * k, &mut random);
            let info = TensorInfo::new("w", vec![k as u64, n as u64], ty).unwrap();
            let table = b.matrix(&Tensor { info: &info, data: &data }).unwrap();
            let mut out = b.buffer(0, k).unwrap();
            b.embed(&table, &(0..n as u32).rev().collect::<Vec<_>>(), 0.5, &mut out).unwrap();
            let mut want = vec![0.0; n * k];
            quant::dequantize(ty, &data, &mut want).unwrap();
            let got = contents(&b, &out);
            for row in 0..n {
                for (c, (got, want)) in got[(n - 1 - row) * k..][..k].iter().zip(&want[row * k..]).enumerate()
                {
                    let close = (got - 0.5 * want).abs() <= 1e-5 * want.abs().max(1e-3);
                    assert!(close, "{ty}, row {row}, column {c} of {k}: {got}, not {}", 0.5 * want);
                }
            }
        }
    }
}

#[test]
fn products_equal_the_cpu_and_rows_do_not_depend_on_company() {
    let Some(b) = gpu() else { return };
    let cpu = scalar();
    let mut random = Random(7);
    for ty in TensorType::ALL {
        let tail = if ty.block_len() == 256 { 11 * 256 } else { columns(ty, 992) };
        for (n, k) in [(83, 768), (40, 5120), (16, tail)] {
            let rows = 150;
            let data = blocks(ty, n * k, &mut random);
            let x = random.floats(rows * k, 3.0);
            let all = product(&b, ty, &data, n, k, &x);
            let want = product(&cpu, ty, &data, n, k, &x);
            let error = relative_error(&all, &want);
            assert!(error < BOUND, "{ty}, {n} × {k}: {error:.2e}");
            let exact = relative_error(&all, &matrix_f64(ty, &data, n, k, &x));
            println!("{ty}, {n} × {k}: {error:.2e} from the CPU, {exact:.2e} from double precision");
            for m in [1, 2, 4, 5, 8, 9, 16, 17, 31, 33, 64, 65, 128] {
                let got = product(&b, ty, &data, n, k, &x[..m * k]);
                assert!(got == all[..m * n], "{ty}, {n} × {k}: {m} rows are not those of {rows}");
            }
        }
    }
}

/// Large matrices use other kernels than the tests above, depending on the numbers of outputs and rows.
#[test]
fn large_matrices_have_the_same_rows_in_any_company() {
    let Some(b) = gpu() else { return };
    let mut random = Random(13);
    for (ty, k) in
        [(TensorType::F16, 832), (TensorType::Q4_K, 512), (TensorType::Q6_K, 512), (TensorType::Q8_0, 832)]
    {
        for n in [4099, 12_288, 22_016] {
            let data = blocks(ty, n * k, &mut random);
            let x = random.floats(512 * k, 3.0);
            let all = product(&b, ty, &data, n, k, &x);
            for m in [1, 20, 64, 200] {
                let got = product(&b, ty, &data, n, k, &x[..m * k]);
                assert!(got == all[..m * n], "{ty}, {n} outputs: {m} rows are not those of 512");
            }
        }
    }
}

/// Codes and scales have the largest values, and inputs one sign: sums of integers are still exact, so few
/// and many rows have the same results.
#[test]
fn the_largest_sums_are_exact() {
    let Some(b) = gpu() else { return };
    let cpu = scalar();
    let (n, k) = (80, 512);
    for (ty, byte) in
        [(TensorType::Q4_K, 0xff), (TensorType::Q6_K, 0x7f), (TensorType::Q6_K, 0xff), (TensorType::Q6_K, 0)]
    {
        let mut data = vec![byte; n * k / ty.block_len() * ty.block_bytes()];
        for block in data.chunks_exact_mut(ty.block_bytes()) {
            let scales: &[usize] = if ty == TensorType::Q4_K { &[0, 2] } else { &[208] };
            scales.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&[0x66, 0x2e]));
            if ty == TensorType::Q6_K {
                // Scales are signed.
                block[192..208].fill(if byte == 0 { 0x80 } else { 0x7f });
            }
        }
        let x: Vec<f32> =
            (0..100 * k).map(|i| if i / k % 2 == 0 { 1.0 } else { 1.0 - (i % 3) as f32 * 0.01 }).collect();
        let all = product(&b, ty, &data, n, k, &x);
        let error = relative_error(&all, &product(&cpu, ty, &data, n, k, &x));
        assert!(error < 1e-6, "{ty}: {error:.2e}");
        for m in [1, 8, 20, 40] {
            assert!(
                product(&b, ty, &data, n, k, &x[..m * k]) == all[..m * n],
                "{ty}: {m} rows are not those of 100"
            );
        }
    }
}

#[test]
fn the_largest_numbers_are_found_in_order() {
    let Some(b) = gpu() else { return };
    let cpu = scalar();
    let mut random = Random(51);
    for columns in [1, 100, 2048, 32_000, 150_001] {
        let rows = 6;
        let mut x = random.floats(rows * columns, 5.0);
        for row in 1..rows {
            for (i, x) in x[row * columns..][..columns].iter_mut().enumerate() {
                match row {
                    1 => *x = 2.5,
                    2 => *x = x.round(),
                    3 if i % 3 > 0 => *x = f32::NEG_INFINITY,
                    4 if i % 500 > 0 => *x = [f32::NAN, f32::NEG_INFINITY, -0.0, 0.0][i % 4],
                    _ => {}
                }
            }
        }
        for want in [1, 128, 1024] {
            let (mut ours, mut theirs) = (b.buffer(0, 2 * want).unwrap(), cpu.buffer(0, 2 * want).unwrap());
            let input = buffer(&b, rows, columns, &x);
            b.top_k(&input, &mut ours).unwrap();
            cpu.top_k(&buffer(&cpu, rows, columns, &x), &mut theirs).unwrap();
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let (got, expected) = (bits(contents(&b, &ours)), bits(contents(&cpu, &theirs)));
            let differ = got.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(differ.is_none(), "{columns} columns, {want} wanted: number {differ:?}");
            let mut row = Vec::new();
            b.read_row(&input, 5, &mut row).unwrap();
            assert_eq!(row, x[5 * columns..]);
        }
    }
}

#[test]
fn activations_beyond_half_floats_are_scaled() {
    let Some(b) = gpu() else { return };
    let mut random = Random(17);
    let (n, k) = (32, 512);
    for ty in [TensorType::F16, TensorType::BF16] {
        let data = blocks(ty, n * k, &mut random);
        let mut x = random.floats(2 * k, 1.0);
        for i in [3, 300, 700] {
            x[i] = 3e6;
        }
        let error = relative_error(&product(&b, ty, &data, n, k, &x), &matrix_f64(ty, &data, n, k, &x));
        assert!(error < BOUND, "{ty}: {error:.2e}");
    }
}

#[test]
fn bias_and_residual_are_added_in_one_product_of_several_matrices() {
    let Some(b) = gpu() else { return };
    let k = 512;
    let mut random = Random(5);
    for rows in [3, 70] {
        let x = random.floats(rows * k, 1.0);
        let mut weights = Vec::new();
        let types = [
            TensorType::Q4_K,
            TensorType::Q8_0,
            TensorType::F16,
            TensorType::F32,
            TensorType::Q6_K,
            TensorType::Q4_0,
        ];
        for (i, ty) in types.into_iter().enumerate() {
            let n = 16 + 20 * i;
            let data = blocks(ty, n * k, &mut random);
            let info = TensorInfo::new("w", vec![k as u64, n as u64], ty).unwrap();
            let plain = product(&b, ty, &data, n, k, &x);
            weights.push((b.matrix(&Tensor { info: &info, data: &data }).unwrap(), n, plain));
        }
        let input = buffer(&b, rows, k, &x);
        let biases: Vec<Vec<f32>> = weights.iter().map(|(_, n, _)| random.floats(*n, 1.0)).collect();
        let residuals: Vec<Vec<f32>> = weights.iter().map(|(_, n, _)| random.floats(rows * n, 1.0)).collect();
        let vectors: Vec<_> = biases.iter().map(|bias| b.vector(bias).unwrap()).collect();
        let mut outs: Vec<_> =
            weights.iter().zip(&residuals).map(|((_, n, _), r)| buffer(&b, rows, *n, r)).collect();
        let mut jobs: Vec<_> = weights
            .iter()
            .zip(&mut outs)
            .enumerate()
            .map(|(i, ((weight, ..), out))| MatMul {
                weight,
                bias: (i % 2 == 1).then_some(&vectors[i]),
                out,
                accumulate: i >= 2,
                lora: &[],
            })
            .collect();
        b.matmul(&input, &mut jobs).unwrap();
        for (i, (_, n, plain)) in weights.iter().enumerate() {
            for (at, got) in contents(&b, &outs[i]).into_iter().enumerate() {
                let mut want = plain[at];
                if i % 2 == 1 {
                    want += biases[i][at % n];
                }
                if i >= 2 {
                    want += residuals[i][at];
                }
                assert_eq!(got, want, "matrix {i}, {rows} rows, number {at}");
            }
        }
    }
}

/// Multiplies with adapters on some rows, two of them on one row.
fn with_adapters<B: Backend>(b: &B, ty: TensorType) -> Vec<f32> {
    let mut random = Random(41);
    let (n, k, rank, rows) = (70, 512, 6, 9);
    let mut tensor = |ty, columns: usize, rows: usize| {
        let info = TensorInfo::new("w", vec![columns as u64, rows as u64], ty).unwrap();
        (info, blocks(ty, columns * rows, &mut random))
    };
    let (w, data) = tensor(ty, k, n);
    let weight = b.matrix(&Tensor { info: &w, data: &data }).unwrap();
    let pairs: Vec<B::LowRank> = [TensorType::F16, TensorType::F32, TensorType::BF16]
        .into_iter()
        .map(|ty| {
            let ((ia, a), (ib, c)) = (tensor(ty, k, rank), tensor(ty, rank, n));
            b.low_rank(&Tensor { info: &ia, data: &a }, &Tensor { info: &ib, data: &c }).unwrap()
        })
        .collect();
    let x = buffer(b, rows, k, &random.floats(rows * k, 1.0));
    let mut out = buffer(b, rows, n, &random.floats(rows * n, 1.0));
    let row = |row, scale| LoraRow { row, scale };
    let seen = [vec![row(8, 1.0), row(0, -2.0)], vec![row(3, 0.5)], vec![row(8, 3.0)]];
    let lora: Vec<_> = pairs.iter().zip(&seen).map(|(pair, rows)| Lora { pair, scale: 40.0, rows }).collect();
    let job = MatMul { weight: &weight, bias: None, out: &mut out, accumulate: true, lora: &lora };
    b.matmul(&x, &mut [job]).unwrap();
    contents(b, &out)
}

#[test]
fn adapters_change_the_rows_that_see_them() {
    let Some(b) = gpu() else { return };
    for ty in [TensorType::Q4_K, TensorType::F16, TensorType::F32] {
        let error = relative_error(&with_adapters(&b, ty), &with_adapters(&scalar(), ty));
        assert!(error < BOUND, "{ty}: {error:.2e}");
    }
}

/// Returns the results of all element-wise operations on the same inputs, by name.
fn elementwise<B: Backend>(b: &B, columns: usize) -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random(21);
    let rows = 5;
    let x = random.floats(rows * columns, 2.0);
    let y = random.floats(rows * columns, 2.0);
    let weight = b.vector(&random.floats(columns, 1.0)).unwrap();
    let mut all = Vec::new();
    let (mut a, c) = (buffer(b, rows, columns, &x), buffer(b, rows, columns, &y));
    let mut out = b.buffer(0, columns).unwrap();
    b.norm(&a, &Norm::rms(&weight, 1e-5), &mut out).unwrap();
    all.push(("norm", contents(b, &out)));
    b.gather(&a, &[4, 0, 4], &mut out).unwrap();
    all.push(("gather", contents(b, &out)));
    b.add_norm(&mut a, &c, &Norm::rms(&weight, 1e-5)).unwrap();
    all.push(("add_norm", contents(b, &a)));
    b.gated_activation(Activation::Silu, &mut a, &c).unwrap();
    all.push(("silu", contents(b, &a)));
    b.soft_cap(&mut a, 3.0).unwrap();
    all.push(("soft_cap", contents(b, &a)));
    b.gated_activation(Activation::GeluTanh, &mut a, &c).unwrap();
    all.push(("gelu", contents(b, &a)));
    let frequencies = b.vector(&(0..40).map(|i| 0.7f32.powi(i)).collect::<Vec<_>>()).unwrap();
    let magnitude = 1.1;
    let mut out = b.buffer(0, 80).unwrap();
    b.rotations(&frequencies, magnitude, &[0, 1, 77, 100_000], &mut out).unwrap();
    all.push(("rotations", contents(b, &out)));
    all
}

#[test]
fn elementwise_operations_equal_the_cpu() {
    let Some(b) = gpu() else { return };
    let cpu = scalar();
    for columns in [64, 100, 513, 4096, 11_008] {
        for ((what, got), (_, want)) in elementwise(&b, columns).into_iter().zip(elementwise(&cpu, columns)) {
            let error = relative_error(&got, &want);
            assert!(error < 2e-6, "{what} of {columns} columns: {error:.2e}");
        }
    }
}

/// A product whose input forms were made by the operation that filled the input equals a product that made
/// them itself.
#[test]
fn forms_made_along_the_way_are_the_same() {
    let Some(b) = gpu() else { return };
    let mut random = Random(31);
    let k = 1280;
    let x = buffer(&b, 3, k, &random.floats(3 * k, 1.0));
    let up = buffer(&b, 3, k, &random.floats(3 * k, 1.0));
    let norm = b.vector(&random.floats(k, 1.0)).unwrap();
    for ty in [TensorType::Q4_K, TensorType::Q4_1, TensorType::F16] {
        let data = blocks(ty, 64 * k, &mut random);
        let info = TensorInfo::new("w", vec![k as u64, 64], ty).unwrap();
        let weight = b.matrix(&Tensor { info: &info, data: &data }).unwrap();
        let mut results: Vec<Vec<f32>> = Vec::new();
        let mut normed = b.buffer(0, k).unwrap();
        let mut out = b.buffer(0, 64).unwrap();
        for round in 0..2 {
            b.norm(&x, &Norm::rms(&norm, 1e-5), &mut normed).unwrap();
            if round == 1 {
                // In place, while the buffer's forms are valid.
                b.gated_activation(Activation::Silu, &mut normed, &up).unwrap();
                b.norm(&x, &Norm::rms(&norm, 1e-5), &mut normed).unwrap();
            }
            let job = MatMul { weight: &weight, bias: None, out: &mut out, accumulate: false, lora: &[] };
            b.matmul(&normed, &mut [job]).unwrap();
            results.push(contents(&b, &out));
        }
        assert!(results[0] == results[1], "{ty}");
        b.gated_activation(Activation::Silu, &mut normed, &up).unwrap();
        b.matmul(
            &normed,
            &mut [MatMul { weight: &weight, bias: None, out: &mut out, accumulate: false, lora: &[] }],
        )
        .unwrap();
        let along = contents(&b, &out);
        let fresh = buffer(&b, 3, k, &contents(&b, &normed));
        b.matmul(
            &fresh,
            &mut [MatMul { weight: &weight, bias: None, out: &mut out, accumulate: false, lora: &[] }],
        )
        .unwrap();
        assert!(along == contents(&b, &out), "{ty}");
        assert!(along != results[0], "{ty}: the forms are those of before");
    }
}

#[test]
fn what_an_earlier_sequence_left_in_its_pages_changes_nothing() {
    let case = |dim, kind| Case { heads: 7, kv_heads: 1, dim, window: None, soft_cap: None, kind };
    let Some(b) = gpu() else { return };
    for kind in CacheType::ALL {
        case(64, kind).check_used_pages(&b);
        case(24, kind).check_used_pages(&b);
        case(128, kind).check_used_pages(&b);
    }
}

#[test]
fn attention_equals_the_full_score_matrix_in_any_chunking() {
    let Some(b) = gpu() else { return };
    let (f16, f32, q8) = (CacheType::F16, CacheType::F32, CacheType::Q8_0);
    let case =
        |heads, kv_heads, dim, window, soft_cap, kind| Case { heads, kv_heads, dim, window, soft_cap, kind };
    let cases = [
        case(9, 3, 64, None, None, f16),
        case(4, 1, 80, Some(40), None, f16),
        case(7, 1, 24, Some(9), Some(2.0), f16),
        case(2, 2, 128, None, Some(5.0), f16),
        case(20, 1, 96, Some(300), None, f16),
        case(4, 4, 192, None, None, f16),
        case(4, 1, 256, Some(513), None, f16),
        case(9, 3, 64, None, None, f32),
        case(4, 1, 80, Some(40), Some(3.0), f32),
        case(9, 3, 64, None, None, q8),
        case(4, 1, 80, Some(40), Some(3.0), q8),
        case(20, 1, 96, Some(300), None, q8),
        case(2, 2, 128, None, None, q8),
        case(4, 1, 256, Some(513), None, q8),
    ];
    for (case, style) in cases.iter().zip([RopeStyle::Half, RopeStyle::Interleaved].into_iter().cycle()) {
        let (heads, dim) = (case.heads, case.dim);
        // Several spans of 256 tokens; one row at a time would be slow to feed.
        for (rows, pieces) in [(700, &[33, 64, 699][..]), (290, &[1, 3])] {
            let want = case.naive(rows, style);
            let whole = case.run(&b, rows, rows, style);
            let error = relative_error(&whole, &want);
            println!("{heads} heads of {dim}, {} cache: {error:.2e}", case.kind);
            let bound = match case.kind {
                CacheType::F32 => 1e-5,
                CacheType::F16 => BOUND,
                // Same bound as on the CPU.
                CacheType::Q8_0 => 0.02,
                other => panic!("no bound for {other}"),
            };
            assert!(error < bound, "{heads} heads of {dim}: {error:.2e}");
            for &piece in pieces {
                let got = case.run(&b, rows, piece, style);
                let differ = got.iter().zip(&whole).position(|(a, b)| a != b);
                assert!(differ.is_none(), "{heads} heads of {dim}: pieces of {piece} differ at {differ:?}");
            }
        }
    }
}

#[test]
fn pages_are_copied_exported_and_imported() {
    let Some(b) = gpu() else { return };
    for kind in CacheType::ALL {
        let layout = CacheLayout::new(2, 48, &[None, Some(64), None]);
        let spec = CacheSpec { layout, pages: 5, kind };
        let mut cache = b.cache(&spec).unwrap();
        let mut empty = Vec::new();
        b.export_page(&cache, 3, &mut empty).unwrap();
        let bytes: Vec<u8> = (0..empty.len()).map(|i| (i * 7 % 251) as u8).collect();
        b.import_page(&mut cache, 3, &bytes).unwrap();
        b.copy_page(&mut cache, 3, 0).unwrap();
        for (page, want) in [(0, &bytes), (1, &empty), (3, &bytes), (4, &empty)] {
            let mut got = vec![42];
            b.export_page(&cache, page, &mut got).unwrap();
            assert!(got[0] == 42 && got[1..] == want[..], "page {page} of {kind:?}");
        }
        assert!(b.import_page(&mut cache, 3, &bytes[1..]).is_err());
        assert!(b.copy_page(&mut cache, 0, 5).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_figures() {
    let Some(b) = gpu() else { return };
    let (_, total) = b.memory().unwrap();
    let error = b.buffer(1 << 10, (total / 1024) as usize).err().expect("more than there is");
    let Error::OutOfMemory { needed, free, .. } = error else { panic!("{error}") };
    assert!(needed > free && free <= total);
    // The backend still works.
    let x = buffer(&b, 1, 3, &[1.0, 2.0, 3.0]);
    assert_eq!(contents(&b, &x), [1.0, 2.0, 3.0]);
}
