//! Chunks of a running request.

use realm_engine::{Timings, Token, Usage};

use crate::error::ErrorCode;
use crate::{Error, ToolCall};

/// A part of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// New text of the answer; may be empty while a character, a stop string, a thought or a tool call is
    /// unfinished.
    pub text: String,
    /// New text of the model's thought, which is not part of `text`: see
    /// [`ReasoningFormat`](crate::ReasoningFormat).
    pub reasoning: String,
    /// New tokens.
    pub tokens: Vec<Token>,
    /// New tool calls, each complete. Their spelling is not part of the text.
    pub tool_calls: Vec<ToolCall>,
    /// In the first chunk, the options of the request that the model could serve only in another way.
    pub warnings: Vec<String>,
    /// In the last chunk, the reason, usage and times of the generation.
    pub finish: Option<Finish>,
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The reason why the generation ended.
    pub reason: FinishReason,
    /// The number of tokens used.
    pub usage: Usage,
    /// The time used.
    pub timings: Timings,
}

/// The reason why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model wrote an end token, a stop string appeared, or the grammar is complete.
    Stop,
    /// The text reached `max_tokens` or the end of the context.
    Length,
    /// The model called tools and waits for their results.
    ToolCalls,
}

impl FinishReason {
    /// Returns `"stop"`, `"length"` or `"tool_calls"`.
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
