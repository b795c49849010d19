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
    /// Gets the tokens so far and the logits of the next one, as 32-bit floats, one for each token of the vocabulary; gives as many back.
    /// What it throws ends the request.
    fn process(&self, tokens: Vec<u32>, logits: Vec<u8>) -> std::result::Result<Vec<u8>, ToolError>;
}

/// As `realm` takes it.
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
    /// The function: its arguments are JSON, and what it answers or throws the model gets to see.
    pub tool: Arc<dyn Tool>,
}

/// What happens when a conversation does not fit in the context any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Overflow {
    /// The oldest turns are dropped, a question with all that answered it; system messages stay.
    DropOldest,
    /// The question throws `LimitExceeded`.
    Refuse,
}

/// A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room when the context is full.
/// It answers one question at a time; one that fails or is cancelled leaves the conversation as it was before.
#[derive(uniffi::Object)]
pub struct ChatSession(realm::ChatSession);

#[uniffi::export]
impl ChatSession {
    /// Starts a conversation. `request`, whose prompt is `chat`, is how it begins (a system message, or none) and how each answer is made.
    /// `maxRounds` is how often the model may call tools for one question before it has to answer in words; nil for 8. Throws
    /// `Unsupported` for a model without a chat template, `InvalidArgument` for another kind of prompt and two tools of one name.
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

    /// Asks, and returns at once. `stream` and `ask` say more about it, and take the question back when their task is cancelled.
    pub fn start(&self, question: Message) -> Result<Arc<Generation>> {
        Ok(Arc::new(self.0.stream(message(question)?)?.into()))
    }

    /// The messages so far.
    pub fn messages(&self) -> Vec<Message> {
        self.0.messages().iter().map(|message| of_json(message.as_json())).collect()
    }

    /// Goes on from other messages. Throws `InvalidArgument` while a question is being answered.
    pub fn set_messages(&self, messages: Vec<Message>) -> Result<()> {
        Ok(self.0.set_messages(messages.into_iter().map(message).collect::<Result<_>>()?)?)
    }

    /// Takes the last question and all that answered it back; false if there is none. Throws `InvalidArgument` while a question is being
    /// answered.
    pub fn undo(&self) -> Result<bool> {
        Ok(self.0.undo()?)
    }

    /// Forgets everything but the system messages at the beginning. Throws `InvalidArgument` while a question is being answered.
    pub fn clear(&self) -> Result<()> {
        Ok(self.0.clear()?)
    }

    /// How many messages were dropped to make room in the context, since the beginning or the last `clear`.
    pub fn dropped_messages(&self) -> u64 {
        self.0.dropped_messages() as u64
    }

    /// Whether a question is being answered.
    pub fn is_busy(&self) -> bool {
        self.0.is_busy()
    }
}

/// A message of a conversation; what is no role and no text is among its fields.
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
