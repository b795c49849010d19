//! Choosing a token when only the likeliest are on the host and a GPU keeps the others.
//!
//! The choice is the same as with all logits, seed by seed, or there is none: if a token that is not on the
//! host could have mattered, the caller fetches the row.

use realm_model::TopK;

use super::mask::Allowed;
use super::{Sampler, TokenMask};

/// Returns the lowest id with the largest logit among tokens that are sorted by their logits. The other
/// tokens have logits of at most `others`. `None` if one of those may be the answer.
pub(crate) fn first_of_largest(
    mut few: impl Iterator<Item = (u32, f32)>,
    others: Option<f32>,
) -> Option<u32> {
    let (first, largest) = few.next()?;
    // 0 and -0 are equal as logits, but the order of the likeliest tells them apart.
    if largest == 0.0 && others == Some(0.0) {
        return None;
    }
    few.take_while(|few| few.1 == largest).map(|few| few.0).chain([first]).min()
}

impl Sampler {
    /// Returns whether the likeliest tokens mostly suffice.
    pub(crate) fn top_k_suffices(&self) -> bool {
        let s = &self.sampling;
        let narrow = s.temperature == 0.0 || (s.top_k > 0 && s.top_k <= TopK::MOST);
        // No bias or penalty may lift a token that is not on the host above one that is.
        narrow
            && s.repetition_penalty >= 1.0
            && s.frequency_penalty >= 0.0
            && s.presence_penalty >= 0.0
            && !self.lifts
    }

    /// Chooses like [`sample_masked`](Self::sample_masked), from the likeliest tokens. Returns `None` and
    /// changes nothing if it takes more than those.
    pub(crate) fn sample_top_k(&mut self, top_k: TopK<'_>, mask: Option<&TokenMask>) -> Option<u32> {
        if !self.top_k_suffices() {
            return None;
        }
        // Tokens that are not on the host are at most as likely as the last one that is, and come after it if
        // they are equal.
        let others = top_k.last();
        let adjusts = self.adjusts();
        let allowed = Allowed { mask, banned: self.banned.as_ref() };
        let mut few: Vec<(u32, f32)> = Vec::with_capacity(TopK::MOST);
        for (token, logit) in top_k.iter().filter(|&(token, _)| allowed.allows(token)) {
            let logit = if adjusts { self.adjusted(token, logit) } else { logit };
            // Same as `fill` and `argmax` of all logits: a token with a logit of -infinity is no candidate.
            if logit > f32::NEG_INFINITY && (!adjusts || others.is_none_or(|others| logit > others)) {
                few.push((token, logit));
            }
        }
        if adjusts {
            few.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        let token = if self.sampling.temperature > 0.0 {
            if few.is_empty() || (few.len() < self.sampling.top_k && others.is_some()) {
                return None;
            }
            few.truncate(self.sampling.top_k);
            self.candidates.choose_among(&few, &self.sampling, &mut self.rng)
        } else {
            first_of_largest(few.iter().copied(), others)?
        };
        self.history.push(token);
        Some(token)
    }

    fn adjusted(&self, token: u32, logit: f32) -> f32 {
        let bias = self.biases.binary_search_by_key(&token, |&(token, _)| token);
        let logit = bias.map_or(logit, |at| logit + self.biases[at].1);
        self.history.penalized(token, logit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::Sampling;
    use super::*;

    /// The likeliest tokens as a backend finds them.
    fn largest(logits: &[f32]) -> Vec<f32> {
        let mut all: Vec<(f32, u32)> =
            logits.iter().copied().zip(0..).filter(|l| l.0 > f32::NEG_INFINITY).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.resize(TopK::MOST, (f32::NEG_INFINITY, u32::MAX));
        let (logits, tokens): (Vec<f32>, Vec<f32>) =
            all.into_iter().map(|(l, t)| (l, f32::from_bits(t))).unzip();
        [logits, tokens].concat()
    }

    proptest! {
        #[test]
        fn few_logits_give_the_token_that_all_would_have_given(
            logits in prop::collection::vec(
                prop_oneof![8 => -9f32..9.0, 1 => Just(f32::NEG_INFINITY), 1 => Just(f32::NAN), 2 => (-3i8..3).prop_map(f32::from), 1 => Just(-0.0)],
                1..700,
            ),
            temperature in prop_oneof![Just(0f32), 0.1f32..3.0], top_k in 0usize..200, top_p in 0.1f32..=1.0,
            typical_p in prop_oneof![Just(1f32), 0.1f32..=1.0], min_p in 0f32..0.3,
            repetition_penalty in prop_oneof![2 => Just(1f32), 1 => 0.5f32..2.0], presence_penalty in prop_oneof![2 => Just(0f32), 1 => -1f32..1.0],
            biases in prop::collection::vec((0u32..300, prop_oneof![Just(f32::NEG_INFINITY), -9f32..1.0]), 0..4),
            banned in prop::collection::vec(0u32..300, 0..30),
            masked in prop::option::of(prop::collection::vec(0u32..700, 0..300)), seed: u64,
        ) {
            let sampling = Sampling {
                temperature, top_k, top_p, typical_p, min_p, repetition_penalty, presence_penalty,
                logit_bias: biases.into_iter().collect::<HashMap<_, _>>(), banned_tokens: banned, seed: Some(seed), ..Sampling::default()
            };
            let mask = masked.map(|tokens| {
                let mut mask = TokenMask::none(logits.len());
                tokens.into_iter().for_each(|token| mask.allow(token));
                mask
            });
            let prompt = [1, 2, 3, 2];
            let (mut all, mut few) = (Sampler::new(sampling.clone(), &prompt), Sampler::new(sampling, &prompt));
            let largest = largest(&logits);
            for _ in 0..6 {
                let want = all.sample_masked(&logits, mask.as_ref());
                match few.sample_top_k(TopK::new(&largest), mask.as_ref()) {
                    Some(got) => prop_assert_eq!(Some(got), want),
                    None => prop_assert_eq!(few.sample_masked(&logits, mask.as_ref()), want),
                }
            }
        }
    }

    #[test]
    fn plain_requests_need_no_more_than_the_likeliest() {
        let logits: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5003) as f32 / 500.0).collect();
        let largest = largest(&logits);
        for sampling in [
            Sampling::default(),
            Sampling::greedy(),
            Sampling { repetition_penalty: 1.1, ..Sampling::default() },
            Sampling { frequency_penalty: 0.2, temperature: 0.0, ..Sampling::default() },
        ] {
            let mut sampler = Sampler::new(sampling.clone(), &[5, 6, 7]);
            for _ in 0..40 {
                let token = sampler.sample_top_k(TopK::new(&largest), None);
                assert!(token.is_some(), "{sampling:?}");
            }
        }
    }
}
