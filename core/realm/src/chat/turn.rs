//! One question, from the user's message to the answer: rounds of the model's text and of the tools that it
//! calls.

use realm_engine::{Timings, Usage};
use realm_handover::Sender;
use serde_json::{Value, json};

use super::{ChatSession, Overflow, Session};
use crate::task::TaskState;
use crate::tools::name_of;
use crate::{Chunk, Error, Finish, Message, Prompt, Request, ToolCall, ToolChoice};

/// Sends the answer in chunks; the last one says how it ended.
pub(super) async fn answer(
    session: ChatSession,
    turn: u64,
    messages: Vec<Message>,
    chunks: Sender<Result<Chunk, Error>>,
) {
    let mut answer = Answer { session: &session.0, messages, dropped: 0, chunks: &chunks };
    let end = match answer.rounds().await {
        // The reader has left.
        Ok(None) => return,
        Ok(Some(finish)) => {
            let Answer { messages, dropped, .. } = answer;
            let mut state = session.lock();
            if state.turn != turn || state.running.as_ref().is_some_and(TaskState::is_cancelled) {
                return;
            }
            state.messages = messages;
            state.dropped += dropped;
            state.running = None;
            Ok(last_chunk(finish))
        }
        Err(error) => {
            let mut state = session.lock();
            if state.turn == turn {
                state.running = None;
            }
            Err(error)
        }
    };
    let _ = chunks.send(end).await;
}

fn last_chunk(finish: Finish) -> Chunk {
    let empty = realm_engine::Chunk { text: String::new(), tokens: Vec::new(), finish: None };
    Chunk { finish: Some(finish), ..empty.into() }
}

struct Answer<'a> {
    session: &'a Session,
    messages: Vec<Message>,
    dropped: usize,
    chunks: &'a Sender<Result<Chunk, Error>>,
}

/// The model's output in one round.
struct Said {
    text: String,
    calls: Vec<ToolCall>,
    finish: Finish,
}

impl Answer<'_> {
    /// Asks until the model calls no more tools; `None` if the reader has left.
    async fn rounds(&mut self) -> Result<Option<Finish>, Error> {
        let (mut usage, mut timings) = (Usage::default(), Timings::default());
        for round in 0.. {
            let request = self.request(round)?;
            let Some(Said { text, calls, mut finish }) = self.ask(request).await? else { return Ok(None) };
            self.messages.push(assistant(text, &calls));
            add(&mut usage, &finish.usage);
            timings.queued += finish.timings.queued;
            timings.prefill += finish.timings.prefill;
            timings.decode += finish.timings.decode;
            // Calls of tools that the application runs end the session's answer.
            let all_ours =
                self.has_tools() && !calls.iter().any(|call| self.is_left_to_the_application(call));
            if calls.is_empty() || !all_ours {
                (finish.usage, finish.timings) = (usage, timings);
                return Ok(Some(finish));
            }
            for call in &calls {
                let result = self.call(call).await;
                self.messages.push(result);
            }
        }
        unreachable!("the last round has no tools")
    }

    /// Returns whether the session runs any tools.
    fn has_tools(&self) -> bool {
        !self.session.options.tools.is_empty()
    }

    /// Returns whether the called tool has a definition but no function in the session.
    fn is_left_to_the_application(&self, call: &ToolCall) -> bool {
        let options = &self.session.options;
        let declared = options.request.tools.iter().any(|tool| name_of(tool) == Some(&call.name));
        declared && !options.tools.iter().any(|tool| tool.name == call.name)
    }

    /// Returns the next round's request, after making room for it.
    fn request(&mut self, round: usize) -> Result<Request, Error> {
        let Session { model, options, .. } = self.session;
        let mut request = options.request.clone();
        if round >= options.max_rounds {
            request.tool_choice = ToolChoice::None;
        } else if round > 0 && request.tool_choice != ToolChoice::None {
            // The required call was made in the first round.
            request.tool_choice = ToolChoice::Auto;
        }
        request.prompt = Prompt::Chat(self.messages.clone());
        if options.overflow == Overflow::Refuse {
            return Ok(request);
        }
        let (request, dropped) = model.drop_oldest_turns(request)?;
        if let Prompt::Chat(kept) = &request.prompt
            && dropped > 0
        {
            self.messages.clone_from(kept);
            self.dropped += dropped;
        }
        Ok(request)
    }

    /// Runs one round; `None` if the reader has left.
    async fn ask(&self, request: Request) -> Result<Option<Said>, Error> {
        let mut generation = self.session.model.stream(request)?;
        let (mut text, mut calls) = (String::new(), Vec::new());
        while let Some(chunk) = generation.next_async().await {
            let mut chunk = chunk?;
            text += &chunk.text;
            calls.extend(chunk.tool_calls.iter().cloned());
            let finish = chunk.finish.take();
            if self.chunks.send(Ok(chunk)).await.is_err() {
                return Ok(None);
            }
            if let Some(finish) = finish {
                return Ok(Some(Said { text, calls, finish }));
            }
        }
        Err(Error::cancelled())
    }

    /// Runs a tool and returns the message with its result for the model.
    async fn call(&self, call: &ToolCall) -> Message {
        let tools = &self.session.options.tools;
        let result = match tools.iter().find(|tool| tool.name == call.name) {
            Some(tool) => (tool.call)(call.arguments.clone()).await,
            None => {
                let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
                Err(format!("there is no tool `{}`, only {}", call.name, names.join(", ")))
            }
        };
        let content = match result {
            // A JSON string is passed to the model without its quotes.
            Ok(json) => match serde_json::from_str(&json) {
                Ok(Value::String(text)) => text,
                _ => json,
            },
            Err(why) => format!("error: {why}"),
        };
        json!({"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content}).into()
    }
}

/// Returns the model's output as a message for later prompts.
fn assistant(text: String, calls: &[ToolCall]) -> Message {
    let mut message = json!({"role": "assistant", "content": text});
    if !calls.is_empty() {
        let calls = calls.iter().map(|ToolCall { id, name, arguments }| {
            json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
        });
        message["tool_calls"] = calls.collect();
    }
    message.into()
}

fn add(sum: &mut Usage, usage: &Usage) {
    sum.prompt_tokens += usage.prompt_tokens;
    sum.cached_tokens += usage.cached_tokens;
    sum.generated_tokens += usage.generated_tokens;
    sum.draft_tokens += usage.draft_tokens;
    sum.accepted_tokens += usage.accepted_tokens;
}
