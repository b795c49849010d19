//! Compares attention with all its options with the full score matrix in f64.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::{Random, backends, buffer, contents, relative_error};
use realm_compute::{
    Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, NO_PAGE, Norm, NormKind, NormSpan,
    PAGE_TOKENS, RopeStyle, Temperature, Want, Window,
};

/// Attention with random numbers and options.
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    rows: usize,
    kind: CacheType,
    window: Option<Window>,
    soft_cap: Option<f32>,
    sinks: Option<Vec<f32>>,
    temperature: Option<Temperature>,
    rotated: Option<usize>,
    style: RopeStyle,
    norm: Option<NormKind>,
    weights: Option<[Vec<f32>; 2]>,
    span: NormSpan,
    norm_after_rope: bool,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    /// A plain case of this shape.
    fn new([heads, kv_heads, dim, rows]: [usize; 4], random: &mut Random) -> Self {
        Self {
            heads,
            kv_heads,
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
            span: NormSpan::Head,
            norm_after_rope: false,
            q: random.floats(rows * heads * dim, 1.0),
            k: random.floats(rows * kv_heads * dim, 1.0),
            v: random.floats(rows * kv_heads * dim, 1.0),
        }
    }

    /// A case of random shape with random options.
    fn random(random: &mut Random) -> Self {
        let mut pick = |n: u64| ((random.next() >> 20) % n) as usize;
        let (kv_heads, dim) = (1 + pick(3), 8 * (1 + pick(6)));
        let (heads, rows) = (kv_heads * (1 + pick(3)), 1 + pick(140));
        let window =
            [None, Some(Window::Sliding(1 + pick(60))), Some(Window::Chunked(1 + pick(60)))][pick(3)];
        let options: Vec<usize> = (0..9).map(|_| pick(3)).collect();
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
        case.weights = (!on(8)).then(|| {
            let shared = case.span == NormSpan::Head && options[8] == 1;
            [heads, kv_heads].map(|heads| random.floats(if shared { dim } else { heads * dim }, 1.0))
        });
        case
    }

    fn layout(&self) -> CacheLayout {
        CacheLayout::new(self.kv_heads, self.dim, &[self.window.map(Window::tokens)])
    }

    /// Computes the rows in pieces of `piece`.
    fn run<B: Backend>(&self, b: &B, piece: usize) -> Vec<f32> {
        let layout = self.layout();
        let pages: Vec<u32> = (0..self.rows.div_ceil(PAGE_TOKENS)).map(|i| (i as u32 * 7 + 3) % 64).collect();
        let mut cache = b.cache(&CacheSpec { layout: layout.clone(), pages: 64, kind: self.kind }).unwrap();
        let mut all = Vec::new();
        let weights = self.weights.as_ref().map(|both| both.each_ref().map(|w| b.vector(w).unwrap()));
        let sinks = self.sinks.as_ref().map(|sinks| b.vector(sinks).unwrap());
        for start in (0..self.rows).step_by(piece) {
            let n = piece.min(self.rows - start);
            let mut table = pages.clone();
            table[..layout.first_page(0, start)].fill(NO_PAGE);
            let mut batch = Batch::default();
            batch.push(&vec![0; n], start, &[table], Want::Nothing);
            let rotations = self.rotated.map(|pairs| {
                let frequencies: Vec<f32> = (0..pairs).map(|i| 0.5f32.powi(i as i32)).collect();
                let mut out = b.buffer(0, 2 * pairs).unwrap();
                b.rotations(&b.vector(&frequencies).unwrap(), 1.0, &batch.positions, &mut out).unwrap();
                out
            });
            let norm = |i: usize| {
                let weight = weights.as_ref().map(|both| &both[i]);
                self.norm.map(|kind| Norm { kind, weight, bias: None, eps: 1e-5 })
            };
            let spec = Attention {
                layer: 0,
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
                buffer(b, n, width, &x[start * width..][..n * width])
            };
            let (mut q, mut k) = (part(&self.q, self.heads), part(&self.k, self.kv_heads));
            let mut out = b.buffer(n, self.heads * self.dim).unwrap();
            b.rope_store(&spec, &batch, &mut q, &mut k, &part(&self.v, self.kv_heads), &mut cache).unwrap();
            b.attention(&spec, &batch, &q, &cache, &mut out).unwrap();
            all.extend(contents(b, &out));
        }
        all
    }

    /// Normalizes and rotates one row of queries or keys.
    fn prepare(&self, x: &[f32], position: usize, weights: Option<&Vec<f32>>) -> Vec<f64> {
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
                    *x = (*x - mean) / (square + 1e-5).sqrt() * weight;
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

    fn want(&self) -> Vec<f64> {
        let Self { heads, kv_heads, dim, rows, .. } = *self;
        let weights = |i: usize| self.weights.as_ref().map(|both| &both[i]);
        let k: Vec<Vec<f64>> = (0..rows)
            .map(|t| self.prepare(&self.k[t * kv_heads * dim..][..kv_heads * dim], t, weights(1)))
            .collect();
        let mut out = Vec::new();
        for row in 0..rows {
            let mut q = self.prepare(&self.q[row * heads * dim..][..heads * dim], row, weights(0));
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

    /// Compares all instruction sets with the formula, and rows in pieces with rows together.
    fn check(&self, bound: f64, pieces: &[usize]) {
        let want = self.want();
        let mut first: Option<Vec<f32>> = None;
        for b in backends() {
            let what = format!(
                "{} heads over {} of {}, {:?}, {:?} on {}",
                self.heads,
                self.kv_heads,
                self.dim,
                self.window,
                self.norm,
                b.description()
            );
            let whole = self.run(&b, self.rows);
            let error = relative_error(&whole, &want);
            assert!(error < bound, "{error:.2e}, {what}");
            for &piece in pieces {
                assert!(self.run(&b, piece) == whole, "pieces of {piece}, {what}");
            }
            assert!(first.get_or_insert_with(|| whole.clone()) == &whole, "{what}");
        }
    }
}

#[test]
fn every_combination_of_options_equals_the_full_score_matrix() {
    let mut random = Random(31);
    for round in 0..40 {
        Case::random(&mut random).check(3e-6, &[1 + round % 40]);
    }
}

#[test]
fn latent_heads_of_576_are_attended_in_any_cache() {
    let mut random = Random(32);
    for (kind, bound) in [(CacheType::F32, 3e-6), (CacheType::F16, 1e-3), (CacheType::Q8_0, 2e-2)] {
        // More query heads than one task takes.
        let case = Case { kind, rotated: Some(32), ..Case::new([64, 1, 576, 35], &mut random) };
        case.check(bound, &[7]);
    }
}

/// When a sequence decodes alone, threads share the chunks of its long context.
#[test]
fn sinks_have_one_share_in_a_long_context() {
    let mut random = Random(33);
    let case = Case::new([6, 2, 32, 600], &mut random);
    let case = Case { sinks: Some(random.floats(6, 3.0)), ..case };
    case.check(3e-6, &[599]);
    // A sink above all scores.
    Case { sinks: Some(vec![40.0; 6]), ..case }.check(3e-6, &[599]);
}

#[test]
fn a_chunk_gives_its_pages_back_like_a_window() {
    let mut random = Random(34);
    for tokens in [32, 40, 64] {
        let case = Case::new([4, 2, 16, 150], &mut random);
        Case { window: Some(Window::Chunked(tokens)), ..case }.check(3e-6, &[1, 33, 64]);
    }
}
