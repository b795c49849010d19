//! Messages and their blocks, as chat templates read them.

use serde_json::{Map, Value, json};

use crate::ApiError;
use crate::fields::Fields;

/// The beginning of a system text that Claude Code puts before all others. It changes with every request, so
/// no prompt would begin like the one before it, and the prefix cache would never help.
const BILLING: &str = "x-anthropic-billing-header:";

/// Reads `system`: a text, or blocks of text.
pub(super) fn system(value: Option<Value>, ignored: &mut Vec<String>) -> Result<Vec<Value>, ApiError> {
    let blocks = match value {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(blocks)) => {
            let mut texts = Vec::new();
            for (index, block) in blocks.into_iter().enumerate() {
                let path = format!("system[{index}]");
                let text = text(block, &path, ignored)?;
                if text.starts_with(BILLING) {
                    ignored.push(path);
                } else {
                    texts.push(text);
                }
            }
            texts
        }
        Some(_) => {
            return Err(ApiError::invalid("system", "system must be a string or an array of text blocks"));
        }
    };
    let text = blocks.join("\n\n");
    Ok(if text.is_empty() { Vec::new() } else { vec![json!({"role": "system", "content": text})] })
}

/// Reads a block that has to be text.
fn text(block: Value, path: &str, ignored: &mut Vec<String>) -> Result<String, ApiError> {
    let mut fields = Fields::of(block, path)?;
    if fields.text("type")?.as_deref() != Some("text") {
        return Err(fields.invalid("type", "`text`"));
    }
    let text = fields.text("text")?.ok_or_else(|| fields.invalid("text", "a string"))?;
    rest(fields, ignored);
    Ok(text)
}

/// Notes the fields of a block that are left. Marks for a cache have no effect: prompts that begin alike are
/// found in any case.
fn rest(mut fields: Fields, ignored: &mut Vec<String>) {
    fields.skip(&["cache_control", "citations"]);
    fields.rest(ignored);
}

/// Reads a message, and adds the messages that it is for a template: results of tools are messages of their
/// own there.
pub(super) fn message(
    value: Value,
    path: &str,
    out: &mut Vec<Value>,
    ignored: &mut Vec<String>,
) -> Result<(), ApiError> {
    let mut fields = Fields::of(value, path)?;
    let role = fields.text("role")?.unwrap_or_default();
    if !matches!(role.as_str(), "user" | "assistant" | "system") {
        return Err(fields.invalid("role", "`user` or `assistant`"));
    }
    let blocks = match fields.take("content") {
        Some(Value::String(text)) => {
            fields.rest(ignored);
            out.push(json!({"role": role, "content": text}));
            return Ok(());
        }
        Some(Value::Array(blocks)) => blocks,
        _ => return Err(fields.invalid("content", "a string or an array of blocks")),
    };
    fields.rest(ignored);
    let mut message = Turn { role, ..Turn::default() };
    for (index, block) in blocks.into_iter().enumerate() {
        message.block(block, &format!("{path}.content[{index}]"), out, ignored)?;
    }
    message.end(out);
    Ok(())
}

/// The parts of a message so far.
#[derive(Default)]
struct Turn {
    role: String,
    texts: Vec<String>,
    thought: String,
    calls: Vec<Value>,
    /// True if the message had blocks that became messages.
    split: bool,
}

impl Turn {
    fn block(
        &mut self,
        block: Value,
        path: &str,
        out: &mut Vec<Value>,
        ignored: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let kind = block["type"].as_str().unwrap_or_default().to_owned();
        let assistant = self.role == "assistant";
        match kind.as_str() {
            "text" => self.texts.push(text(block, path, ignored)?),
            "thinking" if assistant => {
                let mut fields = Fields::of(block, path)?;
                self.thought += &fields.text("thinking")?.unwrap_or_default();
                fields.skip(&["type", "signature"]);
                rest(fields, ignored);
            }
            // Only Anthropic can read it.
            "redacted_thinking" if assistant => ignored.push(path.to_owned()),
            "tool_use" if assistant => {
                let mut fields = Fields::of(block, path)?;
                let id = fields.text("id")?.ok_or_else(|| fields.invalid("id", "a string"))?;
                let name = fields.text("name")?.ok_or_else(|| fields.invalid("name", "a string"))?;
                let input = fields.object("input")?.unwrap_or_default();
                fields.skip(&["type", "caller"]);
                rest(fields, ignored);
                let function = json!({"name": name, "arguments": input});
                self.calls.push(json!({"type": "function", "id": id, "function": function}));
            }
            "tool_result" if self.role == "user" => {
                // What was said before a result comes before it.
                self.say(out);
                out.push(result(block, path, ignored)?);
                self.split = true;
            }
            _ => {
                let why = format!(
                    "{path} is of type `{kind}`, which the model can't read; there are `text`, `thinking`, `tool_use` and \
                     `tool_result`"
                );
                return Err(ApiError::unsupported(path, why));
            }
        }
        Ok(())
    }

    /// Adds the texts so far as a message.
    fn say(&mut self, out: &mut Vec<Value>) {
        if !self.texts.is_empty() {
            let text = std::mem::take(&mut self.texts).join("\n");
            out.push(json!({"role": self.role, "content": text}));
        }
    }

    fn end(mut self, out: &mut Vec<Value>) {
        if self.calls.is_empty() && self.thought.is_empty() {
            if self.texts.is_empty() && !self.split {
                self.texts.push(String::new());
            }
            return self.say(out);
        }
        let content = if self.texts.is_empty() { Value::Null } else { self.texts.join("\n").into() };
        let mut message =
            Map::from_iter([("role".to_owned(), self.role.into()), ("content".to_owned(), content)]);
        if !self.thought.is_empty() {
            message.insert("reasoning_content".to_owned(), self.thought.into());
        }
        if !self.calls.is_empty() {
            message.insert("tool_calls".to_owned(), self.calls.into());
        }
        out.push(message.into());
    }
}

/// Reads the result of a tool.
fn result(block: Value, path: &str, ignored: &mut Vec<String>) -> Result<Value, ApiError> {
    let mut fields = Fields::of(block, path)?;
    let id = fields.text("tool_use_id")?.ok_or_else(|| fields.invalid("tool_use_id", "a string"))?;
    let content = match fields.take("content") {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(blocks)) => {
            let each = |(index, block)| text(block, &format!("{path}.content[{index}]"), ignored);
            blocks.into_iter().enumerate().map(each).collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        Some(_) => return Err(fields.invalid("content", "a string or an array of text blocks")),
    };
    let failed = fields.flag("is_error")?.unwrap_or(false);
    fields.skip(&["type"]);
    rest(fields, ignored);
    let content = if failed { format!("Error: {content}") } else { content };
    Ok(json!({"role": "tool", "tool_call_id": id, "content": content}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(said: Value) -> (Vec<Value>, Vec<String>) {
        let (mut out, mut ignored) = (Vec::new(), Vec::new());
        message(said, "messages[0]", &mut out, &mut ignored).unwrap();
        (out, ignored)
    }

    #[test]
    fn results_of_tools_become_messages_in_their_place() {
        let said = json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "snow"}]},
            {"type": "tool_result", "tool_use_id": "b", "content": "no such city", "is_error": true},
            {"type": "text", "text": "And now?", "cache_control": {"type": "ephemeral"}},
        ]});
        let expected = [
            json!({"role": "tool", "tool_call_id": "a", "content": "snow"}),
            json!({"role": "tool", "tool_call_id": "b", "content": "Error: no such city"}),
            json!({"role": "user", "content": "And now?"}),
        ];
        assert_eq!(read(said), (expected.to_vec(), Vec::new()));
    }

    #[test]
    fn calls_and_thoughts_of_the_model_stay_one_message() {
        let said = json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Let me look.", "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Paris"}},
        ]});
        let call = json!({"type": "function", "id": "a", "function": {"name": "weather", "arguments": {"city": "Paris"}}});
        let expected = json!({"role": "assistant", "content": "I look.", "reasoning_content": "Let me look.", "tool_calls": [call]});
        assert_eq!(read(said), (vec![expected], Vec::new()));
    }

    #[test]
    fn headers_that_change_with_each_request_stay_out_of_prompts() {
        let mut ignored = Vec::new();
        let blocks = json!([
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=00000;"},
            {"type": "text", "text": "You are brief."},
        ]);
        let messages = system(Some(blocks), &mut ignored).unwrap();
        assert_eq!(messages, [json!({"role": "system", "content": "You are brief."})]);
        assert_eq!(ignored, ["system[0]"]);
    }
}
