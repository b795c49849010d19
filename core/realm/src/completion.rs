//! A finished generation.

use realm_engine::{Chunk, Finish, FinishReason, Timings, Token, Usage};

use crate::Error;

/// The whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text, without the stop string that ended it.
    pub text: String,
    /// The tokens, an end token included.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
    /// Time used.
    pub timings: Timings,
}

/// Puts chunks together.
#[derive(Default)]
pub(crate) struct Collector {
    text: String,
    tokens: Vec<Token>,
    finish: Option<Finish>,
}

impl Collector {
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.text += &chunk.text;
        self.tokens.extend(chunk.tokens);
        self.finish = chunk.finish.or(self.finish.take());
    }

    pub(crate) fn finish(self) -> Result<Completion, Error> {
        let Some(Finish { reason, usage, timings }) = self.finish else {
            return Err(Error::cancelled());
        };
        Ok(Completion { text: self.text, tokens: self.tokens, finish_reason: reason, usage, timings })
    }
}
