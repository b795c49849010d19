//! Messages of a conversation.

use realm::Message;
use serde_json::{Map, Value};

use crate::ApiError;
use crate::fields::Fields;

/// Reads messages for chat templates: `role`, `content` and other fields that a template may read. Fields
/// that clients add to messages that they send back, and null fields, are left out.
pub(super) fn read(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<Vec<Message>, ApiError> {
    let messages = fields.list("messages")?.ok_or_else(|| {
        ApiError::invalid(
            "messages",
            "messages is missing; it is an array of messages with a role and a content",
        )
    })?;
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "messages is empty; it needs at least one message"));
    }
    let each = |(index, value)| message(value, &format!("messages[{index}]"), ignored);
    messages.into_iter().enumerate().map(each).collect()
}

fn message(value: Value, path: &str, ignored: &mut Vec<String>) -> Result<Message, ApiError> {
    let mut fields = Fields::of(value, path)?;
    let role = fields.text("role")?.unwrap_or_default();
    if role == "function" {
        let message =
            format!("{path}.role is `function`, which OpenAI replaced by `tool` with a `tool_call_id`");
        return Err(ApiError::unsupported(format!("{path}.role"), message));
    }
    if !matches!(role.as_str(), "system" | "developer" | "user" | "assistant" | "tool") {
        return Err(fields.invalid("role", "`system`, `developer`, `user`, `assistant` or `tool`"));
    }
    if fields.take("function_call").is_some() {
        let message = format!("{path}.function_call was replaced by `tool_calls`");
        return Err(ApiError::unsupported(format!("{path}.function_call"), message));
    }
    let calls = tool_calls(&mut fields, path, ignored)?;
    let mut content = content(&mut fields, path, ignored)?;
    // A refusal was the model's answer.
    if let (Some(refusal), Value::Null) = (fields.text("refusal")?, &content) {
        content = Value::String(refusal);
    }
    if content.is_null() && role != "assistant" {
        return Err(fields.invalid("content", "a string or an array of parts"));
    }
    let mut message =
        Map::from_iter([("role".to_owned(), Value::String(role)), ("content".to_owned(), content)]);
    for key in ["name", "tool_call_id", "reasoning_content", "reasoning"] {
        if let Some(text) = fields.text(key)? {
            message.insert(key.to_owned(), Value::String(text));
        }
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    if fields.take("audio").is_some_and(|audio| audio.as_object().is_none_or(|audio| !audio.is_empty())) {
        let message = format!("{path}.audio is not supported: models here read text");
        return Err(ApiError::unsupported(format!("{path}.audio"), message));
    }
    // Sources of web searches, which answers carry.
    fields.skip(&["annotations"]);
    fields.rest(ignored);
    Ok(Message::from(Value::Object(message)))
}

/// Reads a text, parts, or null.
fn content(fields: &mut Fields, path: &str, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    match fields.take("content") {
        None => Ok(Value::Null),
        Some(Value::String(text)) => Ok(Value::String(text)),
        Some(Value::Array(parts)) => {
            let each = |(index, part)| self::part(part, &format!("{path}.content[{index}]"), ignored);
            parts.into_iter().enumerate().map(each).collect()
        }
        Some(_) => Err(fields.invalid("content", "a string or an array of parts")),
    }
}

/// Reads a part in the form of templates: `{"type": "text", "text": …}`.
fn part(part: Value, path: &str, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    let mut fields = match part {
        // vLLM and templates accept plain strings.
        Value::String(text) => return Ok(text_part(text)),
        part => Fields::of(part, path)?,
    };
    let kind = fields.text("type")?.unwrap_or_default();
    let text = match kind.as_str() {
        "text" | "input_text" | "output_text" => fields.text("text")?,
        "refusal" => fields.text("refusal")?,
        "image_url" | "input_audio" | "file" | "video_url" | "audio_url" | "image" | "input_image" => {
            let message = format!("{path} is of type `{kind}`, which the model can't read; it reads `text`");
            return Err(ApiError::unsupported(path, message));
        }
        _ => return Err(fields.invalid("type", "`text`")),
    };
    let text = text.ok_or_else(|| fields.invalid("text", "a string"))?;
    // Hints for caches of other vendors.
    fields.skip(&["cache_control", "annotations", "prompt_cache_breakpoint"]);
    fields.rest(ignored);
    Ok(text_part(text))
}

fn text_part(text: String) -> Value {
    serde_json::json!({"type": "text", "text": text})
}

/// Reads the calls of an earlier answer.
fn tool_calls(fields: &mut Fields, path: &str, ignored: &mut Vec<String>) -> Result<Vec<Value>, ApiError> {
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    let each = |(index, call)| {
        let path = format!("{path}.tool_calls[{index}]");
        let mut fields = Fields::of(call, &path)?;
        let kind = fields.text("type")?.unwrap_or_else(|| "function".to_owned());
        if kind != "function" {
            return Err(fields.invalid("type", "`function`"));
        }
        let id = fields.text("id")?;
        let function = fields.take("function").ok_or_else(|| fields.invalid("function", "an object"))?;
        // Chunks number their calls.
        fields.skip(&["index"]);
        fields.rest(ignored);
        let mut fields = Fields::of(function, &format!("{path}.function"))?;
        let name = fields.text("name")?.ok_or_else(|| fields.invalid("name", "a string"))?;
        let arguments = match fields.take("arguments") {
            None => Value::String("{}".to_owned()),
            // Some clients send a call without arguments as an empty text.
            Some(Value::String(text)) if text.trim().is_empty() => Value::String("{}".to_owned()),
            Some(arguments @ (Value::String(_) | Value::Object(_))) => arguments,
            Some(_) => return Err(fields.invalid("arguments", "a JSON object as text")),
        };
        fields.rest(ignored);
        let function = serde_json::json!({"name": name, "arguments": arguments});
        let mut call = serde_json::json!({"type": kind, "function": function});
        if let (Some(id), Some(call)) = (id, call.as_object_mut()) {
            call.insert("id".to_owned(), Value::String(id));
        }
        Ok(call)
    };
    calls.into_iter().enumerate().map(each).collect()
}
