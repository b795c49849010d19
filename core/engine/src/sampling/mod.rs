//! From logits to a token.
//!
//! The order is llama.cpp's, which most users have tuned for: logit bias and penalties, then top-k,
//! typical-p, top-p, min-p, and temperature last. Every filter keeps at least one candidate. Tokens that are
//! banned, or that a grammar does not allow, are not candidates to begin with.

mod border;
mod candidates;
mod from_top_k;
mod logprobs;
mod mask;
mod options;
mod penalties;
mod rng;
mod top;

pub(crate) use from_top_k::first_of_largest;
pub use logprobs::{Scored, TokenLogprob, log_sum_exp};
pub(crate) use logprobs::{logprobs, score_row};
pub use mask::TokenMask;
pub use options::Sampling;
pub use top::top;

use crate::Error;
use candidates::Candidates;
use mask::Allowed;
use penalties::History;
use rng::Rng;

/// Chooses the tokens of one generation.
pub struct Sampler {
    sampling: Sampling,
    history: History,
    rng: Rng,
    banned: Option<TokenMask>,
    /// Biases in the order of their tokens. Walking a sorted list takes a tenth of the time of walking a hash
    /// table.
    biases: Vec<(u32, f32)>,
    /// True if any bias makes its token likelier.
    lifts: bool,
    /// Logits after bias and penalties, if there are any.
    adjusted: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// Creates a sampler for a generation that follows `prompt`.
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seed = sampling.seed.unwrap_or_else(rng::entropy);
        let mut biases: Vec<(u32, f32)> =
            sampling.logit_bias.iter().map(|(&token, &bias)| (token, bias)).collect();
        biases.sort_unstable_by_key(|&(token, _)| token);
        Self {
            history: History::new(&sampling, prompt),
            rng: Rng::new(seed),
            banned: sampling.banned(),
            lifts: biases.iter().any(|&(_, bias)| bias > 0.0),
            biases,
            adjusted: Vec::new(),
            candidates: Candidates::default(),
            sampling,
        }
    }

    /// Chooses the next token from `logits`, `[vocab]`. Returns a banned token only if all are banned.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        self.sample_masked(logits, None).unwrap_or_else(|| argmax(logits))
    }

    /// Returns whether biases or penalties change logits.
    fn adjusts(&self) -> bool {
        !self.biases.is_empty() || self.history.applies()
    }

    /// The approximate number of times that choosing a token scans the vocabulary. Computation on a logit
    /// counts as well.
    pub(crate) fn looks(&self) -> usize {
        let wide = self.sampling.temperature > 0.0 && self.sampling.top_k == 0;
        1 + usize::from(self.adjusts())
            + 4 * usize::from(wide)
            + 8 * usize::from(wide && self.sampling.typical_p < 1.0)
    }

    /// Chooses the next token among those in `mask`; without a mask, among all. Returns `None` and changes
    /// nothing if all of them are banned.
    pub fn sample_masked(&mut self, logits: &[f32], mask: Option<&TokenMask>) -> Option<u32> {
        let logits = if self.adjusts() {
            self.adjusted.clear();
            self.adjusted.extend_from_slice(logits);
            for &(token, bias) in &self.biases {
                if let Some(logit) = self.adjusted.get_mut(token as usize) {
                    *logit += bias;
                }
            }
            self.history.penalize(&mut self.adjusted);
            &self.adjusted
        } else {
            logits
        };
        let allowed = Allowed { mask, banned: self.banned.as_ref() };
        let token = if self.sampling.temperature > 0.0 {
            self.candidates.choose(logits, allowed, &self.sampling, &mut self.rng)?
        } else if allowed.everything() {
            argmax(logits)
        } else {
            allowed.argmax(logits)?
        };
        self.history.push(token);
        Some(token)
    }

    /// Counts a token that was chosen in another way, for penalties.
    pub fn observe(&mut self, token: u32) {
        self.history.push(token);
    }
}

impl Sampler {
    /// Bytes of memory that the sampler takes, without the [`Sampling`] that it was made of.
    pub fn memory(&self) -> usize {
        let banned = self.banned.as_ref().map_or(0, |banned| banned.len() / 8);
        self.history.memory()
            + banned
            + self.biases.capacity() * size_of::<(u32, f32)>()
            + self.adjusted.capacity() * size_of::<f32>()
            + self.candidates.memory()
    }

    /// Frees buffers that the next choice would reuse.
    pub fn shed(&mut self) {
        (self.adjusted, self.candidates) = (Vec::new(), Candidates::default());
    }
}

/// Bytes of a hash table that holds `capacity` entries of `entry` bytes without growing: it has an eighth
/// more places, a power of two, each with one byte of its own.
pub(crate) fn table_memory(capacity: usize, entry: usize) -> usize {
    if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() * (entry + 1) }
}

/// Refuses logits that give no probabilities: NaN and infinity. A token may be impossible, -infinity.
///
/// # Errors
/// `NotFinite`, which names the `place`.
pub(crate) fn finite(logits: &[f32], place: impl FnOnce() -> String) -> Result<(), Error> {
    if logits.iter().fold(true, |finite, &logit| finite & (logit < f32::INFINITY)) {
        return Ok(());
    }
    Err(not_finite(&format!("the logits of {}", place())))
}

/// Returns the error for computed values that are NaN or infinite.
pub(crate) fn not_finite(what: &str) -> Error {
    Error::NotFinite(format!(
        "{what} are NaN or infinite: the model's weights or the adapter are broken, or the adapter's scale is too large"
    ))
}

/// Returns the lowest id with the largest logit. NaN is never the largest.
pub fn argmax(logits: &[f32]) -> u32 {
    // In blocks, so that the compiler can find the block's largest without branches.
    const BLOCK: usize = 256;
    let (mut best, mut best_block) = (f32::NEG_INFINITY, 0);
    for (i, block) in logits.chunks(BLOCK).enumerate() {
        let mut lanes = [f32::NEG_INFINITY; 16];
        for chunk in block.chunks(16) {
            for (lane, &logit) in lanes.iter_mut().zip(chunk) {
                *lane = if logit > *lane { logit } else { *lane };
            }
        }
        let largest = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
        if largest > best {
            (best, best_block) = (largest, i);
        }
    }
    let start = best_block * BLOCK;
    let within = logits[start.min(logits.len())..].iter().position(|&l| l == best).unwrap_or(0);
    (start + within) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn sampling() -> Sampling {
        Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, seed: Some(7), ..Sampling::default() }
    }

    fn kinds(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling, &[]);
        let mut seen: Vec<u32> = (0..2000).map(|_| sampler.sample(logits)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn filters_keep_what_they_promise() {
        // Probabilities 0.4, 0.3, 0.2, 0.1.
        let logits = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
        assert_eq!(kinds(sampling(), &logits), [0, 1, 2, 3]);
        assert_eq!(kinds(Sampling { top_k: 2, ..sampling() }, &logits), [0, 1]);
        assert_eq!(kinds(Sampling { top_p: 0.65, ..sampling() }, &logits), [0, 1]);
        assert_eq!(kinds(Sampling { top_p: 0.0, ..sampling() }, &logits), [0]);
        assert_eq!(kinds(Sampling { min_p: 0.45, ..sampling() }, &logits), [0, 1, 2]);
        // The entropy is 1.28 nats; the surprises are 0.92, 1.20, 1.61 and 2.30.
        assert_eq!(kinds(Sampling { typical_p: 0.45, ..sampling() }, &logits), [1, 2]);
        assert_eq!(kinds(Sampling { temperature: 0.0, ..sampling() }, &logits), [0]);
        let banned = HashMap::from([(0, f32::NEG_INFINITY)]);
        assert_eq!(kinds(Sampling { logit_bias: banned, ..Sampling::greedy() }, &logits), [1]);
    }

    #[test]
    fn frequencies_are_the_probabilities() {
        let logits = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
        for (temperature, wanted) in [(1.0, [0.4, 0.3, 0.2, 0.1]), (0.5, [0.5333, 0.3, 0.1333, 0.0333])] {
            let mut sampler = Sampler::new(Sampling { temperature, ..sampling() }, &[]);
            let mut counts = [0; 4];
            for _ in 0..40_000 {
                counts[sampler.sample(&logits) as usize] += 1;
            }
            for (count, wanted) in counts.into_iter().zip(wanted) {
                let share = f64::from(count) / 40_000.0;
                assert!((share - wanted).abs() < 0.012, "{share} instead of {wanted}");
            }
        }
    }

    #[test]
    fn penalties_push_tokens_down() {
        let logits = [1.0, 0.9, -1.0];
        let penalty = |sampling: Sampling, prompt: &[u32]| {
            let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..sampling }, prompt);
            [sampler.sample(&logits), sampler.sample(&logits), sampler.sample(&logits)]
        };
        assert_eq!(penalty(Sampling::default(), &[]), [0, 0, 0]);
        assert_eq!(penalty(Sampling { repetition_penalty: 1.5, ..Sampling::default() }, &[0]), [1, 0, 0]);
        assert_eq!(penalty(Sampling { presence_penalty: 0.5, ..Sampling::default() }, &[0]), [0, 1, 0]);
        assert_eq!(penalty(Sampling { frequency_penalty: 0.15, ..Sampling::default() }, &[0]), [0, 1, 0]);
    }

    proptest! {
        #[test]
        fn a_token_of_the_vocabulary_comes_out(
            logits in prop::collection::vec(prop_oneof![-50f32..50.0, Just(f32::NEG_INFINITY), Just(f32::NAN), Just(0.0)], 1..700),
            top_k in 0usize..50, top_p in 0f32..=1.0, min_p in 0f32..=1.0, typical_p in 0f32..=1.0,
            temperature in 0f32..3.0, seed: u64,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, typical_p, seed: Some(seed), ..Sampling::default() };
            let mut one = Sampler::new(sampling.clone(), &[]);
            let mut two = Sampler::new(sampling, &[]);
            for _ in 0..4 {
                let token = one.sample(&logits);
                prop_assert!((token as usize) < logits.len());
                prop_assert_eq!(token, two.sample(&logits));
                let possible = logits.iter().any(|l| l.is_finite());
                prop_assert!(!possible || logits[token as usize].is_finite());
            }
        }

        #[test]
        fn a_banned_token_never_comes_out(
            logits in prop::collection::vec(prop_oneof![-50f32..50.0, Just(f32::NEG_INFINITY), Just(f32::NAN), Just(1e30)], 1..300),
            mask in prop::option::of(prop::collection::vec(0u32..320, 0..300)), banned in prop::collection::vec(0u32..320, 0..30), biased in prop::collection::vec(0u32..320, 0..4),
            temperature in prop_oneof![Just(0f32), 0.1f32..3.0], top_k in 0usize..50, typical_p in 0.1f32..=1.0, repetition_penalty in prop_oneof![Just(1f32), 0.5f32..2.0],
        ) {
            let logit_bias = biased.iter().map(|&token| (token, f32::NEG_INFINITY)).collect();
            let sampling = Sampling {
                temperature, top_k, typical_p, repetition_penalty, logit_bias, banned_tokens: banned.clone(), ..Sampling::default()
            };
            let allowed = mask.map(|tokens| {
                let mut mask = TokenMask::none(logits.len());
                tokens.into_iter().for_each(|token| mask.allow(token));
                mask
            });
            let possible = |token: u32| {
                allowed.as_ref().is_none_or(|mask| mask.allows(token)) && !banned.contains(&token) && !biased.contains(&token)
            };
            let any = (0..logits.len() as u32).any(possible);
            let mut sampler = Sampler::new(sampling, &[1, 2, 3]);
            for _ in 0..4 {
                let token = sampler.sample_masked(&logits, allowed.as_ref());
                prop_assert_eq!(token.is_some(), any);
                prop_assert!(token.is_none_or(|token| (token as usize) < logits.len() && possible(token)));
            }
        }

        #[test]
        fn a_mask_of_everything_changes_nothing(
            logits in prop::collection::vec(-9f32..9.0, 1..300), temperature in prop_oneof![Just(0f32), 0.1f32..3.0], seed: u64,
        ) {
            let sampling = Sampling { temperature, seed: Some(seed), ..Sampling::default() };
            let (mut free, mut masked) = (Sampler::new(sampling.clone(), &[]), Sampler::new(sampling, &[]));
            let mut mask = TokenMask::none(logits.len());
            (0..logits.len() as u32).for_each(|token| mask.allow(token));
            for _ in 0..4 {
                prop_assert_eq!(Some(free.sample(&logits)), masked.sample_masked(&logits, Some(&mask)));
            }
        }

        #[test]
        fn argmax_is_the_first_of_the_largest(logits in prop::collection::vec(-3i8..3, 1..2000)) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            prop_assert_eq!(argmax(&logits) as usize, logits.iter().position(|&l| l == largest).unwrap());
        }
    }
}
