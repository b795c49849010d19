//! The choice of a model that has tools: it may, must or must not call them.

use std::fmt::Write;
use std::str::FromStr;

use realm_engine::Grammar;
use serde_json::{Value, json};

use super::spelling::{Forced, Form};
use super::{ToolSpelling, function_of, name_of};
use crate::Error;
use crate::error::ErrorCode;

/// The choice of a model that has tools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model calls tools or answers in words, as it likes.
    #[default]
    Auto,
    /// The model does not see the tools.
    None,
    /// The answer is one call of any tool, with arguments that the tool's schema allows.
    Required,
    /// The answer is one call of this tool, with arguments that its schema allows.
    Function(String),
}

impl TryFrom<&Value> for ToolChoice {
    type Error = Error;

    /// Parses OpenAI's `tool_choice`: `"auto"`, `"none"`, `"required"` or `{"type": "function", "function":
    /// {"name": …}}`.
    fn try_from(choice: &Value) -> Result<Self, Error> {
        match (choice.as_str(), name_of(choice)) {
            (Some("auto"), _) => Ok(Self::Auto),
            (Some("none"), _) => Ok(Self::None),
            (Some("required"), _) => Ok(Self::Required),
            (None, Some(name)) => Ok(Self::Function(name.to_owned())),
            _ => {
                let why = "tool_choice is `auto`, `none`, `required` or an object with the function's name: \
                           {\"type\": \"function\", \"function\": {\"name\": …}}";
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
    }
}

impl FromStr for ToolChoice {
    type Err = Error;

    /// Parses `auto`, `none`, `required`, or OpenAI's object as JSON.
    fn from_str(text: &str) -> Result<Self, Error> {
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        Self::try_from(&value)
    }
}

impl ToolChoice {
    /// Returns the grammar of the answer; `None` if it is free.
    pub(crate) fn grammar(&self, tools: &[Value], model: &ToolSpelling) -> Result<Option<Grammar>, Error> {
        let tools: Vec<&Value> = match self {
            Self::Auto | Self::None => return Ok(None),
            Self::Required => tools.iter().collect(),
            Self::Function(name) => tools.iter().filter(|tool| name_of(tool) == Some(name)).collect(),
        };
        let invalid = |why: &str| Error::new(ErrorCode::InvalidArgument, why);
        if tools.is_empty() {
            return Err(invalid("tool_choice asks for a call of a tool that `tools` does not define"));
        }
        lark(&tools, model).ok_or_else(|| invalid("a tool's definition has no name")).map(Some)
    }
}

/// Returns a grammar of one call.
fn lark(tools: &[&Value], model: &ToolSpelling) -> Option<Grammar> {
    let Forced { before, form, after } = &model.spelling.forced;
    let marks = |marks: &[&str]| marks.iter().map(|mark| piece(mark, model)).collect::<String>();
    let mut grammar = format!("start:{} call{}\n", marks(before), marks(after));
    let names: Vec<_> = (0..tools.len()).map(|i| format!("call_{i}")).collect();
    let _ = writeln!(grammar, "call: {}", names.join(" | "));
    for (rule, tool) in names.iter().zip(tools) {
        let name = name_of(tool)?;
        let schema = match &function_of(tool)["parameters"] {
            schema @ Value::Object(_) => schema.clone(),
            _ => json!({"type": "object"}),
        };
        let _ = match form {
            Form::Object(arguments) => {
                let head = format!("{{\"name\": {}, \"{arguments}\": ", Value::from(name));
                writeln!(grammar, "{rule}: {} %json {schema} \"}}\"", Value::from(head))
            }
            Form::Named(between) => {
                writeln!(grammar, "{rule}: {}{} %json {schema}", Value::from(name), marks(between))
            }
        };
    }
    Some(Grammar::Lark(grammar))
}

/// Returns a mark as the token that it is, or as text.
fn piece(mark: &str, model: &ToolSpelling) -> String {
    match model.control.iter().find(|(_, control)| *control == mark) {
        Some((id, _)) => format!(" <[{id}]>"),
        None => format!(" {}", Value::from(mark)),
    }
}
