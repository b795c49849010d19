//! The tokens that may come next.

use std::cmp::Ordering;

use super::Sampling;
use super::mask::{Allowed, BLOCK};
use super::rng::Rng;

#[derive(Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    /// How far its information is from the expected one, where that was asked for.
    oddness: f32,
    /// Its probability among the candidates, times a constant.
    weight: f64,
}

/// Candidates, likeliest first as far as they are sorted. The memory is kept from token to token.
#[derive(Default)]
pub(crate) struct Candidates {
    all: Vec<Candidate>,
    sorted: usize,
}

/// How many candidates are sorted at first: nearly always enough, and sorting 250,000 would take longer than
/// a layer of the model. Where it is not, the rest is divided instead, which takes time in proportion to its number.
const SORT_FIRST: usize = 256;

impl Candidates {
    /// Bytes of memory that they take.
    pub(crate) fn memory(&self) -> usize {
        self.all.capacity() * size_of::<Candidate>()
    }

    /// Applies the filters of `sampling` and draws one; `None` if no token is allowed.
    pub(crate) fn choose(
        &mut self,
        logits: &[f32],
        allowed: Allowed<'_>,
        sampling: &Sampling,
        rng: &mut Rng,
    ) -> Option<u32> {
        self.fill(logits, allowed, sampling.top_k);
        if self.all.is_empty() {
            return allowed.argmax(logits);
        }
        Some(self.filter_and_draw(sampling, rng))
    }

    /// [`choose`](Self::choose) among the `top_k` likeliest tokens, of which there is at least one, likeliest first.
    pub(crate) fn choose_among(
        &mut self,
        likeliest: &[(u32, f32)],
        sampling: &Sampling,
        rng: &mut Rng,
    ) -> u32 {
        self.all.clear();
        self.all.extend(likeliest.iter().map(|&(token, logit)| Candidate {
            token,
            logit,
            oddness: 0.0,
            weight: 0.0,
        }));
        self.sorted = self.all.len();
        self.weigh();
        self.filter_and_draw(sampling, rng)
    }

    fn filter_and_draw(&mut self, sampling: &Sampling, rng: &mut Rng) -> u32 {
        if sampling.typical_p < 1.0 {
            self.typical(f64::from(sampling.typical_p));
        }
        if sampling.top_p < 1.0 {
            self.top_p(f64::from(sampling.top_p));
        }
        if sampling.min_p > 0.0 {
            self.min_p(f64::from(sampling.min_p));
        }
        self.draw(f64::from(sampling.temperature), rng)
    }

    /// Takes the `top_k` largest of the allowed logits, or all of them.
    fn fill(&mut self, logits: &[f32], allowed: Allowed<'_>, top_k: usize) {
        self.all.clear();
        self.sorted = 0;
        // Below the k-th largest so far nothing is worth a look: a second pass over few survivors.
        let mut floor = f32::NEG_INFINITY;
        let limit = if top_k == 0 { usize::MAX } else { top_k.saturating_mul(4).max(256) };
        for (index, block) in logits.chunks(BLOCK).enumerate() {
            // Most blocks hold nothing of interest, and the compiler asks that of several logits at once.
            if !block.iter().fold(false, |any, &logit| any | (logit > floor)) {
                continue;
            }
            allowed.for_each_of_block(index, block, |token, logit| {
                if logit > floor {
                    self.all.push(Candidate { token, logit, oddness: 0.0, weight: 0.0 });
                    if self.all.len() >= limit {
                        self.keep_largest(top_k);
                        floor = self.all.iter().map(|c| c.logit).fold(f32::INFINITY, f32::min);
                    }
                }
            });
        }
        if top_k > 0 {
            self.keep_largest(top_k);
            // Filters need no more of them in order.
            self.sort(top_k.min(16 * SORT_FIRST));
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        let largest = self.all.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        for candidate in &mut self.all {
            candidate.weight = f64::from((candidate.logit - largest).exp());
        }
    }

    fn keep_largest(&mut self, k: usize) {
        if self.all.len() > k {
            self.all.select_nth_unstable_by(k, by_logit);
            self.all.truncate(k);
        }
    }

    /// Sorts at least the first `n`.
    fn sort(&mut self, n: usize) {
        let n = n.min(self.all.len());
        if self.sorted >= n {
            return;
        }
        if n < self.all.len() {
            self.all.select_nth_unstable_by(n, by_logit);
        }
        self.all[..n].sort_unstable_by(by_logit);
        self.sorted = n;
    }

    fn total(&self) -> f64 {
        self.all.iter().map(|c| c.weight).sum()
    }

    /// Keeps the likeliest while those before them weigh less than `enough` together.
    fn top_p(&mut self, p: f64) {
        let enough = p * self.total();
        let (mut kept, mut weight) = (0, 0.0);
        self.sort(SORT_FIRST);
        while kept < self.sorted && (kept == 0 || weight < enough) {
            weight += self.all[kept].weight;
            kept += 1;
        }
        if kept == self.sorted && weight < enough {
            kept += keep_weight(&mut self.all[kept..], enough - weight, by_logit);
        }
        self.cut(kept);
    }

    /// Keeps those that weigh at least `p` times as much as the heaviest.
    fn min_p(&mut self, p: f64) {
        // The likeliest has weight 1, unless typical-p took it away.
        let largest = self.all.iter().map(|c| c.weight).fold(0.0, f64::max);
        let sorted = self.all[..self.sorted].partition_point(|c| c.weight >= p * largest);
        self.all.retain(|c| c.weight >= p * largest);
        self.sorted = sorted;
        self.cut(self.all.len());
    }

    /// Keeps the first `kept`. Few are sorted, so that a seed's text does not depend on how they were divided.
    fn cut(&mut self, kept: usize) {
        self.all.truncate(kept);
        self.sorted = self.sorted.min(kept);
        if kept <= 16 * SORT_FIRST {
            self.sort(kept);
        }
    }

    fn typical(&mut self, p: f64) {
        let total = self.total();
        let largest = self.all.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        // The logarithm of the probability, with one logarithm for all.
        let base = total.ln() + f64::from(largest);
        let surprise = |c: &Candidate| base - f64::from(c.logit);
        let entropy: f64 = self.all.iter().map(|c| c.weight / total * surprise(c)).sum();
        for candidate in &mut self.all {
            candidate.oddness = (surprise(candidate) - entropy).abs() as f32;
        }
        let kept = keep_weight(&mut self.all, p * total, by_oddness);
        self.sorted = 0;
        self.cut(kept);
    }

    fn draw(&mut self, temperature: f64, rng: &mut Rng) -> u32 {
        let largest = self.all.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        for candidate in &mut self.all {
            candidate.weight = (f64::from(candidate.logit - largest) / temperature).exp();
            total += candidate.weight;
        }
        let mut point = rng.uniform() * total;
        for candidate in &self.all {
            point -= candidate.weight;
            if point < 0.0 {
                return candidate.token;
            }
        }
        // Rounding: the last one that has any weight.
        let last = self.all.iter().rev().find(|c| c.weight > 0.0).or(self.all.first());
        last.map_or(0, |c| c.token)
    }
}

/// The most typical first.
fn by_oddness(a: &Candidate, b: &Candidate) -> Ordering {
    a.oddness.total_cmp(&b.oddness).then(a.token.cmp(&b.token))
}

/// Moves the first of `all` in an order to its beginning, as many as weigh `enough` together; returns how many those are, one at
/// least if there is any. Takes time in proportion to their number: the half that the border is in is divided again.
fn keep_weight(
    mut all: &mut [Candidate],
    mut enough: f64,
    order: impl Fn(&Candidate, &Candidate) -> Ordering + Copy,
) -> usize {
    let mut before = 0;
    while all.len() > 1 {
        let middle = all.len() / 2;
        all.select_nth_unstable_by(middle, order);
        let weight: f64 = all[..middle].iter().map(|c| c.weight).sum();
        if weight >= enough {
            all = &mut all[..middle];
        } else {
            before += middle;
            enough -= weight;
            all = &mut all[middle..];
        }
    }
    before + all.len()
}

/// Largest first, and the lower id first among equals, so that the order never depends on the machine.
fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}
