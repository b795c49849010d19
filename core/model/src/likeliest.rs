//! The likeliest tokens of a row, where a device keeps all other logits to itself.

/// The likeliest tokens of a row, as [`Backend::best`](realm_compute::Backend::best) found them.
#[derive(Debug, Clone, Copy)]
pub struct Likeliest<'a> {
    logits: &'a [f32],
    tokens: &'a [f32],
}

impl<'a> Likeliest<'a> {
    /// How many there are, in a vocabulary that is large enough.
    pub const MOST: usize = 128;

    /// From a row of [`Backend::best`](realm_compute::Backend::best): logits, and then as many tokens.
    pub fn new(row: &'a [f32]) -> Self {
        let (logits, tokens) = row.split_at(row.len() / 2);
        Self { logits, tokens }
    }

    /// What [`new`](Self::new) takes.
    pub fn to_row(&self) -> Vec<f32> {
        [self.logits, self.tokens].concat()
    }

    /// Tokens and their logits, the likeliest first and of equal ones the one with the lower id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
        let both = self.tokens.iter().zip(self.logits);
        both.take_while(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(token, &logit)| (token.to_bits(), logit))
    }

    /// The logit that no other token's is above; `None` if no other token is possible.
    pub fn last(&self) -> Option<f32> {
        self.logits.last().copied().filter(|&logit| logit > f32::NEG_INFINITY)
    }
}
