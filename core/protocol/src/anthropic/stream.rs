//! Answers as named events.

use realm::{Chunk, Model};
use serde_json::{Value, json};

use super::types::{Answer, Usage};
use super::{MessagesRequest, StopFinder, stop_reason};
use crate::openai::{Writer, json as text_of};
use crate::{ApiError, Dialect, Event, Framing};

/// Writes an answer: its head, then blocks one after the other, each begun, filled and ended, and its end.
pub(crate) struct MessageWriter {
    model: Model,
    head: Answer,
    parallel_tool_calls: bool,
    stops: StopFinder,
    calls: usize,
    /// The open block's kind.
    open: Option<Kind>,
    /// The number of ended blocks, which is the open one's index.
    ended: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
}

impl MessageWriter {
    pub(crate) fn new(request: &MessagesRequest, prompt_tokens: usize, model: Model) -> Self {
        let head = Answer {
            id: request.head().id,
            kind: "message",
            role: "assistant",
            model: request.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: Usage { input_tokens: prompt_tokens, ..Usage::default() },
        };
        Self {
            model,
            head,
            parallel_tool_calls: request.parallel_tool_calls,
            stops: StopFinder::new(&request.request.stop),
            calls: 0,
            open: None,
            ended: 0,
        }
    }

    fn start(&mut self, block: Value, out: &mut Vec<Event>) {
        let event = json!({"type": "content_block_start", "index": self.ended, "content_block": block});
        out.push(Event::named("content_block_start", event.to_string()));
    }

    fn delta(&mut self, delta: Value, out: &mut Vec<Event>) {
        let event = json!({"type": "content_block_delta", "index": self.ended, "delta": delta});
        out.push(Event::named("content_block_delta", event.to_string()));
    }

    fn stop(&mut self, out: &mut Vec<Event>) {
        let event = json!({"type": "content_block_stop", "index": self.ended});
        out.push(Event::named("content_block_stop", event.to_string()));
        self.ended += 1;
    }

    /// Ends the open block, if there is one.
    fn close(&mut self, out: &mut Vec<Event>) {
        if self.open.take().is_some() {
            self.stop(out);
        }
    }

    /// Has a block of a kind open.
    fn open(&mut self, kind: Kind, out: &mut Vec<Event>) {
        if self.open == Some(kind) {
            return;
        }
        self.close(out);
        let block = match kind {
            Kind::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
            Kind::Text => json!({"type": "text", "text": ""}),
        };
        self.start(block, out);
        self.open = Some(kind);
    }
}

impl Writer for MessageWriter {
    fn framing(&self) -> Framing {
        Framing::Named
    }

    fn begin(&mut self, out: &mut Vec<Event>) {
        let event = json!({"type": "message_start", "message": self.head});
        out.push(Event::named("message_start", event.to_string()));
        out.push(Event::named("ping", r#"{"type":"ping"}"#.to_owned()));
    }

    fn chunk(&mut self, _: usize, chunk: Chunk, out: &mut Vec<Event>) {
        self.stops.read(&chunk.tokens, self.model.tokenizer());
        if !chunk.reasoning.is_empty() {
            self.open(Kind::Thinking, out);
            self.delta(json!({"type": "thinking_delta", "thinking": chunk.reasoning}), out);
        }
        if !chunk.text.is_empty() {
            self.open(Kind::Text, out);
            self.delta(json!({"type": "text_delta", "text": chunk.text}), out);
        }
        for call in chunk.tool_calls {
            if self.calls > 0 && !self.parallel_tool_calls {
                continue;
            }
            self.calls += 1;
            self.close(out);
            self.start(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}), out);
            self.delta(json!({"type": "input_json_delta", "partial_json": call.arguments}), out);
            self.stop(out);
        }
        if let Some(finish) = chunk.finish {
            self.close(out);
            let stop = self.stops.found(finish.reason);
            let delta = json!({"stop_reason": stop_reason(finish.reason, stop), "stop_sequence": stop});
            let usage = text_of(&Usage::of(&finish.usage));
            let event = format!(r#"{{"type":"message_delta","delta":{delta},"usage":{usage}}}"#);
            out.push(Event::named("message_delta", event));
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        out.push(Event::named("message_stop", r#"{"type":"message_stop"}"#.to_owned()));
    }

    fn failed(&mut self, error: &ApiError, out: &mut Vec<Event>) {
        out.push(Event::named("error", error.to_json_in(Dialect::Anthropic).to_string()));
    }
}
