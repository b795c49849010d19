//! Attention over contexts of all lengths on a GPU: a row's bits depend neither on the rows beside it nor on
//! how its context was cut and by which kernel, and they are right. Without a GPU, every test says that it
//! was skipped.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::{Random, buffer, contents, gpu, relative_error};
use realm_compute::cuda::{Cache, CudaBackend};
use realm_compute::{
    Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, Error, NormSpan, PAGE_TOKENS, RopeStyle,
    Want, Window,
};

/// Rows at the end of the context whose attention is computed.
const ROWS: usize = 300;

/// A sequence with made-up keys and values.
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    kind: CacheType,
    window: Option<Window>,
    sinks: bool,
    soft_cap: Option<f32>,
    context: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new([heads, kv_heads, dim]: [usize; 3], kind: CacheType, context: usize) -> Self {
        let mut random = Random(context as u64 + 1);
        let mut numbers = |rows: usize, heads: usize| random.floats(rows * heads * dim, 1.0);
        let (q, k, v) =
            (numbers(ROWS.min(context), heads), numbers(context, kv_heads), numbers(context, kv_heads));
        Self { heads, kv_heads, dim, kind, window: None, sinks: false, soft_cap: None, context, q, k, v }
    }

    fn words(&self) -> String {
        let Self { heads, kv_heads, dim, kind, window, sinks, soft_cap, context, .. } = self;
        format!(
            "{heads} heads over {kv_heads} of {dim}, {kind}, {context} tokens, {window:?}, sinks {sinks}, {soft_cap:?}"
        )
    }

    fn layout(&self) -> CacheLayout {
        CacheLayout::new(self.kv_heads, self.dim, &[self.window.map(Window::tokens)])
    }

    fn pages(&self) -> usize {
        self.context.div_ceil(PAGE_TOKENS)
    }

    /// The pages, in no particular order.
    fn table(&self) -> Vec<u32> {
        let pages = self.pages();
        let step =
            [7, 5, 3, 1].into_iter().find(|&step| step == 1 || !pages.is_multiple_of(step)).unwrap_or(1);
        (0..pages).map(|i| (i * step % pages) as u32).collect()
    }

    /// A cache with the whole sequence.
    fn cache(&self, b: &CudaBackend) -> Cache {
        let spec = CacheSpec { layout: self.layout(), pages: self.pages(), kind: self.kind };
        let mut cache = b.cache(&spec).unwrap();
        for start in (0..self.context).step_by(4096) {
            let rows = (self.context - start).min(4096);
            let mut batch = Batch::default();
            batch.push(&vec![0; rows], start, &[self.table()], Want::Nothing);
            let part = |x: &[f32]| {
                let columns = self.kv_heads * self.dim;
                buffer(b, rows, columns, &x[start * columns..][..rows * columns])
            };
            let (mut k, v) = (part(&self.k), part(&self.v));
            let mut q = buffer(b, rows, self.heads * self.dim, &vec![0.0; rows * self.heads * self.dim]);
            b.rope_store(&self.attention(None), &batch, &mut q, &mut k, &v, &mut cache).unwrap();
        }
        cache
    }

    fn attention<'a>(&self, sinks: Option<&'a realm_compute::cuda::Vector>) -> Attention<'a, CudaBackend> {
        Attention {
            layer: 0,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.dim,
            q_norm: None,
            k_norm: None,
            norm_span: NormSpan::Head,
            norm_after_rope: false,
            rotations: None,
            style: RopeStyle::Half,
            temperature: None,
            scale: 0.2,
            window: self.window,
            soft_cap: self.soft_cap,
            sinks,
        }
    }

    fn sinks(&self) -> Vec<f32> {
        (0..self.heads).map(|head| head as f32 * 0.7 - 1.0).collect()
    }

    /// Attends rows of sequences that share the pages: the position of each one's first row, and its rows.
    /// Queries are those of the sequence's last rows, in turns. Recorded, if `owner` is given.
    fn attend(
        &self,
        b: &CudaBackend,
        cache: &Cache,
        spans: &[(usize, usize)],
        owner: Option<u64>,
    ) -> Vec<f32> {
        let (mut batch, mut q) = (Batch::default(), Vec::new());
        let width = self.heads * self.dim;
        let first = self.context - ROWS.min(self.context);
        for &(position, rows) in spans {
            let want = if owner.is_some() { Want::LastLogits } else { Want::Nothing };
            batch.push(&vec![0; rows], position, &[self.table()], want);
            for row in position..position + rows {
                let at = if row >= first { row - first } else { row % ROWS.min(self.context) };
                q.extend_from_slice(&self.q[at * width..][..width]);
            }
        }
        let q = buffer(b, batch.rows(), width, &q);
        let mut out = b.buffer(batch.rows(), width).unwrap();
        let sinks = self.sinks.then(|| b.vector(&self.sinks()).unwrap());
        let attention = self.attention(sinks.as_ref());
        match owner {
            None => b.attention(&attention, &batch, &q, cache, &mut out).unwrap(),
            Some(owner) => b
                .pass(owner, &batch, &mut || b.attention(&attention, &batch, &q, cache, &mut out))
                .map_err(|e: Error| e)
                .unwrap(),
        }
        contents(b, &out)
    }

    /// One of the last rows in f64.
    fn naive(&self, row: usize) -> Vec<f64> {
        let (group, dim) = (self.heads / self.kv_heads, self.dim);
        let position = self.context - ROWS.min(self.context) + row;
        let first = match self.window {
            None => 0,
            Some(Window::Sliding(n)) => (position + 1).saturating_sub(n),
            Some(Window::Chunked(n)) => position - position % n,
        };
        let mut out = Vec::new();
        for head in 0..self.heads {
            let q = &self.q[(row * self.heads + head) * dim..][..dim];
            let of = |x: &'_ [f32], token: usize| -> Vec<f64> {
                x[(token * self.kv_heads + head / group) * dim..][..dim].iter().map(|&x| x as f64).collect()
            };
            let scores: Vec<f64> = (first..=position)
                .map(|token| {
                    let dot: f64 =
                        of(&self.k, token).iter().zip(q).map(|(k, &q)| k * q as f64).sum::<f64>() * 0.2;
                    self.soft_cap.map_or(dot, |cap| (dot / cap as f64).tanh() * cap as f64)
                })
                .collect();
            let sink = if self.sinks { self.sinks()[head] as f64 } else { f64::NEG_INFINITY };
            let max = scores.iter().copied().fold(sink, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum::<f64>() + (sink - max).exp();
            let mut sum = vec![0.0; dim];
            for (i, score) in scores.iter().enumerate() {
                let weight = (score - max).exp() / total;
                sum.iter_mut().zip(of(&self.v, first + i)).for_each(|(sum, v)| *sum += weight * v);
            }
            out.extend(sum);
        }
        out
    }

    /// Compares the last rows in one piece with the same rows cut and accompanied in all ways, and some of
    /// them with f64.
    fn check(&self, b: &CudaBackend) {
        let what = self.words();
        let cache = self.cache(b);
        let (rows, width) = (ROWS.min(self.context), self.heads * self.dim);
        let first = self.context - rows;
        let all = self.attend(b, &cache, &[(first, rows)], None);
        let bound = match self.kind {
            CacheType::F32 => 1e-5,
            CacheType::F16 => 2e-3,
            _ => 2.5e-2,
        };
        for row in [0, rows / 2, rows - 1] {
            let error = relative_error(&all[row * width..][..width], &self.naive(row));
            assert!(error < bound, "row {row}: {error:.2e}, {what}");
        }
        let tail = |n: usize| &all[(rows - n) * width..];
        // Decoding, a few rows, and more, up to other kernels' share.
        for n in [1, 2, 3, 5, 16, 17, 40, 70, 150] {
            if n <= rows {
                let same = self.attend(b, &cache, &[(self.context - n, n)], None) == tail(n);
                assert!(same, "the last {n} rows, {what}");
            }
        }
        // Beside other sequences, of which contexts are shorter.
        let single = |n: usize| (0..n).map(|i| (i * 7919 % self.context, 1)).collect::<Vec<_>>();
        for others in [vec![(0, 1)], single(3), single(64), single(250), vec![(first, rows), (0, rows)]] {
            for n in [1, 4] {
                if n > rows {
                    continue;
                }
                let count: usize = others.iter().map(|&(_, rows)| rows).sum();
                let spans = [&others[..], &[(self.context - n, n)]].concat();
                let got = self.attend(b, &cache, &spans, None);
                assert!(got[count * width..] == *tail(n), "the last {n} rows beside {count}, {what}");
                let spans = [&[(self.context - n, n)], &others[..]].concat();
                let got = self.attend(b, &cache, &spans, None);
                assert!(got[..n * width] == *tail(n), "the last {n} rows before {count}, {what}");
            }
        }
    }
}

const LENGTHS: [usize; 21] =
    [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 700, 4095, 4096, 4097];

#[test]
fn rows_are_the_same_at_any_length_in_any_company() {
    let Some(b) = gpu() else { return };
    for context in LENGTHS {
        for kind in CacheType::ALL {
            Case::new([8, 2, 64], kind, context).check(&b);
            Case::new([6, 2, 128], kind, context).check(&b);
        }
    }
}

#[test]
fn long_contexts_are_attended_to_the_end() {
    let Some(b) = gpu() else { return };
    for (context, kind) in [
        (40_000, CacheType::F32),
        (40_000, CacheType::Q8_0),
        (131_071, CacheType::F16),
        (131_072, CacheType::F16),
        (131_073, CacheType::Q8_0),
    ] {
        Case::new([4, 1, 128], kind, context).check(&b);
    }
}

#[test]
fn heads_of_any_width_and_number_have_the_same_rows() {
    let Some(b) = gpu() else { return };
    for kind in CacheType::ALL {
        for shape in [
            [1, 1, 8],
            [5, 1, 32],
            [3, 3, 48],
            [12, 4, 80],
            [20, 1, 96],
            [64, 8, 64],
            [40, 1, 128],
            [130, 1, 128],
            [7, 1, 192],
            [16, 4, 256],
            [4, 2, 300],
            [33, 1, 576],
        ] {
            for context in [40, 333, 900] {
                Case::new(shape, kind, context).check(&b);
            }
        }
    }
}

#[test]
fn windows_sinks_and_caps_have_the_same_rows() {
    let Some(b) = gpu() else { return };
    for kind in CacheType::ALL {
        for dim in [64, 128] {
            for context in [100, 129, 1000] {
                let mut case = Case::new([8, 2, dim], kind, context);
                for window in [1, 31, 64, 127, 128, 129, 500] {
                    for window in [Window::Sliding(window), Window::Chunked(window)] {
                        case.window = Some(window);
                        case.sinks = !case.sinks;
                        case.soft_cap = if case.sinks { None } else { Some(3.0) };
                        case.check(&b);
                    }
                }
            }
        }
    }
}

/// A recording is made of the second batch of a shape, and started for others with other contexts.
#[test]
fn recorded_rows_are_the_same() {
    let Some(b) = gpu() else { return };
    for kind in CacheType::ALL {
        let mut owner = 77;
        for window in [None, Some(Window::Sliding(200))] {
            let mut case = Case::new([8, 2, 128], kind, 5000);
            case.window = window;
            let cache = case.cache(&b);
            for rows in [1, 3, 20, 100] {
                owner += 1;
                for longest in [2100, 2200, 3000, 4095, 2049, 100, 90, 5, 128] {
                    let spans: Vec<_> = (0..rows).map(|i| ((longest - 1) * (rows - i) / rows, 1)).collect();
                    let recorded = case.attend(&b, &cache, &spans, Some(owner));
                    let same = recorded == case.attend(&b, &cache, &spans, None);
                    assert!(same, "{rows} rows, the longest of {longest} tokens, {}", case.words());
                }
            }
        }
    }
}
