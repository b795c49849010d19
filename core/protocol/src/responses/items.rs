//! A conversation's items as messages of chat completions.

use serde_json::{Value, json};

use crate::ApiError;
use crate::fields::Fields;

/// Returns the messages of a conversation.
pub(super) fn messages(
    instructions: Option<&str>,
    input: Option<Value>,
    ignored: &mut Vec<String>,
) -> Result<Vec<Value>, ApiError> {
    let mut out: Vec<Value> =
        instructions.iter().map(|text| json!({"role": "system", "content": text})).collect();
    match input {
        Some(Value::String(text)) => out.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) if !items.is_empty() => {
            let mut thought = String::new();
            for (index, item) in items.into_iter().enumerate() {
                self::item(item, &format!("input[{index}]"), &mut thought, &mut out, ignored)?;
            }
        }
        _ => {
            return Err(ApiError::invalid(
                "input",
                "input must be a string or an array of items, and not empty",
            ));
        }
    }
    Ok(out)
}

fn item(
    item: Value,
    path: &str,
    thought: &mut String,
    out: &mut Vec<Value>,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    let mut fields = Fields::of(item, path)?;
    let kind = fields.text("type")?.unwrap_or_else(|| "message".to_owned());
    match kind.as_str() {
        "message" => {
            let role = fields.text("role")?.unwrap_or_default();
            let content = fields.take("content").unwrap_or(Value::Null);
            // Answers are sent back as they came.
            fields.skip(&["id", "status", "phase"]);
            let mut message = json!({"role": role, "content": content});
            if role == "assistant" && !thought.is_empty() {
                message["reasoning_content"] = std::mem::take(thought).into();
            }
            out.push(message);
        }
        "reasoning" => {
            for part in fields.list("content")?.unwrap_or_default() {
                *thought += part["text"].as_str().unwrap_or_default();
            }
            fields.skip(&["id", "status", "summary", "encrypted_content"]);
        }
        "function_call" => {
            let text = |fields: &mut Fields, key: &str| {
                fields.text(key)?.ok_or_else(|| fields.invalid(key, "a string"))
            };
            let (id, name) = (text(&mut fields, "call_id")?, text(&mut fields, "name")?);
            let arguments = text(&mut fields, "arguments")?;
            fields.skip(&["id", "status", "namespace", "caller"]);
            let call =
                json!({"type": "function", "id": id, "function": {"name": name, "arguments": arguments}});
            called(call, thought, out);
        }
        "function_call_output" => {
            let id = fields.text("call_id")?.ok_or_else(|| fields.invalid("call_id", "a string"))?;
            let content = fields.take("output").unwrap_or_else(|| "".into());
            fields.skip(&["id", "status"]);
            out.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
        }
        "item_reference" => {
            let why = format!("{path} refers to an item, and this server keeps none; send the item itself");
            return Err(ApiError::unsupported(path, why));
        }
        _ => {
            let why = format!(
                "{path} is of type `{kind}`, which is not supported; there are `message`, `reasoning`, `function_call` and \
                 `function_call_output`"
            );
            return Err(ApiError::unsupported(path, why));
        }
    }
    fields.rest(ignored);
    Ok(())
}

/// Adds a call to the message of the model before it: templates want the calls of one turn in one message.
fn called(call: Value, thought: &mut String, out: &mut Vec<Value>) {
    let open = out.last_mut().filter(|message| message["role"] == "assistant");
    if let Some(message) = open {
        match message.get_mut("tool_calls").and_then(Value::as_array_mut) {
            Some(calls) => calls.push(call),
            None => message["tool_calls"] = json!([call]),
        }
        return;
    }
    let mut message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    if !thought.is_empty() {
        message["reasoning_content"] = std::mem::take(thought).into();
    }
    out.push(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_the_messages_that_templates_know() {
        let input = json!([
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Look."}]},
            {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "weather", "arguments": "{}", "status": "completed"},
            {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "snow"},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": "It snows.", "odd": 1},
        ]);
        let mut ignored = Vec::new();
        let messages = messages(Some("Be brief."), Some(input), &mut ignored).unwrap();
        let call = |id: &str| json!({"type": "function", "id": id, "function": {"name": "weather", "arguments": "{}"}});
        let expected = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")], "reasoning_content": "Look."},
            {"role": "tool", "tool_call_id": "a", "content": "snow"},
            {"role": "assistant", "content": "It snows."},
        ]);
        assert_eq!(Value::Array(messages), expected);
        assert_eq!(ignored, ["input[5].odd"]);
    }
}
