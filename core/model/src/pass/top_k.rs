//! The likeliest tokens of a row whose other logits stay on the device.

/// The likeliest tokens of a row, found by [`Backend::top_k`](realm_compute::Backend::top_k).
#[derive(Debug, Clone, Copy)]
pub struct TopK<'a> {
    logits: &'a [f32],
    tokens: &'a [f32],
}

impl<'a> TopK<'a> {
    /// Number of likeliest tokens, if the vocabulary has that many.
    pub const MOST: usize = 128;

    /// Reads a row of [`Backend::top_k`](realm_compute::Backend::top_k): logits, followed by as many tokens.
    pub fn new(row: &'a [f32]) -> Self {
        let (logits, tokens) = row.split_at(row.len() / 2);
        Self { logits, tokens }
    }

    /// Returns the row that [`new`](Self::new) reads.
    pub fn to_row(&self) -> Vec<f32> {
        [self.logits, self.tokens].concat()
    }

    /// Iterates over tokens and their logits, the likeliest first; among equal logits, the lower id first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
        let both = self.tokens.iter().zip(self.logits);
        both.take_while(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(token, &logit)| (token.to_bits(), logit))
    }

    /// An upper bound on the logits of all other tokens; `None` if no other token is possible.
    pub fn last(&self) -> Option<f32> {
        self.logits.last().copied().filter(|&logit| logit > f32::NEG_INFINITY)
    }
}
