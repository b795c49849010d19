//! What goes into the engine and what comes out.

use std::time::Duration;

use crate::Speculation;
use crate::sampling::{Sampling, TokenLogprob};
use crate::{Adapter, Grammar, Thought};

/// A prompt and how to go on from it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens to generate at most; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Strings that end the generation; they are not part of its text.
    pub stop: Vec<String>,
    /// With `Some(n)` every token comes with its log-probability and those of the `n` likeliest (at most
    /// [`MAX_LOGPROBS`]).
    pub logprobs: Option<usize>,
    /// What the text has to spell, after the [`thought`](Self::thought) if there is one. It ends with
    /// [`FinishReason::Stop`] where the grammar is complete.
    pub grammar: Option<Grammar>,
    /// How the model marks what it thinks before it answers, if it may.
    pub thought: Option<Thought>,
    /// Go on after an end token. One that a grammar allows ends the text all the same.
    pub ignore_eos: bool,
    /// Spell control tokens in the text.
    pub special: bool,
    /// Control tokens that the text spells in any case.
    pub spelled: Vec<u32>,
    /// So many tokens at the beginning of the prompt, which many tenants' prompts begin with, may be computed once for
    /// all who say so: what a tenant marks here, others can find out that it was used.
    pub shared_prefix: usize,
    /// A LoRA adapter, and a factor on what it adds: 1 is the adapter as it was trained.
    pub adapter: Option<(Adapter, f32)>,
    /// Where drafts come from; `None` for the engine's choice.
    pub speculation: Option<Speculation>,
}

impl Request {
    /// Bytes of memory that it takes while it waits, beside its prompt and what its text is written by.
    pub(crate) fn memory(&self) -> usize {
        self.sampling.memory() + self.spelled.capacity() * size_of::<u32>()
    }
}

/// The most alternatives that a request may ask for at each token.
pub const MAX_LOGPROBS: usize = 100;

/// A piece of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// New text; may be empty while a character or a stop string is unfinished.
    pub text: String,
    /// New tokens.
    pub tokens: Vec<Token>,
    /// In the last chunk, how it ended.
    pub finish: Option<Finish>,
}

impl Chunk {
    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        let top = |token: &Token| token.top.capacity() * size_of::<TokenLogprob>();
        let tokens = self.tokens.capacity() * size_of::<Token>() + self.tokens.iter().map(top).sum::<usize>();
        size_of::<Self>() + self.text.capacity() + tokens
    }
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its log-probability, where the request asked for it.
    pub logprob: Option<f32>,
    /// The likeliest tokens in its place, where the request asked for them.
    pub top: Vec<TokenLogprob>,
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
    /// Time used.
    pub timings: Timings,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so with an end token, a stop string came, or the grammar is complete.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

/// Tokens used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of these, how many were computed by an earlier request.
    pub cached_tokens: usize,
    /// Generated, an end token included.
    pub generated_tokens: usize,
    /// Of these, how many belong to the model's thought, its marks included.
    pub reasoning_tokens: usize,
    /// Drafts: tokens that were computed on the chance that they would follow.
    pub draft_tokens: usize,
    /// Of these, how many did.
    pub accepted_tokens: usize,
}

/// Time used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Waiting for a place in the batch.
    pub queued: Duration,
    /// From there to the first token.
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
