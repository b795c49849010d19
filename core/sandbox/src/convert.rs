//! Conversions between the types of the contract and Realm's own.

use std::collections::HashMap;

use realm_engine::{FinishReason, Grammar, Prompt, Sampling};
use realm_tokenizer::Conversation;
use serde_json::{Map, Value};

use crate::bindings::realm::tenant::types as wit;
use crate::request::Request;
use crate::{Error, ErrorKind};

/// The most bytes of a text that one call works on, so that the call is short and its result is not much
/// larger.
const MAX_TEXT: usize = 1 << 20;

/// Refuses a text that is too long to work on.
pub(crate) fn check_text(text: &str) -> Result<(), Error> {
    if text.len() <= MAX_TEXT {
        return Ok(());
    }
    Err(Error::limit(format!("a text of {} bytes; one call takes {MAX_TEXT} at most", text.len())))
}

/// Parses a JSON text.
pub(crate) fn json(text: &str, what: &str) -> Result<Value, Error> {
    check_text(text)?;
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("{what}: {error}")))
}

/// Converts a request for the guest.
///
/// # Errors
/// `Unsupported` for a kind of grammar that the contract has no case for.
pub(crate) fn request_to_wit(request: &Request) -> Result<wit::Request, Error> {
    Ok(wit::Request {
        prompt: prompt_to_wit(&request.prompt),
        sampling: sampling_to_wit(&request.sampling),
        max_tokens: request.max_tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)),
        stop: request.stop.clone(),
        grammar: request.grammar.as_ref().map(grammar_to_wit).transpose()?,
        ignore_eos: request.ignore_eos,
        input: request.input.to_string(),
    })
}

impl From<wit::FinishReason> for FinishReason {
    fn from(reason: wit::FinishReason) -> Self {
        match reason {
            wit::FinishReason::Stop => Self::Stop,
            wit::FinishReason::Length => Self::Length,
        }
    }
}

impl From<FinishReason> for wit::FinishReason {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::Stop,
            FinishReason::Length => Self::Length,
        }
    }
}

/// Converts a prompt of the guest.
pub(crate) fn prompt_from_wit(prompt: wit::Prompt) -> Result<Prompt, Error> {
    Ok(match prompt {
        wit::Prompt::Text(text) => {
            check_text(&text)?;
            Prompt::Text(text)
        }
        wit::Prompt::Tokens(tokens) => Prompt::Tokens(tokens),
        wit::Prompt::Chat(chat) => {
            let size = |message: &wit::Message| {
                message.role.len() + message.content.len() + message.fields.len() + size_of::<Value>()
            };
            if chat.messages.iter().map(size).sum::<usize>() > MAX_TEXT {
                return Err(Error::limit(format!("a conversation of more than {MAX_TEXT} bytes")));
            }
            let message = |message: wit::Message| {
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
fn prompt_to_wit(prompt: &Prompt) -> wit::Prompt {
    match prompt {
        Prompt::Text(text) => wit::Prompt::Text(text.clone()),
        Prompt::Tokens(tokens) => wit::Prompt::Tokens(tokens.clone()),
        Prompt::Chat(chat) => wit::Prompt::Chat(wit::Conversation {
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
fn message_to_wit(message: &Value) -> wit::Message {
    let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
    let mut fields = message.as_object().cloned().unwrap_or_default();
    fields.retain(|key, value| !((key == "role" || key == "content") && value.is_string()));
    let fields = if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() };
    wit::Message { role: text("role"), content: text("content"), fields }
}

/// Converts sampling options of the guest.
pub(crate) fn sampling_from_wit(sampling: wit::Sampling) -> Sampling {
    Sampling {
        temperature: sampling.temperature,
        top_k: sampling.top_k as usize,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        typical_p: sampling.typical_p,
        repetition_penalty: sampling.repetition_penalty,
        repetition_window: sampling.repetition_window as usize,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        logit_bias: sampling.logit_bias.into_iter().collect::<HashMap<_, _>>(),
        banned_tokens: sampling.banned,
        seed: sampling.seed,
    }
}

/// Converts sampling options for the guest.
pub(crate) fn sampling_to_wit(sampling: &Sampling) -> wit::Sampling {
    wit::Sampling {
        temperature: sampling.temperature,
        top_k: sampling.top_k as u32,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        typical_p: sampling.typical_p,
        repetition_penalty: sampling.repetition_penalty,
        repetition_window: sampling.repetition_window as u32,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        logit_bias: sampling.logit_bias.iter().map(|(&token, &bias)| (token, bias)).collect(),
        banned: sampling.banned_tokens.clone(),
        seed: sampling.seed,
    }
}

/// Converts a grammar of the guest.
pub(crate) fn grammar_from_wit(grammar: wit::Grammar) -> Result<Grammar, Error> {
    Ok(match grammar {
        wit::Grammar::JsonSchema(schema) => Grammar::JsonSchema(json(&schema, "the JSON schema is no JSON")?),
        wit::Grammar::JsonObject => Grammar::JsonObject,
        wit::Grammar::Regex(expression) => Grammar::Regex(expression),
        wit::Grammar::Lark(grammar) => Grammar::Lark(grammar),
    })
}

/// Converts a grammar for the guest.
fn grammar_to_wit(grammar: &Grammar) -> Result<wit::Grammar, Error> {
    Ok(match grammar {
        Grammar::JsonSchema(schema) => wit::Grammar::JsonSchema(schema.to_string()),
        Grammar::JsonObject => wit::Grammar::JsonObject,
        Grammar::Regex(expression) => wit::Grammar::Regex(expression.clone()),
        Grammar::Lark(grammar) => wit::Grammar::Lark(grammar.clone()),
        _ => return Err(Error::new(ErrorKind::Unsupported, "programs cannot be given this kind of grammar")),
    })
}

impl From<Error> for wit::Error {
    fn from(error: Error) -> Self {
        use ErrorKind as K;
        let code = match error.kind() {
            K::InvalidArgument => wit::ErrorCode::InvalidArgument,
            K::LimitExceeded => wit::ErrorCode::LimitExceeded,
            K::Overloaded => wit::ErrorCode::Overloaded,
            K::Unsupported => wit::ErrorCode::Unsupported,
            K::NotFound => wit::ErrorCode::NotFound,
            K::Denied => wit::ErrorCode::Denied,
            K::Failed | K::Trap | K::InvalidProgram | K::Io | K::Cancelled => wit::ErrorCode::Failed,
            K::Internal => wit::ErrorCode::Internal,
        };
        Self { code, message: error.message().to_owned() }
    }
}

impl From<wit::Error> for Error {
    /// Converts a program's error. It keeps the program's code, but `internal` becomes `Failed`: only Realm
    /// reports failures of its own.
    fn from(error: wit::Error) -> Self {
        use wit::ErrorCode as C;
        let kind = match error.code {
            C::InvalidArgument => ErrorKind::InvalidArgument,
            C::LimitExceeded => ErrorKind::LimitExceeded,
            C::Overloaded => ErrorKind::Overloaded,
            C::Unsupported => ErrorKind::Unsupported,
            C::NotFound => ErrorKind::NotFound,
            C::Denied => ErrorKind::Denied,
            C::Failed | C::Internal => ErrorKind::Failed,
        };
        Self::new(kind, error.message)
    }
}
