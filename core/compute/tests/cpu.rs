//! The CPU backend against plain arithmetic on dequantized weights.

mod common;

use std::ops::Range;

use common::{Random, backends, blocks, buffer, matrix_f64, product, relative_error};
use realm_compute::cpu::{Cache, CpuBackend};
use realm_compute::{
    Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, MatMul, NO_PAGE, PAGE_TOKENS, Rope,
    RopeStyle, Want, quant,
};
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
            // 8-bit activations: an error of d / sqrt(12) on values of about 40 d; floats: rounding.
            let bound = if ty.block_len() == 1 || ty == TensorType::Q8_K { 1e-6 } else { 1e-2 };
            assert!(error < bound, "{ty} on {}: {error:.2e}", b.description());
        }
    }
}

#[test]
fn instruction_sets_agree_to_the_last_bit_and_rows_do_not_depend_on_company() {
    // Columns beyond one tile, rows for every remainder of the kernels' row counts.
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
                assert!((got - want).abs() <= 1e-5 * want.abs().max(1e-3), "{ty}: {got} {want}");
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

/// Everything attention needs, with made-up keys and values.
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    window: Option<usize>,
    soft_cap: Option<f32>,
    kind: CacheType,
}

impl Case {
    /// How far off the output may be: values of 8 bits are off by d / sqrt(12) where they are of about 50 d, and keys by
    /// 1.4 times that, since the difference of two random ones is held.
    fn bound(&self) -> f64 {
        match self.kind {
            CacheType::F32 => 2e-6,
            CacheType::F16 => 1e-3,
            CacheType::Q8_0 => 2e-2,
        }
    }

    fn spec(&self) -> CacheSpec {
        let layout = CacheLayout::new(self.kv_heads, self.dim, &[self.window; 2]);
        CacheSpec { layout, pages: 20, kind: self.kind }
    }

    /// Feeds `rows` tokens in pieces of `piece` and returns the outputs.
    fn run(&self, b: &CpuBackend, rows: usize, piece: usize, style: RopeStyle) -> Vec<f32> {
        let mut cache = b.cache(&self.spec()).unwrap();
        // Pages in no particular order.
        let pages: Vec<u32> = (0..rows.div_ceil(PAGE_TOKENS)).map(|i| (i as u32 * 7 + 3) % 20).collect();
        let starts = (0..rows).step_by(piece);
        starts
            .flat_map(|start| {
                let end = rows.min(start + piece);
                self.feed(b, &mut cache, &pages, rows, start..end, style)
            })
            .collect()
    }

    /// Feeds some of `rows` tokens and returns their outputs.
    fn feed(
        &self,
        b: &CpuBackend,
        cache: &mut Cache,
        pages: &[u32],
        rows: usize,
        part: Range<usize>,
        style: RopeStyle,
    ) -> Vec<f32> {
        let mut random = Random(99);
        let q = random.floats(rows * self.heads * self.dim, 1.0);
        let k = random.floats(rows * self.kv_heads * self.dim, 1.0);
        let v = random.floats(rows * self.kv_heads * self.dim, 1.0);
        let frequencies = b.vector(&(0..self.dim / 2).map(|i| 0.5f32.powi(i as i32)).collect::<Vec<_>>());
        let rope = Rope { frequencies: frequencies.unwrap(), magnitude: 1.0 };
        let (start, n) = (part.start, part.len());
        let mut batch = Batch::default();
        let mut table = pages.to_vec();
        table[..self.spec().layout.first_page(0, start)].fill(NO_PAGE);
        batch.push(&vec![0; n], start, &[table], Want::Nothing);
        let mut rotations = b.buffer(n, self.dim).unwrap();
        b.rotations(&rope, &batch.positions, &mut rotations).unwrap();
        let part = |x: &[f32], heads: usize| {
            buffer(b, n, heads * self.dim, &x[start * heads * self.dim..][..n * heads * self.dim])
        };
        let (mut q, mut k, v) = (part(&q, self.heads), part(&k, self.kv_heads), part(&v, self.kv_heads));
        let attention = Attention {
            layer: 1,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.dim,
            q_norm: None,
            k_norm: None,
            eps: 1e-6,
            rotations: &rotations,
            style,
            scale: 0.3,
            window: self.window,
            soft_cap: self.soft_cap,
        };
        let mut out = b.buffer(n, self.heads * self.dim).unwrap();
        b.rope_store(&attention, &batch, &mut q, &mut k, &v, cache).unwrap();
        b.attention(&attention, &batch, &q, cache, &mut out).unwrap();
        out.data().to_vec()
    }

    /// The same in f64 with the whole score matrix.
    fn naive(&self, rows: usize, style: RopeStyle) -> Vec<f64> {
        let mut random = Random(99);
        let (heads, kv_heads, dim) = (self.heads, self.kv_heads, self.dim);
        let mut q = random.floats(rows * heads * dim, 1.0);
        let mut k = random.floats(rows * kv_heads * dim, 1.0);
        let v = random.floats(rows * kv_heads * dim, 1.0);
        for (x, heads) in [(&mut q, heads), (&mut k, kv_heads)] {
            for (i, head) in x.chunks_exact_mut(dim).enumerate() {
                let position = (i / heads) as f64;
                for j in 0..dim / 2 {
                    let (sin, cos) = (position * 0.5f64.powi(j as i32)).sin_cos();
                    let (a, b) = match style {
                        RopeStyle::Interleaved => (2 * j, 2 * j + 1),
                        RopeStyle::Half => (j, j + dim / 2),
                    };
                    let (x, y) = (head[a] as f64, head[b] as f64);
                    head[a] = (x * cos - y * sin) as f32;
                    head[b] = (x * sin + y * cos) as f32;
                }
            }
        }
        let mut out = vec![0.0; rows * heads * dim];
        for row in 0..rows {
            for head in 0..heads {
                let kv = head / (heads / kv_heads);
                let first = self.window.map_or(0, |w| (row + 1).saturating_sub(w));
                let scores: Vec<f64> = (first..=row)
                    .map(|t| {
                        let dot: f64 = (0..dim)
                            .map(|d| {
                                q[(row * heads + head) * dim + d] as f64
                                    * k[(t * kv_heads + kv) * dim + d] as f64
                            })
                            .sum();
                        let s = dot * 0.3;
                        self.soft_cap.map_or(s, |cap| (s / cap as f64).tanh() * cap as f64)
                    })
                    .collect();
                let max = scores.iter().cloned().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for (i, s) in scores.iter().enumerate() {
                    let p = (s - max).exp() / total;
                    for d in 0..dim {
                        out[(row * heads + head) * dim + d] +=
                            p * v[((first + i) * kv_heads + kv) * dim + d] as f64;
                    }
                }
            }
        }
        out
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

/// A long context is cut into chunks that threads share where a sequence decodes alone, but not where its prompt is fed.
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
