//! Answers as named events.

use realm::{Chunk, ToolCall};
use serde_json::{Value, json};

use super::ResponsesRequest;
use super::output::{self, Items};
use crate::openai::{Head, Writer};
use crate::{ApiError, Event, Framing};

/// Writes an answer: its head, then items one after the other, each begun, filled and ended, and the whole.
pub(crate) struct ResponseWriter {
    request: ResponsesRequest,
    head: Head,
    /// The number of events so far.
    sequence: usize,
    items: Items,
    open: Option<Open>,
    calls: usize,
    thinking: usize,
    end: Option<(&'static str, Value)>,
}

/// An item that is being written.
struct Open {
    kind: Kind,
    id: String,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
}

impl ResponseWriter {
    pub(crate) fn new(request: ResponsesRequest) -> Self {
        let head = request.head();
        Self { request, head, sequence: 0, items: Items::new(), open: None, calls: 0, thinking: 0, end: None }
    }

    fn event(&mut self, name: &'static str, mut fields: Value, out: &mut Vec<Event>) {
        fields["type"] = name.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        out.push(Event::named(name, fields.to_string()));
    }

    fn response(&self, status: &str, output: Vec<Value>, usage: Option<Value>) -> Value {
        json!({"response": self.request.object(&self.head, status, output, usage)})
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        let Some(Open { kind, id, text }) = self.open.take() else { return };
        let index = self.items.next();
        let item = match kind {
            Kind::Reasoning => {
                let done = json!({"item_id": id, "output_index": index, "content_index": 0, "text": text});
                self.event("response.reasoning_text.done", done, out);
                output::reasoning(&id, "completed", Some(&text))
            }
            Kind::Message => {
                let done = json!({"item_id": id, "output_index": index, "content_index": 0, "text": text, "logprobs": []});
                self.event("response.output_text.done", done, out);
                let part = json!({"item_id": id, "output_index": index, "content_index": 0, "part": output::part(&text)});
                self.event("response.content_part.done", part, out);
                output::message(&id, "completed", Some(&text))
            }
        };
        self.event("response.output_item.done", json!({"output_index": index, "item": item}), out);
        self.items.push(item);
    }

    fn say(&mut self, kind: Kind, piece: &str, out: &mut Vec<Event>) {
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close(out);
            let index = self.items.next();
            let (id, item) = match kind {
                Kind::Reasoning => {
                    let id = output::id("rs_");
                    let item = output::reasoning(&id, "in_progress", None);
                    (id, item)
                }
                Kind::Message => {
                    let id = output::id("msg_");
                    let item = output::message(&id, "in_progress", None);
                    (id, item)
                }
            };
            self.event("response.output_item.added", json!({"output_index": index, "item": item}), out);
            if kind == Kind::Message {
                let part = json!({"item_id": id, "output_index": index, "content_index": 0, "part": output::part("")});
                self.event("response.content_part.added", part, out);
            }
            self.open = Some(Open { kind, id, text: String::new() });
        }
        let index = self.items.next();
        let Some(open) = &mut self.open else { return };
        open.text += piece;
        let mut delta =
            json!({"item_id": open.id, "output_index": index, "content_index": 0, "delta": piece});
        let name = match kind {
            Kind::Reasoning => "response.reasoning_text.delta",
            Kind::Message => {
                delta["logprobs"] = json!([]);
                "response.output_text.delta"
            }
        };
        self.event(name, delta, out);
    }

    fn call(&mut self, call: &ToolCall, out: &mut Vec<Event>) {
        self.close(out);
        let (id, index) = (output::id("fc_"), self.items.next());
        let begun = output::call(&id, "in_progress", call, "");
        self.event("response.output_item.added", json!({"output_index": index, "item": begun}), out);
        let delta = json!({"item_id": id, "output_index": index, "delta": call.arguments});
        self.event("response.function_call_arguments.delta", delta, out);
        let done =
            json!({"item_id": id, "output_index": index, "name": call.name, "arguments": call.arguments});
        self.event("response.function_call_arguments.done", done, out);
        let item = output::call(&id, "completed", call, &call.arguments);
        self.event("response.output_item.done", json!({"output_index": index, "item": item}), out);
        self.items.push(item);
    }
}

impl Writer for ResponseWriter {
    fn framing(&self) -> Framing {
        Framing::Named
    }

    fn begin(&mut self, out: &mut Vec<Event>) {
        for name in ["response.created", "response.in_progress"] {
            let response = self.response("in_progress", Vec::new(), None);
            self.event(name, response, out);
        }
    }

    fn chunk(&mut self, _: usize, chunk: Chunk, out: &mut Vec<Event>) {
        if !chunk.reasoning.is_empty() {
            if chunk.text.is_empty() && chunk.tool_calls.is_empty() {
                self.thinking += chunk.tokens.len();
            }
            self.say(Kind::Reasoning, &chunk.reasoning, out);
        }
        if !chunk.text.is_empty() {
            self.say(Kind::Message, &chunk.text, out);
        }
        for call in &chunk.tool_calls {
            if self.calls == 0 || self.request.chat.parallel_tool_calls {
                self.calls += 1;
                self.call(call, out);
            }
        }
        if let Some(finish) = chunk.finish {
            self.close(out);
            let usage = output::usage(&finish.usage, self.thinking);
            self.end = Some((output::status(finish.reason), usage));
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        let Some((status, usage)) = self.end.take() else { return };
        let items = std::mem::replace(&mut self.items, Items::new()).into_list();
        let response = self.response(status, items, Some(usage));
        let name = if status == "incomplete" { "response.incomplete" } else { "response.completed" };
        self.event(name, response, out);
    }

    fn failed(&mut self, error: &ApiError, out: &mut Vec<Event>) {
        let inner = &error.to_json()["error"];
        let fields = json!({"code": inner["code"], "message": inner["message"], "param": inner["param"]});
        self.event("error", fields, out);
    }
}
