//! Answers: a line for each piece, and one with the whole.

use realm::{Chunk, Completion, FinishReason, Timings, ToolCall, Usage};
use serde_json::{Map, Value, json};

use super::OllamaRequest;
use crate::openai::Writer;
use crate::{ApiError, Dialect, Event, Framing, timestamp};

/// Writes an answer in lines.
pub(crate) struct LineWriter {
    model: String,
    chat: bool,
}

impl LineWriter {
    pub(crate) fn new(request: &OllamaRequest) -> Self {
        Self { model: request.model.clone(), chat: request.chat }
    }

    fn line(&self, piece: Piece<'_>) -> Map<String, Value> {
        let Piece { text, thinking, calls, done } = piece;
        let mut line = Map::new();
        line.insert("model".into(), self.model.as_str().into());
        line.insert("created_at".into(), timestamp().into());
        if self.chat {
            let mut message = json!({"role": "assistant", "content": text});
            if !thinking.is_empty() {
                message["thinking"] = thinking.into();
            }
            if !calls.is_empty() {
                message["tool_calls"] = calls.iter().map(call).collect();
            }
            line.insert("message".into(), message);
        } else {
            line.insert("response".into(), text.into());
            if !thinking.is_empty() {
                line.insert("thinking".into(), thinking.into());
            }
        }
        line.insert("done".into(), done.is_some().into());
        if let Some((reason, usage, timings)) = done {
            line.insert("done_reason".into(), self::reason(reason).into());
            let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let total = timings.queued + timings.prefill + timings.decode;
            for (name, number) in [
                ("total_duration", nanos(total)),
                ("load_duration", 0),
                ("prompt_eval_count", usage.prompt_tokens as u64),
                ("prompt_eval_duration", nanos(timings.prefill)),
                ("eval_count", usage.generated_tokens as u64),
                ("eval_duration", nanos(timings.decode)),
            ] {
                line.insert(name.into(), number.into());
            }
        }
        line
    }
}

/// A piece of an answer.
struct Piece<'a> {
    text: &'a str,
    thinking: &'a str,
    calls: &'a [ToolCall],
    /// The end of the answer.
    done: Option<(FinishReason, &'a Usage, &'a Timings)>,
}

/// Ollama's arguments are an object, not a text.
fn call(call: &ToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
    json!({"id": call.id, "function": {"name": call.name, "arguments": arguments}})
}

fn reason(reason: FinishReason) -> &'static str {
    if reason == FinishReason::Length { "length" } else { "stop" }
}

impl Writer for LineWriter {
    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn begin(&mut self, _: &mut Vec<Event>) {}

    fn chunk(&mut self, _: usize, chunk: Chunk, out: &mut Vec<Event>) {
        let Chunk { text, reasoning, tool_calls, finish, .. } = &chunk;
        if finish.is_none() && text.is_empty() && reasoning.is_empty() && tool_calls.is_empty() {
            return;
        }
        let done = finish.as_ref().map(|finish| (finish.reason, &finish.usage, &finish.timings));
        let line = self.line(Piece { text, thinking: reasoning, calls: tool_calls, done });
        out.push(Value::Object(line).to_string().into());
    }

    fn end(&mut self, _: &mut Vec<Event>) {}

    fn failed(&mut self, error: &ApiError, out: &mut Vec<Event>) {
        out.push(error.to_json_in(Dialect::Ollama).to_string().into());
    }
}

/// Returns a whole answer.
pub(crate) fn whole(request: &OllamaRequest, completion: &Completion) -> Value {
    let Completion { text, reasoning, tool_calls, finish_reason, usage, timings, .. } = completion;
    let done = Some((*finish_reason, usage, timings));
    Value::Object(LineWriter::new(request).line(Piece { text, thinking: reasoning, calls: tool_calls, done }))
}
