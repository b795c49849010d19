//! Models: their text and tokens.

use std::sync::Arc;

use realm_engine::TextStream;
use realm_tokenizer::Conversation;
use serde_json::{Map, Value};
use wasmtime::component::Resource;

use crate::bindings::realm::tenant::models::{self as wit, ModelInfo, Piece};
use crate::bindings::realm::tenant::types;
use crate::budget::Charge;
use crate::error::HostError;
use crate::host::{MAX_TEXT, check_text, check_tokens, json};
use crate::model::{Prompt, json_bound};
use crate::state::State;
use crate::{Error, ErrorKind};

/// The value behind a handle of a model.
pub struct Model(pub(crate) Arc<crate::Model>);

/// The value behind a handle of a text decoder.
pub struct TextDecoder {
    stream: TextStream,
    model: Arc<crate::Model>,
    _charge: Charge,
}

impl State {
    /// Returns the model behind a handle.
    pub(crate) fn model(&self, handle: &Resource<Model>) -> wasmtime::Result<&Arc<crate::Model>> {
        Ok(&self.table.get(handle)?.0)
    }

    /// Creates a handle, for calls that cannot return an error for too many.
    fn hand<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        self.table.push(value).map_err(|error| HostError::from(error).fatal())
    }
}

impl wit::Host for State {}

impl wit::HostModel for State {
    fn current(&mut self) -> wasmtime::Result<Resource<Model>> {
        let model = Model(Arc::clone(&self.context.model));
        self.hand(model)
    }

    fn open(&mut self, name: String) -> Result<Resource<Model>, HostError> {
        let tenant = &self.context.tenant;
        if tenant.limits().models.is_some_and(|models| !models.contains(&name)) {
            let why = format!("tenant `{}` may not use the model `{name}`", tenant.name());
            return Err(Error::limit(why).into());
        }
        let none = || Error::new(ErrorKind::NotFound, format!("no model `{name}` is loaded"));
        let model = (self.context.models)(&name).ok_or_else(none)?;
        Ok(self.table.push(Model(model))?)
    }

    fn info(&mut self, this: Resource<Model>) -> wasmtime::Result<ModelInfo> {
        let model = self.model(&this)?;
        let config = model.weights.config();
        Ok(ModelInfo {
            name: model.name.clone(),
            architecture: config.architecture.to_string(),
            vocabulary: config.vocab as u32,
            layers: config.layers as u32,
            hidden: config.hidden as u32,
            context_length: model.engine.context_length() as u32,
            bos: model.tokenizer.bos(),
            eos: model.tokenizer.eos(),
        })
    }

    async fn encode(&mut self, this: Resource<Model>, text: String) -> wasmtime::Result<Vec<u32>> {
        check_text(&text)?;
        self.context.budget.turn.step_aside(text.len()).await;
        Ok(self.model(&this)?.tokenizer.encode(&text, false, true))
    }

    async fn encode_piece(
        &mut self,
        this: Resource<Model>,
        text: String,
        special: bool,
    ) -> wasmtime::Result<Vec<u32>> {
        check_text(&text)?;
        self.context.budget.turn.step_aside(text.len()).await;
        Ok(self.model(&this)?.tokenizer.encode(&text, special, false))
    }

    fn decode(&mut self, this: Resource<Model>, tokens: Vec<u32>) -> Result<String, HostError> {
        check_tokens(&tokens)?;
        Ok(self.model(&this)?.tokenizer.decode(&tokens, false)?)
    }

    fn token_bytes(&mut self, this: Resource<Model>, token: u32) -> Result<Vec<u8>, HostError> {
        let mut bytes = Vec::new();
        self.model(&this)?.tokenizer.push_bytes(token, false, &mut bytes)?;
        Ok(bytes)
    }

    fn is_end(&mut self, this: Resource<Model>, token: u32) -> wasmtime::Result<bool> {
        Ok(self.model(&this)?.tokenizer.end_tokens().contains(&token))
    }

    async fn tokenize(
        &mut self,
        this: Resource<Model>,
        prompt: types::Prompt,
    ) -> Result<Vec<u32>, HostError> {
        // A template may make a long text of a short one.
        self.context.budget.turn.step_aside(usize::MAX).await;
        // The parsed prompt may take a hundred times as much memory.
        let _parsed = self.context.budget.charge(parsed_bound(&prompt))?;
        let model = self.model(&this)?;
        Ok(model.tokenize(&from_wit(prompt)?)?)
    }

    fn drop(&mut self, this: Resource<Model>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit::HostTextDecoder for State {
    fn new(&mut self, model: Resource<Model>, stop: Vec<String>) -> wasmtime::Result<Resource<TextDecoder>> {
        let model = Arc::clone(self.model(&model)?);
        realm_engine::check_stops(&stop).map_err(Error::from)?;
        // The decoder of so few bytes is small enough to be charged for after it is created.
        let stream = TextStream::new(&stop);
        let charge = self.context.budget.charge(size_of::<TextDecoder>() + stream.memory())?;
        self.hand(TextDecoder { stream, model, _charge: charge })
    }

    fn push(&mut self, this: Resource<TextDecoder>, token: u32) -> Result<Piece, HostError> {
        let TextDecoder { stream, model, .. } = self.table.get_mut(&this)?;
        if token as usize >= model.vocabulary() {
            return Err(unknown_token(token, model.vocabulary()).into());
        }
        let (text, stopped) = stream.push(token, &model.tokenizer, false);
        Ok(Piece { text, stopped })
    }

    fn finish(&mut self, this: Resource<TextDecoder>) -> wasmtime::Result<String> {
        Ok(self.table.get_mut(&this)?.stream.finish())
    }

    fn drop(&mut self, this: Resource<TextDecoder>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

pub(crate) fn unknown_token(token: u32, vocabulary: usize) -> Error {
    Error::invalid(format!("token {token} is not in the vocabulary of {vocabulary} tokens"))
}

/// Returns the most memory that the JSON of a prompt may take.
fn parsed_bound(prompt: &types::Prompt) -> usize {
    let types::Prompt::Chat(chat) = prompt else { return 0 };
    let fields = chat.messages.iter().map(|message| json_bound(&message.fields)).sum::<usize>();
    fields + json_bound(&chat.tools) + json_bound(&chat.variables)
}

/// Converts a prompt of the guest.
fn from_wit(prompt: types::Prompt) -> Result<Prompt, Error> {
    Ok(match prompt {
        types::Prompt::Text(text) => {
            check_text(&text)?;
            Prompt::Text(text)
        }
        types::Prompt::Tokens(tokens) => Prompt::Tokens(tokens),
        types::Prompt::Chat(chat) => {
            let size = |message: &types::Message| {
                message.role.len() + message.content.len() + message.fields.len() + size_of::<Value>()
            };
            if chat.messages.iter().map(size).sum::<usize>() > MAX_TEXT {
                return Err(Error::limit(format!("a conversation of more than {MAX_TEXT} bytes")));
            }
            let message = |message: types::Message| {
                let mut value = Map::new();
                value.insert("role".into(), message.role.into());
                value.insert("content".into(), message.content.into());
                value.extend(object("fields", &message.fields)?);
                Ok(Value::Object(value))
            };
            let tools = match chat.tools.as_str() {
                "" => Vec::new(),
                tools => match json(tools, "`tools` is no JSON array")? {
                    Value::Array(tools) => tools,
                    _ => return Err(Error::invalid("`tools` is no JSON array")),
                },
            };
            Prompt::Chat(Conversation {
                messages: chat.messages.into_iter().map(message).collect::<Result<_, Error>>()?,
                tools,
                variables: object("variables", &chat.variables)?,
                ..Conversation::default()
            })
        }
    })
}

fn object(name: &str, text: &str) -> Result<Map<String, Value>, Error> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    let what = format!("`{name}` is no JSON object");
    match json(text, &what)? {
        Value::Object(object) => Ok(object),
        _ => Err(Error::invalid(what)),
    }
}

/// Converts a prompt for the guest.
pub(crate) fn to_wit(prompt: &Prompt) -> types::Prompt {
    match prompt {
        Prompt::Text(text) => types::Prompt::Text(text.clone()),
        Prompt::Tokens(tokens) => types::Prompt::Tokens(tokens.clone()),
        Prompt::Chat(chat) => types::Prompt::Chat(types::Conversation {
            messages: chat.messages.iter().map(message_to_wit).collect(),
            tools: if chat.tools.is_empty() {
                String::new()
            } else {
                Value::Array(chat.tools.clone()).to_string()
            },
            variables: variables_to_wit(chat),
        }),
    }
}

/// Adds the options for the prompt's end as variables of their names.
fn variables_to_wit(chat: &Conversation) -> String {
    let mut variables = chat.variables.clone();
    if let Some(add) = chat.add_generation_prompt {
        variables.insert("add_generation_prompt".into(), add.into());
    }
    if chat.continue_final_message {
        variables.insert("continue_final_message".into(), true.into());
    }
    if variables.is_empty() { String::new() } else { Value::Object(variables).to_string() }
}

/// Puts a `role` or `content` that is not a string, such as a list of parts, among the other fields.
fn message_to_wit(message: &Value) -> types::Message {
    let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
    let mut fields = message.as_object().cloned().unwrap_or_default();
    fields.retain(|key, value| !((key == "role" || key == "content") && value.is_string()));
    let fields = if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() };
    types::Message { role: text("role"), content: text("content"), fields }
}
