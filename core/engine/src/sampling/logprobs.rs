//! Log-probabilities of the model's own distribution, before bias, penalties and temperature.

use super::top;

/// A token and the natural logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token's id.
    pub id: u32,
    /// The logarithm of its probability, in nats.
    pub logprob: f32,
}

/// Returns the logarithm of the sum of all exponentials. A logit minus this is a log-probability. -infinity
/// if all logits are.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return largest.into();
    }
    let sum: f64 = logits.iter().map(|&l| f64::from((l - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// Returns the log-probability of `token`, and the `n` likeliest tokens, likeliest first.
pub(crate) fn logprobs(logits: &[f32], token: u32, n: usize) -> (f32, Vec<TokenLogprob>) {
    let total = log_sum_exp(logits);
    let logprob = logits.get(token as usize).map_or(f32::NEG_INFINITY, |&l| (f64::from(l) - total) as f32);
    (logprob, top_k(logits, n, total))
}

/// The scores of one token of a given text.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The log-probability of the next token in the text; `None` after the last one.
    pub next: Option<f32>,
    /// The likeliest tokens in that place, likeliest first.
    pub top: Vec<TokenLogprob>,
}

/// Returns the log-probability of `next` and the `n` likeliest tokens.
pub(crate) fn score_row(logits: &[f32], next: Option<u32>, n: usize) -> Scored {
    let total = log_sum_exp(logits);
    let next =
        next.map(|id| logits.get(id as usize).map_or(f32::NEG_INFINITY, |&l| (f64::from(l) - total) as f32));
    Scored { next, top: top_k(logits, n, total) }
}

fn top_k(logits: &[f32], n: usize, total: f64) -> Vec<TokenLogprob> {
    top(logits, n)
        .into_iter()
        .map(|(id, logit)| TokenLogprob { id, logprob: (f64::from(logit) - total) as f32 })
        .collect()
}
