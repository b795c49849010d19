//! Converts conversations in OpenAI's format to the form that a template accepts.

use serde_json::{Map, Value, json};

use super::Capabilities;
use crate::Error;
use crate::python_json::dumps;

/// Separator between a system message and the user's words behind it, and between joined messages.
const BETWEEN: &str = "\n\n";

/// Converts messages to the form that the template accepts.
///
/// # Errors
/// A message that is not an object, or parts that are not text.
pub(super) fn shape(messages: &[Value], takes: &Capabilities) -> Result<Vec<Value>, Error> {
    let mut shaped = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        let Value::Object(message) = message else {
            let why = format!("messages[{at}] is no object; one with `role` and `content` is needed");
            return Err(Error::Conversation(why));
        };
        let mut message = message.clone();
        with_text(&mut message, at)?;
        if message.get("role").is_some_and(|role| role == "developer") && !takes.developer {
            message.insert("role".into(), "system".into());
        }
        with_calls(&mut message, takes);
        with_result(&mut message, takes);
        with_content(&mut message, takes);
        shaped.push(message);
    }
    if !takes.system {
        shaped = without_system(shaped);
    }
    if takes.alternating {
        shaped = alternating(shaped);
    }
    let mut shaped: Vec<_> = shaped.into_iter().map(Value::Object).collect();
    if takes.parts && !takes.text {
        shaped.iter_mut().for_each(as_parts);
    }
    Ok(shaped)
}

/// Checks that `content` has only text parts, and writes them in one form.
fn with_text(message: &mut Map<String, Value>, at: usize) -> Result<(), Error> {
    let Some(Value::Array(parts)) = message.get_mut("content") else { return Ok(()) };
    for (number, part) in parts.iter_mut().enumerate() {
        let kind = part["type"].as_str().unwrap_or("text");
        let key = if kind == "refusal" { "refusal" } else { "text" };
        let text = match (kind, part.as_str()) {
            (_, Some(text)) => text.to_owned(),
            ("text" | "input_text" | "output_text" | "refusal", None) => match part[key].as_str() {
                Some(text) => text.to_owned(),
                None => {
                    let why = format!("messages[{at}].content[{number}] has no `{key}`");
                    return Err(Error::Conversation(why));
                }
            },
            _ => {
                let why = format!(
                    "messages[{at}].content[{number}] is of type `{kind}`: the model reads text alone; leave that part out"
                );
                return Err(Error::Conversation(why));
            }
        };
        // A part may have further fields, such as `cache_control`.
        if part["type"] != "text" || part["text"].as_str() != Some(&text) {
            *part = json!({"type": "text", "text": text});
        }
    }
    Ok(())
}

/// Returns the text of a `content`: parts are joined by line breaks, as in llama.cpp and vLLM.
fn text_of(content: Option<&Value>) -> Option<String> {
    match content? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<_> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            Some(texts.join("\n"))
        }
        _ => None,
    }
}

fn with_content(message: &mut Map<String, Value>, takes: &Capabilities) {
    match message.get("content") {
        Some(Value::Array(_)) if !takes.parts || message.get("role").is_some_and(|role| role == "tool") => {
            let text = text_of(message.get("content"));
            message.insert("content".into(), text.into());
        }
        Some(Value::Null) if !takes.null_content => {
            message.insert("content".into(), "".into());
        }
        None if !takes.null_content && message.contains_key("tool_calls") => {
            message.insert("content".into(), "".into());
        }
        _ => {}
    }
}

/// Converts arguments of calls to objects or strings, depending on the template; for a template without tool
/// calls, calls become text.
fn with_calls(message: &mut Map<String, Value>, takes: &Capabilities) {
    let Some(Value::Array(calls)) = message.get_mut("tool_calls") else { return };
    if calls.is_empty() {
        return;
    }
    for call in calls.iter_mut() {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        match arguments {
            Value::String(text) if !takes.text_arguments => {
                let parsed = serde_json::from_str::<Value>(text).ok();
                if let Some(object @ Value::Object(_)) = parsed {
                    *arguments = object;
                }
            }
            Value::Object(_) if takes.text_arguments && !takes.object_arguments => {
                *arguments = dumps(arguments).into();
            }
            _ => {}
        }
    }
    if takes.tool_calls {
        return;
    }
    let spelled: Vec<_> = calls
        .iter()
        .map(|call| {
            let function = call.get("function").unwrap_or(call);
            let call = json!({"name": function["name"], "arguments": function["arguments"]});
            format!("<tool_call>\n{}\n</tool_call>", dumps(&call))
        })
        .collect();
    let text = text_of(message.get("content")).filter(|text| !text.is_empty());
    let text = text.into_iter().chain(spelled).collect::<Vec<_>>().join("\n");
    message.remove("tool_calls");
    message.insert("content".into(), text.into());
}

/// Converts a tool's result to a user message if the template does not know the role.
fn with_result(message: &mut Map<String, Value>, takes: &Capabilities) {
    let tool = message.get("role").is_some_and(|role| role == "tool" || role == "function");
    if !tool || takes.tool_role {
        return;
    }
    let text = text_of(message.get("content")).unwrap_or_default();
    message.insert("role".into(), "user".into());
    message.insert("content".into(), format!("<tool_response>\n{text}\n</tool_response>").into());
}

/// Puts each system message before the next user message, or makes it a user message if none follows.
fn without_system(messages: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
    let mut out: Vec<Map<String, Value>> = Vec::with_capacity(messages.len());
    let mut pending: Option<String> = None;
    let user = |text: String| {
        Map::from_iter([("role".to_owned(), Value::from("user")), ("content".to_owned(), Value::from(text))])
    };
    for mut message in messages {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        if role == "system" {
            let text = text_of(message.get("content")).unwrap_or_default();
            pending = Some(match pending {
                Some(before) => before + BETWEEN + &text,
                None => text,
            });
            continue;
        }
        match pending.take() {
            Some(system) if role == "user" => {
                let text = text_of(message.get("content")).unwrap_or_default();
                message.insert("content".into(), (system + BETWEEN + &text).into());
            }
            Some(system) => out.push(user(system)),
            None => {}
        }
        out.push(message);
    }
    out.extend(pending.map(user));
    out
}

/// Joins consecutive messages of one role.
fn alternating(messages: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
    let mut out: Vec<Map<String, Value>> = Vec::with_capacity(messages.len());
    for message in messages {
        let joins = |message: &Map<String, Value>| {
            let role = message.get("role").and_then(Value::as_str);
            matches!(role, Some("user" | "assistant")) && !message.contains_key("tool_calls")
        };
        match out.last_mut() {
            Some(last) if last.get("role") == message.get("role") && joins(last) && joins(&message) => {
                let texts =
                    [&*last, &message].map(|message| text_of(message.get("content")).unwrap_or_default());
                last.insert("content".into(), texts.join(BETWEEN).into());
            }
            _ => out.push(message),
        }
    }
    out
}

/// Converts `content` to a list of parts.
fn as_parts(message: &mut Value) {
    if let Some(content) = message.get_mut("content")
        && content.is_string()
    {
        *content = json!([{"type": "text", "text": content.take()}]);
    }
}
