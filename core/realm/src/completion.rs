//! A finished generation.

use realm_engine::{Timings, Token, Usage};

use crate::{Chunk, Error, Finish, FinishReason, ToolCall};

/// The whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text, without the stop string that ended it and without tool calls.
    pub text: String,
    /// The tokens, an end token included.
    pub tokens: Vec<Token>,
    /// Tools that the model calls.
    pub tool_calls: Vec<ToolCall>,
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
    tool_calls: Vec<ToolCall>,
    finish: Option<Finish>,
}

impl Collector {
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.text += &chunk.text;
        self.tokens.extend(chunk.tokens);
        self.tool_calls.extend(chunk.tool_calls);
        self.finish = chunk.finish.or(self.finish.take());
    }

    pub(crate) fn finish(self) -> Result<Completion, Error> {
        let Some(Finish { reason, usage, timings }) = self.finish else {
            return Err(Error::cancelled());
        };
        let Self { text, tokens, tool_calls, .. } = self;
        Ok(Completion { text, tokens, tool_calls, finish_reason: reason, usage, timings })
    }
}
