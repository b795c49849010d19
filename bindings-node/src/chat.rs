//! Chat sessions.

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::{ChatOptions, ChatTool, Message, Overflow, Prompt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::failed;
use crate::generation::NativeGeneration;
use crate::grants::{Tools, dispatch, tool};
use crate::handle::Handle;
use crate::model::{NativeAdapter, NativeModel};
use crate::options::{read, request};
use crate::processors::{Process, process};

/// The options of a session besides those of its requests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SessionOptions {
    tools: Vec<Value>,
    max_rounds: Option<usize>,
    overflow: Option<String>,
}

/// A conversation.
#[napi]
pub struct NativeChat {
    handle: Handle<realm::ChatSession>,
}

#[napi]
impl NativeChat {
    /// Starts a conversation with the messages of a request; `run` calls a tool by its name.
    #[napi(constructor)]
    pub fn new(
        model: &NativeModel,
        request: String,
        session: String,
        adapter: Option<&NativeAdapter>,
        #[napi(ts_arg_type = "unknown")] function: Option<Process<'_>>,
        #[napi(ts_arg_type = "unknown")] run: Option<Tools<'_>>,
    ) -> Result<Self> {
        let adapter = adapter.map(|adapter| adapter.handle.get()).transpose()?;
        let mut request = process(self::request(&request, adapter)?, function.as_ref())?;
        if matches!(&request.prompt, Prompt::Tokens(tokens) if tokens.is_empty()) {
            // An empty list of messages looks like an empty list of tokens.
            request.prompt = Prompt::Chat(Vec::new());
        }
        let SessionOptions { tools, max_rounds, overflow } = read(&session)?;
        let mut options = ChatOptions { request, ..ChatOptions::default() };
        if let Some(run) = run {
            let dispatch = dispatch(&run)?;
            for definition in tools {
                let name = definition.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
                let call = tool(&dispatch, name.to_owned());
                options.tools.push(ChatTool::new_async(definition, call).map_err(failed)?);
            }
        }
        options.max_rounds = max_rounds.unwrap_or(options.max_rounds);
        if let Some(overflow) = overflow {
            options.overflow = overflow.parse::<Overflow>().map_err(failed)?;
        }
        let session = realm::ChatSession::new(&model.handle.get()?, options).map_err(failed)?;
        Ok(Self { handle: Handle::new("ChatSession", session) })
    }

    /// Asks a question, given as a message in JSON.
    #[napi]
    pub fn stream(&self, question: String) -> Result<NativeGeneration> {
        let question: Value = read(&question)?;
        Ok(NativeGeneration::new(self.handle.get()?.stream(Message::from(question)).map_err(failed)?))
    }

    /// Returns the messages and the other state, as JSON.
    #[napi]
    pub fn state(&self) -> Result<String> {
        let session = self.handle.get()?;
        let messages: Vec<_> = session.messages().iter().map(|message| message.as_json().clone()).collect();
        let (dropped, busy) = (session.dropped_messages(), session.is_busy());
        Ok(json!({"messages": messages, "droppedMessages": dropped, "busy": busy}).to_string())
    }

    /// Replaces the messages, given as JSON.
    #[napi]
    pub fn set_messages(&self, messages: String) -> Result<()> {
        let messages: Vec<Value> = read(&messages)?;
        self.handle.get()?.set_messages(messages.into_iter().map(Message::from).collect()).map_err(failed)
    }

    /// Removes the last question and its answer.
    #[napi]
    pub fn undo(&self) -> Result<bool> {
        self.handle.get()?.undo().map_err(failed)
    }

    /// Removes all messages except the system messages.
    #[napi]
    pub fn clear(&self) -> Result<()> {
        self.handle.get()?.clear().map_err(failed)
    }

    /// Releases the conversation.
    #[napi]
    pub fn close(&self) {
        self.handle.close();
    }
}
