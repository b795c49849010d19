//! The engine's input: a prompt and options for its continuation.

use crate::Speculation;
use crate::sampling::Sampling;
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
    /// generation ends with [`FinishReason::Stop`](crate::FinishReason::Stop) where the grammar is complete.
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
