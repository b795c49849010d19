//! Tools for models whose chat templates have no place for them: Realm describes the tools in words, and how
//! to call them. Calls and results of earlier turns are put into words where the prompt is rendered.

use realm_tokenizer::Conversation;
use serde_json::{Value, json};

/// Describes a conversation's tools in its system message.
pub(crate) fn instruct(conversation: &mut Conversation) {
    let tools = std::mem::take(&mut conversation.tools);
    let instructions = instructions(&tools);
    let messages = &mut conversation.messages;
    match messages.first_mut().and_then(Value::as_object_mut) {
        Some(first) if first.get("role").is_some_and(|role| role == "system" || role == "developer") => {
            let content = match first.get("content") {
                Some(Value::Array(parts)) => {
                    let more = json!({"type": "text", "text": instructions});
                    parts.iter().cloned().chain([more]).collect()
                }
                Some(Value::String(text)) if !text.is_empty() => format!("{text}\n\n{instructions}").into(),
                _ => instructions.into(),
            };
            first.insert("content".into(), content);
        }
        _ => messages.insert(0, json!({"role": "system", "content": instructions})),
    }
}

/// Returns the instructions for the model.
fn instructions(tools: &[Value]) -> String {
    let mut text =
        "# Tools\n\nYou can call these functions. Each line describes one of them in JSON:\n<tools>\n"
            .to_owned();
    for tool in tools {
        text += &format!("{tool}\n");
    }
    text += "</tools>\n\nTo call a function, answer with its name and its arguments as JSON between these tags, and nothing else:\n\
             <tool_call>\n{\"name\": \"the function's name\", \"arguments\": {\"argument\": \"value\"}}\n</tool_call>\n\
             The result comes between <tool_response> and </tool_response>. If no function helps, answer in words.";
    text
}

#[cfg(test)]
mod tests;
