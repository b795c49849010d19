//! Attention with all its options, and the full score matrix in f64 to compare it with.

use realm_compute::{
    Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, NO_PAGE, Norm, NormKind, NormSpan,
    PAGE_TOKENS, RopeStyle, Temperature, Want, Window,
};

use super::{Random, buffer, contents};

/// Attention with random numbers and options.
pub(crate) struct Case {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Heads that the cache's pages have room for.
    pub(crate) page_heads: usize,
    pub(crate) dim: usize,
    pub(crate) rows: usize,
    pub(crate) kind: CacheType,
    pub(crate) window: Option<Window>,
    pub(crate) soft_cap: Option<f32>,
    pub(crate) sinks: Option<Vec<f32>>,
    pub(crate) temperature: Option<Temperature>,
    pub(crate) rotated: Option<usize>,
    pub(crate) style: RopeStyle,
    pub(crate) norm: Option<NormKind>,
    pub(crate) weights: Option<[Vec<f32>; 2]>,
    pub(crate) biases: Option<[Vec<f32>; 2]>,
    /// Those of the norms of queries and keys.
    pub(crate) eps: [f32; 2],
    pub(crate) span: NormSpan,
    pub(crate) norm_after_rope: bool,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
}

impl Case {
    /// A plain case of this shape.
    pub(crate) fn new([heads, kv_heads, dim, rows]: [usize; 4], random: &mut Random) -> Self {
        Self {
            heads,
            kv_heads,
            page_heads: kv_heads,
            dim,
            rows,
            kind: CacheType::F32,
            window: None,
            soft_cap: None,
            sinks: None,
            temperature: None,
            rotated: Some(dim / 2),
            style: RopeStyle::Half,
            norm: None,
            weights: None,
            biases: None,
            eps: [1e-5; 2],
            span: NormSpan::Head,
            norm_after_rope: false,
            q: random.floats(rows * heads * dim, 1.0),
            k: random.floats(rows * kv_heads * dim, 1.0),
            v: random.floats(rows * kv_heads * dim, 1.0),
        }
    }

    /// A case of random shape with random options.
    pub(crate) fn random(random: &mut Random) -> Self {
        let mut pick = |n: u64| ((random.next() >> 20) % n) as usize;
        let (kv_heads, dim) = (1 + pick(3), 8 * (1 + pick(6)));
        let (heads, rows) = (kv_heads * (1 + pick(3)), 1 + pick(140));
        let window =
            [None, Some(Window::Sliding(1 + pick(60))), Some(Window::Chunked(1 + pick(60)))][pick(3)];
        let options: Vec<usize> = (0..12).map(|_| pick(3)).collect();
        let on = |i: usize| options[i] == 0;
        let mut case = Self::new([heads, kv_heads, dim, rows], random);
        case.window = window;
        case.soft_cap = on(0).then_some(2.0);
        case.sinks = (!on(1)).then(|| random.floats(heads, 2.0));
        case.temperature = on(2).then_some(Temperature { offset: 1.0, period: 16.0, scale: 0.1 });
        case.rotated = [None, Some(dim / 2), Some(dim / 4)][options[3]];
        case.style = if on(4) { RopeStyle::Interleaved } else { RopeStyle::Half };
        case.norm = [None, Some(NormKind::Rms), Some(NormKind::Layer)][options[5]];
        case.span = if on(6) { NormSpan::Row } else { NormSpan::Head };
        case.norm_after_rope = on(7);
        let shared = case.span == NormSpan::Head && options[8] == 1;
        let of = |heads: usize| if shared { dim } else { heads * dim };
        case.weights = (!on(8)).then(|| [heads, kv_heads].map(|heads| random.floats(of(heads), 1.0)));
        // A norm's bias has the length of its weight.
        case.biases = on(9).then(|| [heads, kv_heads].map(|heads| random.floats(of(heads), 1.0)));
        case.eps[1] = if on(10) { 0.3 } else { case.eps[0] };
        case.page_heads += options[11];
        case
    }

    fn layout(&self) -> CacheLayout {
        CacheLayout::new(self.page_heads, self.dim, &[self.window.map(Window::tokens); 2])
    }

    /// Computes the rows in pieces of `piece`.
    pub(crate) fn run<B: Backend>(&self, b: &B, piece: usize) -> Vec<f32> {
        self.run_beside(b, &vec![piece; self.rows.div_ceil(piece)], 0)
    }

    /// Computes the rows in pieces of these sizes, the last one cut off. In every batch `others` rows of
    /// another sequence come first.
    pub(crate) fn run_beside<B: Backend>(&self, b: &B, pieces: &[usize], others: usize) -> Vec<f32> {
        let layout = self.layout();
        // Use pages in no particular order.
        let (own, other) = (self.rows.div_ceil(PAGE_TOKENS), others.div_ceil(PAGE_TOKENS));
        let count = (own + other).max(64).next_power_of_two();
        let pages: Vec<u32> = (0..own + other).map(|i| ((i * 7 + 3) % count) as u32).collect();
        let spec = CacheSpec { layout: layout.clone(), pages: count, kind: self.kind };
        let mut cache = b.cache(&spec).unwrap();
        let mut all = Vec::new();
        let vectors = |both: &Option<[Vec<f32>; 2]>| {
            both.as_ref().map(|both| both.each_ref().map(|values| b.vector(values).unwrap()))
        };
        let (weights, biases) = (vectors(&self.weights), vectors(&self.biases));
        let sinks = self.sinks.as_ref().map(|sinks| b.vector(sinks).unwrap());
        let mut start = 0;
        for &piece in pieces {
            let n = piece.min(self.rows - start);
            if n == 0 {
                break;
            }
            let mut table = pages[..own].to_vec();
            table[..layout.first_page(0, start)].fill(NO_PAGE);
            let mut batch = Batch::default();
            if others > 0 {
                batch.push(&vec![0; others], 0, &[&pages[own..]], Want::Nothing);
            }
            batch.push(&vec![0; n], start, &[table], Want::Nothing);
            let rotations = self.rotated.map(|pairs| {
                let frequencies: Vec<f32> = (0..pairs).map(|i| 0.5f32.powi(i as i32)).collect();
                let mut out = b.buffer(0, 2 * pairs).unwrap();
                b.rotations(&b.vector(&frequencies).unwrap(), 1.0, &batch.positions, &mut out).unwrap();
                out
            });
            let norm = |i: usize| {
                let [weight, bias] = [&weights, &biases].map(|both| both.as_ref().map(|both| &both[i]));
                self.norm.map(|kind| Norm { kind, weight, bias, eps: self.eps[i] })
            };
            let spec = Attention {
                layer: 1,
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.dim,
                q_norm: norm(0),
                k_norm: norm(1),
                norm_span: self.span,
                norm_after_rope: self.norm_after_rope,
                rotations: rotations.as_ref(),
                style: self.style,
                temperature: self.temperature,
                scale: 0.3,
                window: self.window,
                soft_cap: self.soft_cap,
                sinks: sinks.as_ref(),
            };
            let part = |x: &[f32], heads: usize| {
                let width = heads * self.dim;
                let mine = &x[start * width..][..n * width];
                let rows: Vec<f32> =
                    x.iter().rev().cycle().take(others * width).chain(mine).copied().collect();
                buffer(b, others + n, width, &rows)
            };
            let (mut q, mut k) = (part(&self.q, self.heads), part(&self.k, self.kv_heads));
            let mut out = b.buffer(others + n, self.heads * self.dim).unwrap();
            b.rope_store(&spec, &batch, &mut q, &mut k, &part(&self.v, self.kv_heads), &mut cache).unwrap();
            b.attention(&spec, &batch, &q, &cache, &mut out).unwrap();
            all.extend_from_slice(&contents(b, &out)[others * self.heads * self.dim..]);
            start += n;
        }
        all
    }

    /// Normalizes and rotates one row of queries (0) or keys (1).
    fn prepare(&self, x: &[f32], position: usize, which: usize) -> Vec<f64> {
        let [weights, biases] = [&self.weights, &self.biases].map(|both| both.as_ref().map(|b| &b[which]));
        let eps = f64::from(self.eps[which]);
        let mut x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let normalize = |x: &mut [f64]| {
            let Some(kind) = self.norm else { return };
            let span = if self.span == NormSpan::Row { x.len() } else { self.dim };
            for (i, x) in x.chunks_exact_mut(span).enumerate() {
                let n = x.len() as f64;
                let mean = if kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
                let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                for (j, x) in x.iter_mut().enumerate() {
                    let weight = weights.map_or(1.0, |w| f64::from(w[(i * span + j) % w.len()]));
                    let bias = biases.map_or(0.0, |b| f64::from(b[(i * span + j) % b.len()]));
                    *x = (*x - mean) / (square + eps).sqrt() * weight + bias;
                }
            }
        };
        if !self.norm_after_rope {
            normalize(&mut x);
        }
        let pairs = self.rotated.unwrap_or(0);
        for head in x.chunks_exact_mut(self.dim) {
            for i in 0..pairs {
                let (sin, cos) = (position as f64 * 0.5f64.powi(i as i32)).sin_cos();
                let (a, b) = match self.style {
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                    RopeStyle::Half => (i, i + pairs),
                };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
        if self.norm_after_rope {
            normalize(&mut x);
        }
        x
    }

    /// Computes the outputs in f64 with the whole score matrix.
    pub(crate) fn want(&self) -> Vec<f64> {
        let Self { heads, kv_heads, dim, rows, .. } = *self;
        let k: Vec<Vec<f64>> =
            (0..rows).map(|t| self.prepare(&self.k[t * kv_heads * dim..][..kv_heads * dim], t, 1)).collect();
        let mut out = Vec::new();
        for row in 0..rows {
            let mut q = self.prepare(&self.q[row * heads * dim..][..heads * dim], row, 0);
            if let Some(Temperature { offset, period, scale }) = self.temperature {
                let periods = ((row as f64 + f64::from(offset)) / f64::from(period)).floor();
                q.iter_mut().for_each(|q| *q *= (periods + 1.0).ln() * f64::from(scale) + 1.0);
            }
            let first = match self.window {
                None => 0,
                Some(Window::Sliding(n)) => (row + 1).saturating_sub(n),
                Some(Window::Chunked(n)) => row / n * n,
            };
            for head in 0..heads {
                let kv = head / (heads / kv_heads);
                let mut scores: Vec<f64> = (first..=row)
                    .map(|t| {
                        let (q, k) = (&q[head * dim..][..dim], &k[t][kv * dim..][..dim]);
                        let score: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * 0.3;
                        self.soft_cap.map_or(score, |cap| (score / f64::from(cap)).tanh() * f64::from(cap))
                    })
                    .collect();
                scores.extend(self.sinks.as_ref().map(|sinks| f64::from(sinks[head])));
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                let mut result = vec![0.0; dim];
                for (t, score) in (first..=row).zip(&scores) {
                    let weight = (score - most).exp() / sum;
                    let v = &self.v[(t * kv_heads + kv) * dim..][..dim];
                    result.iter_mut().zip(v).for_each(|(out, &v)| *out += weight * f64::from(v));
                }
                out.extend(result);
            }
        }
        out
    }

    /// The case in words, for messages.
    pub(crate) fn words(&self) -> String {
        let Self { heads, kv_heads, dim, rows, kind, window, norm, rotated, .. } = self;
        format!(
            "{rows} rows, {heads} heads over {kv_heads} of {dim}, {kind} cache, window {window:?}, norm {norm:?}, {rotated:?} pairs"
        )
    }
}
