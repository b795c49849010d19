//! The engine's output: chunks of a text, and how a generation ended.

use std::time::Duration;

use crate::sampling::TokenLogprob;
use crate::{Charged, Error};

/// A chunk in a generation's channel.
pub(crate) type Unread = Charged<Result<Chunk, Error>>;

/// A piece of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// New text. Empty while a character or a stop string is unfinished.
    pub text: String,
    /// New tokens.
    pub tokens: Vec<Token>,
    /// In the last chunk, the end of the generation.
    pub finish: Option<Finish>,
}

impl Chunk {
    /// Bytes of memory that the chunk takes.
    pub fn memory(&self) -> usize {
        let top = |token: &Token| token.top.capacity() * size_of::<TokenLogprob>();
        let tokens = self.tokens.capacity() * size_of::<Token>() + self.tokens.iter().map(top).sum::<usize>();
        size_of::<Self>() + self.text.capacity() + tokens
    }
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The token's id.
    pub id: u32,
    /// Its log-probability, if the request asked for it.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place, if the request asked for them.
    pub top: Vec<TokenLogprob>,
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The reason for the end.
    pub reason: FinishReason,
    /// Tokens that the request used.
    pub usage: Usage,
    /// Time that the request took.
    pub timings: Timings,
}

/// The reason why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model chose an end token, a stop string appeared, or the grammar is complete.
    Stop,
    /// The generation reached `max_tokens` or the end of the context.
    Length,
}

/// Tokens that a request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that an earlier request had computed.
    pub cached_tokens: usize,
    /// Generated tokens, including an end token.
    pub generated_tokens: usize,
    /// Generated tokens of the model's thought, including its marks.
    pub reasoning_tokens: usize,
    /// Drafts: tokens that were computed on the chance that they follow.
    pub draft_tokens: usize,
    /// Drafts that were accepted.
    pub accepted_tokens: usize,
}

/// Time that a request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From the start of the request to its place in the batch.
    pub queued: Duration,
    /// From the place in the batch to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

impl Timings {
    /// From the start of the request to the first token.
    pub fn time_to_first_token(&self) -> Duration {
        self.queued + self.prefill
    }

    /// Decoded tokens per second, given the usage; 0 for fewer than two tokens.
    pub fn decode_rate(&self, usage: Usage) -> f64 {
        match self.decode.as_secs_f64() {
            s if s > 0.0 => usage.generated_tokens.saturating_sub(1) as f64 / s,
            _ => 0.0,
        }
    }

    /// Prompt tokens per second.
    pub fn prefill_rate(&self, usage: Usage) -> f64 {
        match self.prefill.as_secs_f64() {
            s if s > 0.0 => usage.prompt_tokens as f64 / s,
            _ => 0.0,
        }
    }
}
