//! The engine's input and output: requests, chunks, and how a generation ended.

use std::time::Duration;

use crate::Speculation;
use crate::sampling::{Sampling, TokenLogprob};
use crate::{Adapter, Grammar, Thought};

/// A prompt and options for its continuation.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// The options for choosing tokens.
    pub sampling: Sampling,
    /// The most tokens to generate; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Strings that end the generation. They are not part of its text.
    pub stop: Vec<String>,
    /// With `Some(n)`, every token comes with its log-probability and those of the `n` likeliest tokens (at
    /// most [`MAX_LOGPROBS`]).
    pub logprobs: Option<usize>,
    /// The grammar that the text follows, after the [`thought`](Self::thought) if there is one. The
    /// generation ends with [`FinishReason::Stop`] where the grammar is complete.
    pub grammar: Option<Grammar>,
    /// The marks of the model's thought before its answer, if it may think.
    pub thought: Option<Thought>,
    /// Continues after an end token. An end token that a grammar allows still ends the text.
    pub ignore_eos: bool,
    /// Spells control tokens in the text.
    pub special: bool,
    /// Control tokens that the text spells even without `special`.
    pub spelled: Vec<u32>,
    /// The number of tokens at the beginning of the prompt that many tenants' prompts have in common. The
    /// engine may compute them once for all tenants that mark them. Other tenants can find out that a marked
    /// prefix was used.
    pub shared_prefix: usize,
    /// A LoRA adapter and its scale, a factor on what it adds: 1 is the adapter as it was trained.
    pub adapter: Option<(Adapter, f32)>,
    /// The source of drafts; `None` for the engine's default.
    pub speculation: Option<Speculation>,
}

impl Request {
    /// Bytes of memory that the request takes while it waits, without its prompt and its
    /// [`Writing`](crate::Writing).
    pub(crate) fn memory(&self) -> usize {
        self.sampling.memory() + self.spelled.capacity() * size_of::<u32>()
    }
}

/// The most alternatives that a request may ask for at each token.
pub const MAX_LOGPROBS: usize = 100;

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
