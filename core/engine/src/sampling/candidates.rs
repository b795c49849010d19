//! The tokens that may come next.
//!
//! Most requests have few candidates, their `top_k`. Without it the whole vocabulary is a candidate, a
//! hundred thousand tokens and more. Loops over that many candidates have no branches, so that the compiler
//! vectorizes them, and nothing is sorted: the tokens of other requests wait meanwhile.

use realm_compute::cpu::row;

use super::Sampling;
use super::border::{Border, Borders};
use super::mask::{Allowed, BLOCK};
use super::rng::Rng;

/// Candidates in the order of their tokens or, if they are few, likeliest first. A candidate that a filter
/// removes stays in place with a logit of -infinity. The memory is reused from token to token.
#[derive(Default)]
pub(crate) struct Candidates {
    tokens: Vec<u32>,
    logits: Vec<f32>,
    /// Probabilities, times a constant.
    weights: Vec<f32>,
    /// The keys by which a filter orders candidates.
    keys: Vec<u32>,
    /// The number of candidates that no filter removed.
    left: usize,
    few: Vec<(u32, f32)>,
    borders: Borders,
}

/// The most candidates that are sorted. More are in the order of their tokens.
const FEW: usize = 4096;

/// The number of candidates whose weights are summed before the draw looks at each of them.
const STRIDE: usize = 64;

impl Candidates {
    /// Bytes of memory that the candidates take.
    pub(crate) fn memory(&self) -> usize {
        let tokens = self.tokens.capacity() + self.keys.capacity();
        let logits = self.logits.capacity() + self.weights.capacity();
        (tokens + logits) * size_of::<f32>()
            + self.few.capacity() * size_of::<(u32, f32)>()
            + self.borders.memory()
    }

    /// Applies the filters of `sampling` and draws a token; `None` if no token is allowed.
    pub(crate) fn choose(
        &mut self,
        logits: &[f32],
        allowed: Allowed<'_>,
        sampling: &Sampling,
        rng: &mut Rng,
    ) -> Option<u32> {
        if !self.fill_few(logits, allowed, sampling.top_k) {
            self.fill(logits, allowed);
        }
        if self.left == 0 {
            return allowed.argmax(logits);
        }
        Some(self.filter_and_draw(sampling, rng))
    }

    /// Draws like [`choose`](Self::choose) among the `top_k` likeliest tokens. There is at least one, and the
    /// likeliest comes first.
    pub(crate) fn choose_among(
        &mut self,
        likeliest: &[(u32, f32)],
        sampling: &Sampling,
        rng: &mut Rng,
    ) -> u32 {
        self.few.clear();
        self.few.extend_from_slice(likeliest);
        self.take_few();
        self.filter_and_draw(sampling, rng)
    }

    fn filter_and_draw(&mut self, sampling: &Sampling, rng: &mut Rng) -> u32 {
        self.filter(sampling);
        self.draw(sampling.temperature, rng)
    }

    fn filter(&mut self, sampling: &Sampling) {
        if sampling.top_k > 0 && sampling.top_k < self.left {
            self.top_k(sampling.top_k);
        }
        if sampling.typical_p < 1.0 {
            self.typical(f64::from(sampling.typical_p));
        }
        if sampling.top_p < 1.0 {
            self.top_p(f64::from(sampling.top_p));
        }
        if sampling.min_p > 0.0 {
            self.min_p(sampling.min_p);
        }
    }

    /// Takes the `top_k` largest of the allowed logits, or all of them. Returns `false` if those are more
    /// than [`FEW`].
    fn fill_few(&mut self, logits: &[f32], allowed: Allowed<'_>, top_k: usize) -> bool {
        self.few.clear();
        let narrow = (1..=FEW).contains(&top_k);
        let limit = if narrow { (4 * top_k).max(256) } else { FEW + 1 };
        // Logits below the k-th largest so far are skipped, so the second pass sees few survivors.
        let mut floor = f32::NEG_INFINITY;
        for (index, block) in logits.chunks(BLOCK).enumerate() {
            // Most blocks hold no larger logit. The compiler checks several logits at once.
            if !block.iter().fold(false, |any, &logit| any | (logit > floor)) {
                continue;
            }
            allowed.for_each_of_block(index, block, |token, logit| {
                if logit > floor {
                    self.few.push((token, logit));
                    if narrow && self.few.len() >= limit {
                        self.keep_largest(top_k);
                        floor = self.few.iter().map(|few| few.1).fold(f32::INFINITY, f32::min);
                    }
                }
            });
            if self.few.len() >= limit {
                return false;
            }
        }
        if narrow {
            self.keep_largest(top_k);
        }
        self.few.sort_unstable_by_key(likeliest_first);
        self.take_few();
        true
    }

    fn keep_largest(&mut self, k: usize) {
        if self.few.len() > k {
            self.few.select_nth_unstable_by_key(k, likeliest_first);
            self.few.truncate(k);
        }
    }

    fn take_few(&mut self) {
        self.tokens.clear();
        self.tokens.extend(self.few.iter().map(|few| few.0));
        self.logits.clear();
        self.logits.extend(self.few.iter().map(|few| few.1));
        self.left = self.few.len();
        self.weigh();
    }

    /// Takes all allowed logits.
    fn fill(&mut self, logits: &[f32], allowed: Allowed<'_>) {
        self.tokens.clear();
        self.tokens.extend(0..logits.len() as u32);
        self.logits.clear();
        for (index, block) in logits.chunks(BLOCK).enumerate() {
            let word = allowed.word(index);
            let possible =
                block.iter().map(|&logit| if logit > f32::NEG_INFINITY { logit } else { f32::NEG_INFINITY });
            if word == !0 {
                self.logits.extend(possible);
            } else {
                let bits = (0..).map(|bit| word >> bit & 1 == 1);
                let masked = possible
                    .zip(bits)
                    .map(|(logit, allowed)| if allowed { logit } else { f32::NEG_INFINITY });
                self.logits.extend(masked);
            }
        }
        self.left = self.logits.iter().map(|&logit| usize::from(logit > f32::NEG_INFINITY)).sum();
        self.weigh();
    }

    /// Sets weights to probabilities relative to the likeliest token, whose weight is 1.
    fn weigh(&mut self) {
        row::weigh(&self.logits, 1.0, &mut self.weights);
    }

    /// Keeps the first candidates, in the order of their keys, that reach the weight `enough` together. Of
    /// equal ones the lower tokens come first, so that the order never depends on the machine.
    fn keep(&mut self, enough: f64) {
        let last = self.borders.find(&self.keys, &self.weights, &self.tokens, enough);
        row::keep((last.key, last.token), &self.keys, &self.tokens, &mut self.logits);
        self.cut();
    }

    /// Clears the weights of removed candidates, and sorts the remaining ones if they are few.
    fn cut(&mut self) {
        self.left = row::clear(&self.logits, &mut self.weights);
        if self.left <= FEW && self.tokens.len() > FEW {
            self.few.clear();
            let all = self.tokens.iter().copied().zip(self.logits.iter().copied());
            self.few.extend(all.filter(|few| few.1 > f32::NEG_INFINITY));
            self.few.sort_unstable_by_key(likeliest_first);
            self.take_few();
        }
    }

    /// Keeps the `k` likeliest.
    fn top_k(&mut self, k: usize) {
        row::largest_first(&self.logits, &mut self.keys);
        self.weights.clear();
        self.weights.extend(self.logits.iter().map(|&logit| f32::from(logit > f32::NEG_INFINITY)));
        self.keep(k as f64);
        self.weigh();
    }

    /// Keeps the likeliest while those before them weigh less than a fraction `p` of all together.
    fn top_p(&mut self, p: f64) {
        row::largest_first(&self.logits, &mut self.keys);
        self.keep(p * row::sum(&self.weights));
    }

    /// Keeps those that weigh at least `p` times as much as the heaviest.
    fn min_p(&mut self, p: f32) {
        // The likeliest has weight 1, unless typical-p removed it.
        row::keep_heavy(p * row::largest(&self.weights), &self.weights, &mut self.logits);
        self.cut();
    }

    /// Keeps those whose information is nearest to the expected information, up to a fraction `p` of all
    /// weight.
    fn typical(&mut self, p: f64) {
        // Information is a constant minus the logit, so the expected information is that of the mean logit.
        let mean = row::mean(&self.weights, &self.logits);
        row::nearest_first(&self.logits, mean, &mut self.keys);
        self.keep(p * row::sum(&self.weights));
    }

    fn draw(&mut self, temperature: f32, rng: &mut Rng) -> u32 {
        row::weigh(&self.logits, temperature, &mut self.weights);
        let mut point = rng.uniform() * row::sum(&self.weights);
        for (tokens, weights) in self.tokens.chunks(STRIDE).zip(self.weights.chunks(STRIDE)) {
            let together = row::sum(weights);
            if point >= together {
                point -= together;
                continue;
            }
            for (&token, &weight) in tokens.iter().zip(weights) {
                point -= f64::from(weight);
                if point < 0.0 {
                    return token;
                }
            }
        }
        // After rounding errors: the last one that has any weight.
        let last = self.weights.iter().rposition(|&weight| weight > 0.0);
        let last = last.or_else(|| self.logits.iter().position(|&logit| logit > f32::NEG_INFINITY));
        last.map_or(0, |last| self.tokens[last])
    }
}

fn likeliest_first(&(token, logit): &(u32, f32)) -> Border {
    Border { key: row::key_of_largest_first(logit), token }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::super::TokenMask;
    use super::super::rng::Rng;
    use super::*;

    type Filter = fn(&mut Sampling, f32);
    type Order = fn(f64, &(u32, f32), &(u32, f32)) -> Ordering;

    fn likeliest(_: f64, a: &(u32, f32), b: &(u32, f32)) -> Ordering {
        b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
    }

    fn typical(mean: f64, a: &(u32, f32), b: &(u32, f32)) -> Ordering {
        let oddness = |logit: f32| (mean - f64::from(logit)).abs() as f32;
        oddness(a.1).total_cmp(&oddness(b.1)).then(a.0.cmp(&b.0))
    }

    /// Filters that keep a fraction of all weight, and the order in which they keep candidates.
    const FILTERS: [(Filter, Order); 2] =
        [(|sampling, p| sampling.top_p = p, likeliest), (|sampling, p| sampling.typical_p = p, typical)];

    /// Logits of a vocabulary: spread out, in whole numbers, equal, or one far above the others.
    fn vocabulary(len: usize, kind: usize, rng: &mut Rng) -> Vec<f32> {
        let mut logits: Vec<f32> = (0..len).map(|_| rng.uniform() as f32 * 12.0 - 6.0).collect();
        match kind {
            0 => {}
            1 => logits.iter_mut().for_each(|logit| *logit = logit.round()),
            2 => logits.fill(1e30),
            _ => logits[len / 2] = 20.0,
        }
        logits
    }

    /// The remaining candidates, in their order.
    fn left(candidates: &Candidates) -> Vec<u32> {
        let all = candidates.tokens.iter().zip(&candidates.logits);
        all.filter(|left| *left.1 > f32::NEG_INFINITY).map(|left| *left.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

        #[test]
        fn filters_keep_what_sorting_all_would_have_kept(
            len in prop_oneof![1usize..300, 4000usize..9000], kind in 0usize..4, masked: bool, p in 0f32..1.0,
            top_k in prop_oneof![1usize..300, 3000usize..9000], seed: u64,
        ) {
            let mut rng = Rng::new(seed);
            let logits = vocabulary(len, kind, &mut rng);
            let mut mask = TokenMask::none(len);
            (0..len as u32).filter(|_| !masked || rng.uniform() < 0.9).for_each(|token| mask.allow(token));
            let allowed = Allowed { mask: Some(&mask), banned: None };
            let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).filter(|all| mask.allows(all.0)).collect();
            prop_assume!(!all.is_empty());
            let off = Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, typical_p: 1.0, temperature: 1.0, ..Sampling::default() };
            let filtered = |sampling: &Sampling| {
                let mut candidates = Candidates::default();
                candidates.choose(&logits, allowed, sampling, &mut Rng::new(1));
                left(&candidates)
            };
            let weight = |logit: f32, largest: f32| f64::from(logit - largest).exp();
            let largest = all.iter().map(|all| all.1).fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = all.iter().map(|all| weight(all.1, largest)).sum();
            let mean = all.iter().map(|all| weight(all.1, largest) * f64::from(all.1)).sum::<f64>() / total;
            for (set, order) in FILTERS {
                let mut sampling = off.clone();
                set(&mut sampling, p);
                all.sort_by(|a, b| order(mean, a, b));
                let kept = filtered(&sampling);
                let (first, rest) = all.split_at(kept.len());
                // Where logits differ by rounding only, either may come first.
                let last = first.last().map_or(0.0, |last| (mean - f64::from(last.1)).abs());
                let alike = |token: &u32| (last - (mean - f64::from(logits[*token as usize])).abs()).abs() < 1e-5;
                prop_assert!(first.iter().all(|first| kept.contains(&first.0) || alike(&first.0)), "{:?} {kept:?}", &rest[..rest.len().min(3)]);
                let sum = |some: &[(u32, f32)]| some.iter().map(|some| weight(some.1, largest)).sum::<f64>() / total;
                let (with, without) = (sum(first), sum(&first[..first.len() - 1]));
                prop_assert!(with >= f64::from(p) - 1e-5 && (without <= f64::from(p) + 1e-5 || first.len() == 1), "{without} {with} {p}");
            }
            all.sort_by(|a, b| likeliest(0.0, a, b));
            let mut wanted: Vec<u32> = all[..top_k.min(all.len())].iter().map(|all| all.0).collect();
            let kept = filtered(&Sampling { top_k, ..off.clone() });
            if wanted.len() > FEW {
                wanted.sort_unstable();
            }
            prop_assert_eq!(kept, wanted);
            let min_p = filtered(&Sampling { min_p: p, ..off });
            let wanted = |logit: f32, p: f64| weight(logit, largest) >= p;
            let heavy = |p: f64| all.iter().filter(|all| wanted(all.1, p)).count();
            prop_assert!((heavy(f64::from(p) * 1.00001)..=heavy(f64::from(p) * 0.99999)).contains(&min_p.len()));
        }
    }
}
