//! Attention with made-up keys and values.

use std::ops::Range;

use realm_compute::{
    Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, NO_PAGE, NormSpan, PAGE_TOKENS, RopeStyle,
    Want, Window,
};

use super::{Random, buffer, contents};

/// All parameters of attention, with made-up keys and values.
pub(crate) struct Case {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
    pub(crate) window: Option<usize>,
    pub(crate) soft_cap: Option<f32>,
    pub(crate) kind: CacheType,
}

impl Case {
    /// The largest error of an output: 8-bit values are off by d / sqrt(12) where they are about 50 d, and
    /// keys by 1.4 times that, because a key is stored as the difference of two random ones.
    pub(crate) fn bound(&self) -> f64 {
        match self.kind {
            CacheType::F32 => 2e-6,
            CacheType::F16 => 1e-3,
            CacheType::Q8_0 => 2e-2,
            other => panic!("no bound for {other}"),
        }
    }

    pub(crate) fn spec(&self) -> CacheSpec {
        let layout = CacheLayout::new(self.kv_heads, self.dim, &[self.window; 2]);
        CacheSpec { layout, pages: 64, kind: self.kind }
    }

    /// Feeds `rows` tokens in pieces of `piece` and returns the outputs.
    pub(crate) fn run<B: Backend>(&self, b: &B, rows: usize, piece: usize, style: RopeStyle) -> Vec<f32> {
        let mut cache = b.cache(&self.spec()).unwrap();
        // Use pages in no particular order.
        let pages: Vec<u32> = (0..rows.div_ceil(PAGE_TOKENS)).map(|i| (i as u32 * 7 + 3) % 64).collect();
        let starts = (0..rows).step_by(piece);
        starts
            .flat_map(|start| {
                let end = rows.min(start + piece);
                self.feed(b, &mut cache, &pages, rows, start..end, style)
            })
            .collect()
    }

    /// Panics if large numbers that an earlier sequence left in its pages change the result.
    pub(crate) fn check_used_pages<B: Backend>(&self, b: &B) {
        let style = RopeStyle::Half;
        let pages: Vec<u32> = (0..4).map(|i| (i * 7 + 3) % 64).collect();
        for rows in [1, 2, 5, 31, 33, 70] {
            let mut cache = b.cache(&self.spec()).unwrap();
            let all = pages.len() * PAGE_TOKENS;
            self.feed_values(b, &mut cache, &pages, all, 0..all, style, |value| value * 1e30);
            let used = self.feed(b, &mut cache, &pages, rows, 0..rows, style);
            assert_eq!(used, self.run(b, rows, rows, style), "{rows} rows");
        }
    }

    /// Feeds some of `rows` tokens and returns their outputs.
    pub(crate) fn feed<B: Backend>(
        &self,
        b: &B,
        cache: &mut B::Cache,
        pages: &[u32],
        rows: usize,
        part: Range<usize>,
        style: RopeStyle,
    ) -> Vec<f32> {
        self.feed_values(b, cache, pages, rows, part, style, |value| value)
    }

    /// Same as `feed`, with other values.
    #[allow(clippy::too_many_arguments, reason = "made-up parts of a pass")]
    fn feed_values<B: Backend>(
        &self,
        b: &B,
        cache: &mut B::Cache,
        pages: &[u32],
        rows: usize,
        part: Range<usize>,
        style: RopeStyle,
        value: impl Fn(f32) -> f32,
    ) -> Vec<f32> {
        let mut random = Random(99);
        let q = random.floats(rows * self.heads * self.dim, 1.0);
        let k = random.floats(rows * self.kv_heads * self.dim, 1.0);
        let v = random.floats(rows * self.kv_heads * self.dim, 1.0);
        let v: Vec<f32> = v.into_iter().map(value).collect();
        let frequencies = b.vector(&(0..self.dim / 2).map(|i| 0.5f32.powi(i as i32)).collect::<Vec<_>>());
        let (frequencies, magnitude) = (frequencies.unwrap(), 1.0);
        let (start, n) = (part.start, part.len());
        let mut batch = Batch::default();
        let mut table = pages.to_vec();
        table[..self.spec().layout.first_page(0, start)].fill(NO_PAGE);
        batch.push(&vec![0; n], start, &[table], Want::Nothing);
        let mut rotations = b.buffer(n, self.dim).unwrap();
        b.rotations(&frequencies, magnitude, &batch.positions, &mut rotations).unwrap();
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
            norm_span: NormSpan::Head,
            norm_after_rope: false,
            rotations: Some(&rotations),
            style,
            temperature: None,
            scale: 0.3,
            window: self.window.map(Window::Sliding),
            soft_cap: self.soft_cap,
            sinks: None,
        };
        let mut out = b.buffer(n, self.heads * self.dim).unwrap();
        b.rope_store(&attention, &batch, &mut q, &mut k, &v, cache).unwrap();
        b.attention(&attention, &batch, &q, cache, &mut out).unwrap();
        contents(b, &out)
    }

    /// Computes the same in f64 with the whole score matrix.
    pub(crate) fn naive(&self, rows: usize, style: RopeStyle) -> Vec<f64> {
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
