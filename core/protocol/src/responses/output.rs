//! The items of an answer.

use realm::{FinishReason, ToolCall, Usage};
use serde_json::{Value, json};

use crate::openai::Head;

/// Items, finished one after the other.
pub(super) struct Items(Vec<Value>);

impl Items {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        self.0.push(reasoning(&id("rs_"), "completed", Some(text)));
    }

    pub(super) fn message(&mut self, text: &str) {
        self.0.push(message(&id("msg_"), "completed", Some(text)));
    }

    pub(super) fn call(&mut self, call: &ToolCall) {
        self.0.push(self::call(&id("fc_"), "completed", call, &call.arguments));
    }

    pub(super) fn push(&mut self, item: Value) {
        self.0.push(item);
    }

    /// The index of the next item.
    pub(super) fn next(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_list(self) -> Vec<Value> {
        self.0
    }
}

/// Returns a new id.
pub(super) fn id(prefix: &str) -> String {
    Head::new(prefix, "").id
}

/// Returns a thought; without text for its beginning.
pub(super) fn reasoning(id: &str, status: &str, text: Option<&str>) -> Value {
    let content: Vec<_> = text.iter().map(|text| json!({"type": "reasoning_text", "text": text})).collect();
    json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": content})
}

/// Returns a message; without text for its beginning.
pub(super) fn message(id: &str, status: &str, text: Option<&str>) -> Value {
    let content: Vec<_> = text.iter().map(|text| part(text)).collect();
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

/// Returns a message's part.
pub(super) fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// Returns a call, with as much of its arguments as there is.
pub(super) fn call(id: &str, status: &str, call: &ToolCall, arguments: &str) -> Value {
    json!({
        "id": id, "type": "function_call", "status": status, "call_id": call.id, "name": call.name,
        "arguments": arguments,
    })
}

/// Returns the tokens of an answer, of which `thinking` are thoughts.
pub(super) fn usage(usage: &Usage, thinking: usize) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": thinking},
        "total_tokens": usage.prompt_tokens + usage.generated_tokens,
    })
}

pub(super) fn status(reason: FinishReason) -> &'static str {
    if reason == FinishReason::Length { "incomplete" } else { "completed" }
}
