//! Finished generations.

use realm_engine::{Timings, Token, Usage};

use crate::{Chunk, Error, Finish, FinishReason, ToolCall};

/// The whole answer of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text, without the stop string that ended it, without tool calls and without thoughts.
    pub text: String,
    /// The model's thought before its answer; empty if it had none. See
    /// [`ReasoningFormat`](crate::ReasoningFormat).
    pub reasoning: String,
    /// The tokens, including an end token.
    pub tokens: Vec<Token>,
    /// The tool calls of the answer.
    pub tool_calls: Vec<ToolCall>,
    /// Options of the request that the model could serve only in another way, for example tools that its chat
    /// template does not know. Sentences for a log.
    pub warnings: Vec<String>,
    /// The reason why the generation ended.
    pub finish_reason: FinishReason,
    /// The number of tokens used.
    pub usage: Usage,
    /// The time used.
    pub timings: Timings,
}

/// Joins chunks into a completion.
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
