//! A finished generation.

use realm_engine::{Timings, Token, Usage};

use crate::{Chunk, Error, Finish, FinishReason, ToolCall};

/// The whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text, without the stop string that ended it, without tool calls and without thoughts.
    pub text: String,
    /// What the model thought before its answer; empty if it did not: see
    /// [`ReasoningFormat`](crate::ReasoningFormat).
    pub reasoning: String,
    /// The tokens, an end token included.
    pub tokens: Vec<Token>,
    /// Tools that the model calls.
    pub tool_calls: Vec<ToolCall>,
    /// What the request asked for and the model could only do in another way: that its chat template knows no tools,
    /// for example. Sentences for a log.
    pub warnings: Vec<String>,
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
    reasoning: String,
    tokens: Vec<Token>,
    tool_calls: Vec<ToolCall>,
    warnings: Vec<String>,
    finish: Option<Finish>,
}

impl Collector {
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.text += &chunk.text;
        self.reasoning += &chunk.reasoning;
        self.tokens.extend(chunk.tokens);
        self.tool_calls.extend(chunk.tool_calls);
        self.warnings.extend(chunk.warnings);
        self.finish = chunk.finish.or(self.finish.take());
    }

    pub(crate) fn finish(self) -> Result<Completion, Error> {
        let Some(Finish { reason, usage, timings }) = self.finish else {
            return Err(Error::cancelled());
        };
        let Self { text, reasoning, tokens, tool_calls, warnings, .. } = self;
        Ok(Completion {
            text,
            reasoning,
            tokens,
            tool_calls,
            warnings,
            finish_reason: reason,
            usage,
            timings,
        })
    }
}
