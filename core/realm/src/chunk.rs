//! Pieces of a running request.

use realm_engine::{Timings, Token, Usage};

use crate::error::ErrorCode;
use crate::{Error, ToolCall};

/// A piece of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// New text; may be empty while a character, a stop string, a thought or a tool call is unfinished.
    pub text: String,
    /// New text of the model's thought, which is not part of `text`: see [`ReasoningFormat`](crate::ReasoningFormat).
    pub reasoning: String,
    /// New tokens.
    pub tokens: Vec<Token>,
    /// Tools that the model calls, each in one piece. Their spelling is not part of the text.
    pub tool_calls: Vec<ToolCall>,
    /// In the first chunk, what the request asked for and the model could only do in another way.
    pub warnings: Vec<String>,
    /// In the last chunk, how it ended.
    pub finish: Option<Finish>,
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
    /// As [`Stop`](Self::Stop), after calls of tools: the model waits for what they return.
    ToolCalls,
}

impl FinishReason {
    /// `"stop"`, `"length"` or `"tool_calls"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
        }
    }
}

impl std::str::FromStr for FinishReason {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "stop" => Ok(Self::Stop),
            "length" => Ok(Self::Length),
            "tool_calls" => Ok(Self::ToolCalls),
            other => {
                let why = format!("a finish reason is `stop`, `length` or `tool_calls`, not `{other}`");
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
    }
}

impl From<realm_engine::FinishReason> for FinishReason {
    fn from(reason: realm_engine::FinishReason) -> Self {
        match reason {
            realm_engine::FinishReason::Stop => Self::Stop,
            realm_engine::FinishReason::Length => Self::Length,
        }
    }
}

impl From<realm_engine::Finish> for Finish {
    fn from(finish: realm_engine::Finish) -> Self {
        let realm_engine::Finish { reason, usage, timings } = finish;
        Self { reason: reason.into(), usage, timings }
    }
}

impl From<realm_engine::Chunk> for Chunk {
    fn from(chunk: realm_engine::Chunk) -> Self {
        let realm_engine::Chunk { text, tokens, finish } = chunk;
        Self {
            text,
            reasoning: String::new(),
            tokens,
            tool_calls: Vec::new(),
            warnings: Vec::new(),
            finish: finish.map(Finish::from),
        }
    }
}
