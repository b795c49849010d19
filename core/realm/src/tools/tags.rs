//! Calls in tags: Qwen3-Coder's `<function=name><parameter=key>value</parameter></function>` and GLM's
//! `name<arg_key>key</arg_key><arg_value>value</arg_value>`.

use serde_json::Value;

use super::{Tool, ToolCall, json};

/// Parses a call; `None` if the text is not one.
pub(super) fn call(text: &str, tools: &[Tool]) -> Option<ToolCall> {
    let text = text.trim();
    match text.strip_prefix("<function=") {
        Some(function) => function_call(function, tools),
        None => pairs_call(text, tools),
    }
}

fn function_call(text: &str, tools: &[Tool]) -> Option<ToolCall> {
    let (name, mut rest) = text.split_once('>')?;
    let name = name.trim().trim_matches('"');
    let tool = tools.iter().find(|tool| tool.name == name);
    let body = rest.trim();
    if body.starts_with('{') {
        // Llama 3.1, if the prompt instructed it to call in tags.
        let arguments = json::object(body.strip_suffix("</function>").unwrap_or(body).trim())?;
        return named(name, arguments);
    }
    let mut arguments = Arguments::new();
    while let Some((before, after)) = rest.split_once("<parameter=") {
        if !before.trim().is_empty() {
            return None;
        }
        let (key, after) = after.split_once('>')?;
        let (text, after) = after.split_once("</parameter>")?;
        arguments.add(key.trim().trim_matches('"'), text, tool);
        rest = after;
    }
    let end = rest.trim();
    (end.is_empty() || end == "</function>").then(|| named(name, arguments.finish()))?
}

fn pairs_call(text: &str, tools: &[Tool]) -> Option<ToolCall> {
    let (name, mut rest) = text.split_at(text.find('<').unwrap_or(text.len()));
    let name = name.trim();
    let tool = tools.iter().find(|tool| tool.name == name);
    // A name alone is an ordinary word.
    if rest.is_empty() && tool.is_none() {
        return None;
    }
    let mut arguments = Arguments::new();
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix("<arg_key>")?.split_once("</arg_key>")?;
        let (text, after) = after.trim_start().strip_prefix("<arg_value>")?.split_once("</arg_value>")?;
        arguments.add(key.trim(), text, tool);
        rest = after.trim_start();
    }
    named(name, arguments.finish())
}

fn named(name: &str, arguments: String) -> Option<ToolCall> {
    let fine = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "<>{}".contains(c));
    fine.then(|| ToolCall::new(name.to_owned(), arguments, None))
}

/// An object under construction.
struct Arguments(String);

impl Arguments {
    fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a value. Tags have it as text; the tool's schema gives its type.
    fn add(&mut self, key: &str, text: &str, tool: Option<&Tool>) {
        if self.0.len() > 1 {
            self.0 += ", ";
        }
        self.0 += &Value::from(key).to_string();
        self.0 += ": ";
        let schema = tool.map_or(&Value::Null, |tool| &tool.parameters["properties"][key]);
        let text = text.strip_prefix('\n').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        self.0 += &value(text, schema);
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Returns a text as JSON of one of the types that the schema allows; as a string if it fits none of them.
fn value(text: &str, schema: &Value) -> String {
    let types = types(schema);
    let bare = text.trim();
    let python = match bare {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        _ => bare,
    };
    if let Ok(found) = serde_json::from_str::<Value>(python) {
        let kind = match found {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let allowed = |name: &&str| *name == kind || kind == "integer" && *name == "number";
        if kind != "string" && (types.is_empty() || types.iter().any(allowed)) {
            return python.to_owned();
        }
    }
    Value::from(text).to_string()
}

/// Returns the types that a schema names; empty if it allows any type, or is too complex.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => return vec![name],
        Value::Array(names) => return names.iter().filter_map(Value::as_str).collect(),
        _ => {}
    }
    if let Some(values) = schema["enum"].as_array()
        && values.iter().all(Value::is_string)
    {
        return vec!["string"];
    }
    let choices = [&schema["anyOf"], &schema["oneOf"]].into_iter().find_map(Value::as_array);
    let names = choices.into_iter().flatten().map(|choice| choice["type"].as_str());
    names.collect::<Option<Vec<_>>>().unwrap_or_default()
}
