//! Tool calls in text.

use realm_tenant::{Error, Message, Result};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) const OPEN: &str = "<tool_call>";
pub(crate) const CLOSE: &str = "</tool_call>";

/// A tool's name and its arguments, a JSON object.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) arguments: Value,
}

/// Returns the calls in a model's text; a malformed call gives an error that describes it.
pub(crate) fn parse(text: &str) -> Vec<Result<Call>> {
    let parts = text.split(OPEN).skip(1);
    let call = |part: &str| {
        let json = part.split(CLOSE).next().unwrap_or(part).trim();
        serde_json::from_str(json).map_err(|error| {
            Error::invalid(format!(
                "a call must be {{\"name\": …, \"arguments\": {{…}}}} between {OPEN} and {CLOSE}: {error}"
            ))
        })
    };
    parts.map(call).collect()
}

/// Makes the message of the model's turn for the conversation. Calls become `tool_calls`, because the marks
/// around them would be plain words in the content. If any call is malformed, the whole text stays content.
/// The first call has the number `first`.
pub(crate) fn message(text: &str, calls: &[Result<Call>], first: usize) -> Message {
    let calls: Option<Vec<_>> = calls.iter().map(|call| call.as_ref().ok()).collect();
    let Some(calls) = calls else { return Message::assistant(text) };
    let told = calls.iter().enumerate().map(|(at, Call { name, arguments })| {
        let function = json!({"name": name, "arguments": arguments.to_string()});
        json!({"id": id(first + at), "type": "function", "function": function})
    });
    let fields = json!({"tool_calls": told.collect::<Vec<_>>()}).to_string();
    let before = text.split(OPEN).next().unwrap_or_default().trim_end();
    Message { fields, ..Message::assistant(before) }
}

/// Returns the id of a call: nine letters and digits, as Mistral's templates require.
pub(crate) fn id(number: usize) -> String {
    format!("call{number:05}")
}

/// Returns a grammar of one call of one of these tools, which are defined in OpenAI's format.
///
/// # Errors
/// `invalid-argument` for definitions in another form, or none.
pub(crate) fn grammar(tools: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Tool {
        function: Function,
    }
    #[derive(Deserialize)]
    struct Function {
        name: String,
        #[serde(default)]
        parameters: Option<Value>,
    }
    let tools: Vec<Tool> = if tools.is_empty() { Vec::new() } else { serde_json::from_str(tools)? };
    if tools.is_empty() {
        return Err(Error::invalid("a tool call is required, and the conversation has no tools"));
    }
    let call = |Function { name, parameters }: Function| {
        json!({
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": parameters.unwrap_or(json!({"type": "object"}))},
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    };
    let calls: Vec<_> = tools.into_iter().map(|tool| call(tool.function)).collect();
    let schema = json!({"anyOf": calls, "x-guidance": {"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "}});
    Ok(format!("start: \"{OPEN}\\n\" call \"\\n{CLOSE}\"\ncall: %json {schema}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_in_what_was_said() {
        let text = "Let me look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>\n\
            <tool_call>{\"name\": \"b\"}</tool_call><tool_call>{nonsense";
        let calls = parse(text);
        assert_eq!(calls.len(), 3);
        assert_eq!(calls[0], Ok(Call { name: "a".into(), arguments: json!({"x": 1}) }));
        assert_eq!(calls[1].as_ref().unwrap().name, "b");
        assert!(calls[2].as_ref().unwrap_err().message.contains("</tool_call>"));
        assert!(parse("It is sunny.").is_empty());
    }

    #[test]
    fn what_was_said_is_told_with_its_calls() {
        let said = |text: &str| message(text, &parse(text), 3);
        let told =
            said("Let me look.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>");
        assert_eq!(told.content, "Let me look.");
        let fields: Value = serde_json::from_str(&told.fields).unwrap();
        let function = json!({"name": "a", "arguments": "{\"x\":1}"});
        assert_eq!(
            fields["tool_calls"],
            json!([{"id": "call00003", "type": "function", "function": function}])
        );
        let broken = said("<tool_call>{nonsense</tool_call>");
        assert_eq!(
            (broken.content.as_str(), broken.fields.as_str()),
            ("<tool_call>{nonsense</tool_call>", "")
        );
    }

    #[test]
    fn tools_that_are_none_are_refused() {
        assert!(grammar("").is_err() && grammar("[]").is_err() && grammar("[{\"name\": \"x\"}]").is_err());
        let tools = r#"[{"type": "function", "function": {"name": "now"}}]"#;
        assert!(grammar(tools).unwrap().contains(r#""const":"now""#));
    }
}
