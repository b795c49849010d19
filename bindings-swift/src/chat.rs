//! Chat sessions, and functions that change logits.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::callback::{Tool, ToolError};
use crate::error::{Result, json};
use crate::generation::Generation;
use crate::model::Model;
use crate::request::{Message, Request, message};

/// Changes logits before a token is chosen.
#[uniffi::export(with_foreign)]
pub trait LogitsProcessor: Send + Sync {
    /// Receives the tokens so far and the logits of the next one, as 32-bit floats, one for each token of the
    /// vocabulary; returns as many. A thrown error ends the request.
    fn process(&self, tokens: Vec<u32>, logits: Vec<u8>) -> std::result::Result<Vec<u8>, ToolError>;
}

/// Converts a processor for `realm`.
pub(crate) fn processor(processor: Arc<dyn LogitsProcessor>) -> realm::LogitsProcessor {
    realm::LogitsProcessor::new_async(move |tokens, logits| {
        let bytes = logits.iter().flat_map(|logit| logit.to_ne_bytes()).collect();
        let processed = processor.process(tokens, bytes);
        std::future::ready(match processed {
            Ok(bytes) => {
                let (numbers, _) = bytes.as_chunks::<4>();
                Ok(numbers.iter().map(|number| f32::from_ne_bytes(*number)).collect())
            }
            Err(ToolError::Failed { message }) => Err(message),
        })
    })
}

/// A tool that a session runs.
#[derive(Clone, uniffi::Record)]
pub struct ChatTool {
    /// Its definition in OpenAI's format, a JSON object.
    pub definition: String,
    /// The function: its arguments are JSON, and the model reads its answer or its error.
    pub tool: Arc<dyn Tool>,
}

/// The rule for a conversation that no longer fits in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Overflow {
    /// Drops the oldest turns, each a question with everything that answered it; system messages stay.
    DropOldest,
    /// The question throws `LimitExceeded`.
    Refuse,
}

/// A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room
/// when the context is full. It answers one question at a time. A question that fails or is cancelled leaves
/// the conversation as it was before the question.
#[derive(uniffi::Object)]
pub struct ChatSession(realm::ChatSession);

#[uniffi::export]
impl ChatSession {
    /// Starts a conversation. `request`, whose prompt is `chat`, is the beginning of the conversation (a
    /// system message, or nothing) and has the options of each answer. `maxRounds` is the most rounds of tool
    /// calls for one question, after which the model must answer in words; nil for 8. Throws `Unsupported`
    /// for a model without a chat template, `InvalidArgument` for another kind of prompt and for two tools of
    /// the same name.
    #[uniffi::constructor(default(tools = [], max_rounds = None, overflow = None))]
    pub fn new(
        model: Arc<Model>,
        request: Request,
        tools: Vec<ChatTool>,
        max_rounds: Option<u64>,
        overflow: Option<Overflow>,
    ) -> Result<Arc<Self>> {
        let mut options = realm::ChatOptions { request: request.convert()?, ..realm::ChatOptions::default() };
        for ChatTool { definition, tool } in tools {
            let call = move |arguments| {
                let tool = Arc::clone(&tool);
                async move { tool.call(arguments).await.map_err(|ToolError::Failed { message }| message) }
            };
            options.tools.push(realm::ChatTool::new_async(json(&definition, "definition")?, call)?);
        }
        if let Some(rounds) = max_rounds {
            options.max_rounds = rounds as usize;
        }
        options.overflow = match overflow {
            Some(Overflow::Refuse) => realm::Overflow::Refuse,
            _ => realm::Overflow::DropOldest,
        };
        Ok(Arc::new(Self(realm::ChatSession::new(&model.0, options)?)))
    }

    /// Asks a question and returns at once. Prefer `stream` and `ask`, which remove the question again when
    /// their task is cancelled.
    pub fn start(&self, question: Message) -> Result<Arc<Generation>> {
        Ok(Arc::new(self.0.stream(message(question)?)?.into()))
    }

    /// Returns the messages so far.
    pub fn messages(&self) -> Vec<Message> {
        self.0.messages().iter().map(|message| of_json(message.as_json())).collect()
    }

    /// Replaces the messages. Throws `InvalidArgument` while a question is being answered.
    pub fn set_messages(&self, messages: Vec<Message>) -> Result<()> {
        Ok(self.0.set_messages(messages.into_iter().map(message).collect::<Result<_>>()?)?)
    }

    /// Removes the last question and everything that answered it; returns false if there is none. Throws
    /// `InvalidArgument` while a question is being answered.
    pub fn undo(&self) -> Result<bool> {
        Ok(self.0.undo()?)
    }

    /// Removes all messages except the system messages at the beginning. Throws `InvalidArgument` while a
    /// question is being answered.
    pub fn clear(&self) -> Result<()> {
        Ok(self.0.clear()?)
    }

    /// Returns the number of messages dropped to make room in the context, since the beginning or the last
    /// `clear`.
    pub fn dropped_messages(&self) -> u64 {
        self.0.dropped_messages() as u64
    }

    /// Returns whether a question is being answered.
    pub fn is_busy(&self) -> bool {
        self.0.is_busy()
    }
}

/// Converts a message; a `role` or `content` that is not a string goes among its fields.
fn of_json(message: &Value) -> Message {
    let mut fields: Map<String, Value> = message.as_object().cloned().unwrap_or_default();
    let mut text = |key: &str| match fields.get(key) {
        Some(Value::String(text)) => {
            let text = text.clone();
            fields.shift_remove(key);
            text
        }
        _ => String::new(),
    };
    let (role, content) = (text("role"), text("content"));
    Message { role, content, fields: (!fields.is_empty()).then(|| Value::Object(fields).to_string()) }
}
