//! Options for choosing tokens, and their ranges.

use std::collections::HashMap;

use super::{TokenMask, table_memory};
use crate::Error;

/// Options for choosing tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token (greedy).
    pub temperature: f32,
    /// Keeps the `k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest tokens whose probabilities together reach `p` (Holtzman et al. 2019); 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least `p` times as likely as the likeliest (Nguyen et al. 2024); 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens whose information is nearest to the expected information, up to a probability of `p`
    /// together (Meister et al. 2022); 1 keeps all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred recently (Keskar et al. 2019);
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    /// The number of last tokens, including the prompt's, that `repetition_penalty` looks at.
    pub repetition_window: usize,
    /// Subtracted from a token's logit for each time that the token was generated.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of a token that was generated.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens; `-inf` bans a token.
    pub logit_bias: HashMap<u32, f32>,
    /// Tokens that are never chosen.
    pub banned_tokens: Vec<u32>,
    /// The seed of the random choice: the same seed gives the same text. `None` takes a new seed every time.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: HashMap::new(),
            banned_tokens: Vec::new(),
            seed: None,
        }
    }
}

impl Sampling {
    /// Options that always choose the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks that all values are in range.
    ///
    /// # Errors
    /// `InvalidArgument` with the field and its range.
    pub fn check(&self, vocabulary: usize) -> Result<(), Error> {
        let within = |name: &str, value: f32, range: std::ops::RangeInclusive<f32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let (low, high) = (range.start(), range.end());
            Err(Error::InvalidArgument(format!("{name} is {value}; it must be from {low} to {high}")))
        };
        within("temperature", self.temperature, 0.0..=100.0)?;
        within("top_p", self.top_p, 0.0..=1.0)?;
        within("min_p", self.min_p, 0.0..=1.0)?;
        within("typical_p", self.typical_p, 0.0..=1.0)?;
        within("repetition_penalty", self.repetition_penalty, 0.01..=100.0)?;
        within("frequency_penalty", self.frequency_penalty, -100.0..=100.0)?;
        within("presence_penalty", self.presence_penalty, -100.0..=100.0)?;
        for (&token, &bias) in &self.logit_bias {
            if token as usize >= vocabulary {
                let why = format!("logit_bias names token {token} of a vocabulary of {vocabulary}");
                return Err(Error::InvalidArgument(why));
            }
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(Error::InvalidArgument(format!("logit_bias of token {token} is {bias}")));
            }
        }
        if let Some(token) = self.banned_tokens.iter().find(|&&token| token as usize >= vocabulary) {
            let why = format!("banned_tokens names token {token} of a vocabulary of {vocabulary}");
            return Err(Error::InvalidArgument(why));
        }
        if self.banned().is_some_and(|banned| banned.count() == vocabulary) {
            return Err(Error::InvalidArgument("every token of the vocabulary is banned".into()));
        }
        Ok(())
    }

    /// Bytes of memory that the biases and banned tokens take.
    pub fn memory(&self) -> usize {
        let biases = table_memory(self.logit_bias.capacity(), size_of::<(u32, f32)>());
        biases + self.banned_tokens.capacity() * size_of::<u32>()
    }

    /// Returns the tokens that `banned_tokens` and biases of `-inf` rule out, if there are any.
    pub(super) fn banned(&self) -> Option<TokenMask> {
        let biased = self.logit_bias.iter().filter(|&(_, &bias)| bias == f32::NEG_INFINITY);
        let tokens = || self.banned_tokens.iter().chain(biased.clone().map(|(token, _)| token)).copied();
        let mut banned = TokenMask::none(tokens().max()? as usize + 1);
        tokens().for_each(|token| banned.allow(token));
        Some(banned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_nothing_are_refused() {
        for bad in [
            Sampling { temperature: -1.0, ..Sampling::default() },
            Sampling { top_p: f32::NAN, ..Sampling::default() },
            Sampling { min_p: 1.5, ..Sampling::default() },
            Sampling { repetition_penalty: 0.0, ..Sampling::default() },
            Sampling { logit_bias: HashMap::from([(99, 1.0)]), ..Sampling::default() },
            Sampling { logit_bias: HashMap::from([(1, f32::NAN)]), ..Sampling::default() },
            Sampling { banned_tokens: vec![3, 10], ..Sampling::default() },
            Sampling { banned_tokens: (0..10).collect(), ..Sampling::default() },
        ] {
            assert!(matches!(bad.check(10), Err(Error::InvalidArgument(_))), "{bad:?}");
        }
        assert!(Sampling::default().check(10).is_ok());
    }
}
