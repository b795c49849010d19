//! Tools that a model may call: how it spells the calls, and what it has to do about them.
//!
//! A model was trained on one spelling, and its chat template shows which. What a request with tools generates is read in
//! that spelling while it comes ([`ToolStream`]), and in fences and bare JSON, which models of every kind write; a request may
//! also force a call, by a grammar of that spelling ([`ToolChoice`]). Where the template knows no tools, the model is told of
//! them in words ([`instruct`]).

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

/// A call of a tool that the model asks for. Realm calls nothing: run it, append the model's message with its `tool_calls`
/// and one of the role `tool` with the result, and ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// What the result names it by: nine letters and digits, as Mistral's templates demand, unless the model gave one.
    pub id: String,
    /// The tool's name. Nothing but the prompt keeps a model from making one up.
    pub name: String,
    /// The arguments: a JSON object, spelled as the model did. Whether it fits the tool's schema is not checked.
    pub arguments: String,
}

impl ToolCall {
    fn new(name: String, arguments: String, id: Option<String>) -> Self {
        Self { id: id.unwrap_or_else(new_id), name, arguments }
    }
}

/// An id that no other call of a conversation has.
fn new_id() -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    // The keys of std's hashes are random.
    let mut number = RandomState::new().hash_one(0u8);
    let digit = |_| {
        let digit = DIGITS[(number % DIGITS.len() as u64) as usize];
        number /= DIGITS.len() as u64;
        char::from(digit)
    };
    (0..9).map(digit).collect()
}

/// What reading calls takes of a tool's definition.
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

/// The name in a tool's definition in OpenAI's format, wrapped in `function` or not.
pub(crate) fn name_of(definition: &Value) -> Option<&str> {
    function_of(definition)["name"].as_str()
}

fn function_of(definition: &Value) -> &Value {
    definition.get("function").filter(|function| function.is_object()).unwrap_or(definition)
}

#[cfg(test)]
mod tests;
