//! Answers in the form of Anthropic's specification.

use serde::Serialize;
use serde_json::Value;

/// A whole answer.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// The answer's id.
    pub id: String,
    /// Always `message`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Always `assistant`.
    pub role: &'static str,
    /// The model's name, as the request gave it.
    pub model: String,
    /// The blocks: a thought, a text, and calls of tools.
    pub content: Vec<Block>,
    /// The reason of the end: `end_turn`, `max_tokens`, `stop_sequence` or `tool_use`; `null` at a stream's
    /// beginning.
    pub stop_reason: Option<&'static str>,
    /// The stop sequence that ended the text, if one did.
    pub stop_sequence: Option<String>,
    /// Tokens used.
    pub usage: Usage,
}

/// A part of an answer.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// The model's thought before its answer.
    Thinking {
        /// The thought.
        thinking: String,
        /// Always empty: thoughts of models here are not signed.
        signature: String,
    },
    /// A text.
    Text {
        /// The text.
        text: String,
    },
    /// A call of a tool.
    ToolUse {
        /// The id by which the result refers to the call.
        id: String,
        /// The tool's name.
        name: String,
        /// The arguments.
        input: Value,
    },
}

impl Block {
    pub(crate) fn call(call: realm::ToolCall) -> Self {
        // Arguments are a JSON object's text.
        let input =
            serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::Object(serde_json::Map::new()));
        Self::ToolUse { id: call.id, name: call.name, input }
    }
}

/// Tokens that an answer used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt that were computed.
    pub input_tokens: usize,
    /// Always 0: keeping computed prompts costs nothing.
    pub cache_creation_input_tokens: usize,
    /// Tokens of the prompt that an earlier request had computed.
    pub cache_read_input_tokens: usize,
    /// Generated tokens, including an end token.
    pub output_tokens: usize,
}

impl Usage {
    pub(crate) fn of(usage: &realm::Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.generated_tokens,
        }
    }
}
