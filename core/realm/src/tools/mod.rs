//! Tools that a model may call: the spelling of its calls, and the rules for them.
//!
//! A model was trained on one spelling, which its chat template shows. The answer of a request with tools is
//! read in that spelling as it arrives ([`ToolStream`]), and in fences and bare JSON, which models of every
//! kind write. A request may also force a call, by a grammar of that spelling ([`ToolChoice`]). If the
//! template has no place for tools, Realm describes them to the model in words ([`instruct`]).

mod choice;
mod gemma;
mod instructions;
mod json;
mod likely;
mod python;
mod scan;
mod spelling;
mod stream;
mod tags;

use std::hash::{BuildHasher, RandomState};

use serde_json::Value;

pub use choice::ToolChoice;
pub(crate) use instructions::instruct;
pub(crate) use spelling::ToolSpelling;
pub(crate) use stream::ToolStream;

/// A tool call that the model asks for. Realm does not run it: run the tool, append the model's message with
/// its `tool_calls` and a message of the role `tool` with the result, and ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The id that the result refers to: nine letters and digits, as Mistral's templates demand, unless the
    /// model gave one.
    pub id: String,
    /// The tool's name. The model may make up a name that no tool has.
    pub name: String,
    /// The arguments: a JSON object, as the model spelled it. Realm does not check it against the tool's
    /// schema.
    pub arguments: String,
}

impl ToolCall {
    fn new(name: String, arguments: String, id: Option<String>) -> Self {
        Self { id: id.unwrap_or_else(new_id), name, arguments }
    }
}

/// Returns an id that no other call of a conversation has.
fn new_id() -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    // The keys of the standard library's hashes are random.
    let mut number = RandomState::new().hash_one(0u8);
    let digit = |_| {
        let digit = DIGITS[(number % DIGITS.len() as u64) as usize];
        number /= DIGITS.len() as u64;
        char::from(digit)
    };
    (0..9).map(digit).collect()
}

/// The part of a tool's definition that parsing calls needs.
#[derive(Debug, Clone)]
struct Tool {
    name: String,
    /// The schema of its arguments; null if it has none.
    parameters: Value,
}

impl Tool {
    fn of(definition: &Value) -> Option<Self> {
        let name = name_of(definition)?.to_owned();
        Some(Self { name, parameters: function_of(definition)["parameters"].clone() })
    }
}

/// Returns the name in a tool's definition in OpenAI's format, wrapped in `function` or not.
pub(crate) fn name_of(definition: &Value) -> Option<&str> {
    function_of(definition)["name"].as_str()
}

fn function_of(definition: &Value) -> &Value {
    definition.get("function").filter(|function| function.is_object()).unwrap_or(definition)
}

#[cfg(test)]
mod tests;
