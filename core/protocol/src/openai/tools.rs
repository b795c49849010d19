//! Tools, and the choice between them.

use realm::{Request, ToolChoice};
use serde_json::Value;

use crate::ApiError;
use crate::fields::Fields;

/// Reads `tools`, `tool_choice` and the fields that they replaced.
pub(super) fn read(fields: &mut Fields, request: &mut Request) -> Result<(), ApiError> {
    for (old, new) in [("functions", "tools"), ("function_call", "tool_choice")] {
        match fields.take(old) {
            None => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(_) => {
                let message = format!("{old} was replaced by `{new}`, which is supported");
                return Err(ApiError::unsupported(old, message));
            }
        }
    }
    let tools = fields.list("tools")?.unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        check(tool, &format!("tools[{index}]"))?;
    }
    request.tools = tools;
    let Some(choice) = fields.take("tool_choice") else { return Ok(()) };
    if choice["type"] == "allowed_tools" {
        return allowed(&choice, request);
    }
    let read = ToolChoice::try_from(&choice);
    request.tool_choice = read.map_err(|error| ApiError::from(error).param("tool_choice"))?;
    match &request.tool_choice {
        ToolChoice::Required | ToolChoice::Function(_) if request.tools.is_empty() => {
            Err(ApiError::invalid("tool_choice", "tool_choice asks for a call, and `tools` is empty"))
        }
        ToolChoice::Function(name) if !request.tools.iter().any(|tool| name_of(tool) == Some(name)) => {
            let message = format!("tool_choice names `{name}`, which is not among `tools`");
            Err(ApiError::invalid("tool_choice", message))
        }
        _ => Ok(()),
    }
}

fn check(tool: &Value, path: &str) -> Result<(), ApiError> {
    let wrong = |what: &str| Err(ApiError::invalid(path, format!("{path} {what}")));
    match tool["type"].as_str() {
        Some("function") => {}
        Some(other) => {
            let message = format!("{path} is of type `{other}`; only `function` is supported");
            return Err(ApiError::unsupported(path, message));
        }
        None => return wrong("needs a type, `function`"),
    }
    let function = &tool["function"];
    match (function["name"].as_str(), &function["parameters"]) {
        (None | Some(""), _) => wrong("needs a function with a name"),
        (_, Value::Object(_) | Value::Null) => Ok(()),
        _ => wrong("has parameters that are no JSON schema"),
    }
}

fn name_of(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str()
}

/// Restricts the tools: `{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}`.
fn allowed(choice: &Value, request: &mut Request) -> Result<(), ApiError> {
    let wrong = |message: &str| ApiError::invalid("tool_choice.allowed_tools", message);
    let allowed = &choice["allowed_tools"];
    request.tool_choice = match allowed["mode"].as_str() {
        Some("auto") => ToolChoice::Auto,
        Some("required") => ToolChoice::Required,
        _ => return Err(wrong("tool_choice.allowed_tools.mode must be `auto` or `required`")),
    };
    let names = allowed["tools"].as_array().map(|tools| tools.iter().map(name_of).collect::<Vec<_>>());
    let names = names.ok_or_else(|| wrong("tool_choice.allowed_tools.tools must be an array of tools"))?;
    if !names.iter().all(|name| name.is_some() && request.tools.iter().any(|tool| name_of(tool) == *name)) {
        return Err(wrong("tool_choice.allowed_tools.tools must name tools that are among `tools`"));
    }
    request.tools.retain(|tool| names.contains(&name_of(tool)));
    if request.tools.is_empty() && request.tool_choice == ToolChoice::Required {
        return Err(wrong("tool_choice.allowed_tools asks for a call and allows no tool"));
    }
    Ok(())
}
