//! Answers in chunks, each a JSON text.

use realm::{Chunk, Finish, FinishReason, Model};
use serde::Serialize;

use super::completions::{text_completion, text_reason};
use super::types::{
    ChatCompletionChunk, ChatLogprobs, ChunkChoice, Delta, SYSTEM_FINGERPRINT, TextChoice, ToolCall, Usage,
};
use super::{ChatRequest, CompletionRequest, Head, logprobs};
use crate::{ApiError, Event, Framing};

/// Turns the chunks of several generations into a protocol's events.
pub(crate) trait Writer: Send {
    /// The form in which the protocol sends events.
    fn framing(&self) -> Framing {
        Framing::Done
    }
    /// Writes the events before all chunks.
    fn begin(&mut self, out: &mut Vec<Event>);
    /// Writes the events of a choice's chunk.
    fn chunk(&mut self, choice: usize, chunk: Chunk, out: &mut Vec<Event>);
    /// Writes the events after all chunks.
    fn end(&mut self, out: &mut Vec<Event>);
    /// Writes the event of a failure, which is the last one.
    fn failed(&mut self, error: &ApiError, out: &mut Vec<Event>) {
        out.push(error.to_json().to_string().into());
    }
}

/// Returns a value as JSON. Texts, numbers and lists can't fail.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Writes a conversation's answer: for each choice first the role, then texts and calls, then the reason of
/// its end; last the usage.
pub(crate) struct ChatWriter {
    head: Head,
    model: Model,
    logprobs: bool,
    parallel_tool_calls: bool,
    include_usage: bool,
    usage: Usage,
    /// For each choice, the number of calls so far.
    calls: Vec<usize>,
}

impl ChatWriter {
    pub(crate) fn new(request: &ChatRequest, model: Model) -> Self {
        Self {
            head: request.head(),
            model,
            logprobs: request.request.logprobs.is_some(),
            parallel_tool_calls: request.parallel_tool_calls,
            include_usage: request.include_usage,
            usage: Usage::default(),
            calls: vec![0; request.n],
        }
    }

    fn write(&self, choices: Vec<ChunkChoice>, usage: Option<&Usage>) -> Event {
        Event::from(json(&ChatCompletionChunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            service_tier: self.head.service_tier,
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage: self.include_usage.then_some(usage),
        }))
    }

    fn logprobs(&self, chunk: &Chunk) -> Option<ChatLogprobs> {
        if !self.logprobs {
            return None;
        }
        let tokenizer = self.model.tokenizer();
        let tokens = logprobs::spoken(&chunk.tokens, ended(&chunk.finish), tokenizer);
        (!tokens.is_empty()).then(|| logprobs::of_chat(tokens, tokenizer))
    }
}

/// Returns whether a text ended by itself with its chunk.
fn ended(finish: &Option<Finish>) -> bool {
    finish.as_ref().is_some_and(|finish| finish.reason != FinishReason::Length)
}

impl Writer for ChatWriter {
    fn begin(&mut self, out: &mut Vec<Event>) {
        for index in 0..self.calls.len() {
            let content = Some(String::new());
            let delta = Delta { role: Some("assistant"), content, ..Delta::default() };
            let choice = ChunkChoice { index, delta, logprobs: None, finish_reason: None };
            out.push(self.write(vec![choice], None));
        }
    }

    fn chunk(&mut self, index: usize, chunk: Chunk, out: &mut Vec<Event>) {
        let logprobs = self.logprobs(&chunk);
        let mut delta = Delta::default();
        if !chunk.text.is_empty() || logprobs.is_some() {
            delta.content = Some(chunk.text);
        }
        if !chunk.reasoning.is_empty() {
            delta.reasoning = Some(chunk.reasoning.clone());
            delta.reasoning_content = Some(chunk.reasoning);
        }
        for call in chunk.tool_calls {
            let number = self.calls[index];
            if number == 0 || self.parallel_tool_calls {
                delta.tool_calls.push(ToolCall::new(call, Some(number)));
                self.calls[index] += 1;
            }
        }
        if delta.content.is_some() || delta.reasoning_content.is_some() || !delta.tool_calls.is_empty() {
            let choice = ChunkChoice { index, delta, logprobs, finish_reason: None };
            out.push(self.write(vec![choice], None));
        }
        if let Some(finish) = chunk.finish {
            self.usage.add(&finish.usage, index == 0);
            let finish_reason = Some(finish.reason.as_str());
            let choice = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
            out.push(self.write(vec![choice], None));
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        if self.include_usage {
            out.push(self.write(Vec::new(), Some(&self.usage)));
        }
    }
}

/// Writes continuations of texts.
pub(crate) struct CompletionWriter {
    head: Head,
    model: Model,
    request: CompletionRequest,
    usage: Usage,
    /// For each choice, the number of characters of its text so far.
    offsets: Vec<usize>,
}

impl CompletionWriter {
    pub(crate) fn new(request: CompletionRequest, model: Model) -> Self {
        let choices = request.prompts.len() * request.n;
        Self { head: request.head(), model, request, usage: Usage::default(), offsets: vec![0; choices] }
    }

    fn write(&self, choices: Vec<TextChoice>, usage: Option<&Usage>) -> Event {
        text_completion(&self.head, choices, self.request.include_usage.then_some(usage)).into()
    }
}

impl Writer for CompletionWriter {
    fn begin(&mut self, out: &mut Vec<Event>) {
        if self.request.echo {
            for index in 0..self.offsets.len() {
                let text = self.request.echoed(index, self.model.tokenizer());
                let choice = TextChoice { index, text, logprobs: None, finish_reason: None };
                out.push(self.write(vec![choice], None));
            }
        }
    }

    fn chunk(&mut self, index: usize, chunk: Chunk, out: &mut Vec<Event>) {
        let tokenizer = self.model.tokenizer();
        let logprobs = self.request.request.logprobs.map(|_| {
            let tokens = logprobs::spoken(&chunk.tokens, ended(&chunk.finish), tokenizer);
            logprobs::of_text(tokens, tokenizer, &mut self.offsets[index])
        });
        let some = logprobs.as_ref().is_some_and(|logprobs| !logprobs.tokens.is_empty());
        let finish_reason = chunk.finish.as_ref().map(|finish| text_reason(finish.reason));
        if let Some(finish) = &chunk.finish {
            self.usage.add(&finish.usage, index.is_multiple_of(self.request.n));
        }
        if some || finish_reason.is_some() || !chunk.text.is_empty() {
            let choice = TextChoice { index, text: chunk.text, logprobs, finish_reason };
            out.push(self.write(vec![choice], None));
        }
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        if self.request.include_usage {
            out.push(self.write(Vec::new(), Some(&self.usage)));
        }
    }
}
