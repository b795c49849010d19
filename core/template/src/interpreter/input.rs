//! Converts the caller's values to the template's.

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use crate::Input;
use crate::error::{Result, fault};
use crate::text::Text;
use crate::value::{Dict, Key, Value, input_list};

/// Most characters of a role that counts as the template's text.
const ROLE_LIMIT: usize = 32;

/// Returns the variable named `name`, if the input has it.
pub(super) fn variable(input: &Input<'_>, name: &str) -> Result<Option<Value>> {
    if let Some(value) = input.trusted.get(name) {
        return convert(value, false, 0).map(Some);
    }
    let Some(value) = input.foreign.get(name) else { return Ok(None) };
    match value {
        Json::Array(messages) if name == "messages" => {
            let messages = messages.iter().map(|message| match message {
                Json::Object(message) => object(message, true, 1, true),
                other => convert(other, true, 1),
            });
            input_list(messages.collect::<Result<_>>()?).map(Some)
        }
        other => convert(other, true, 0).map(Some),
    }
}

/// Returns whether a role is a plain word, which cannot spell a control token by itself.
fn is_plain_role(role: &str) -> bool {
    (1..=ROLE_LIMIT).contains(&role.len())
        && role.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn object(map: &Map<String, Json>, foreign: bool, depth: u32, message: bool) -> Result<Value> {
    let mut entries = IndexMap::with_capacity(map.len());
    for (key, value) in map {
        let value = match value {
            Json::String(role) if message && key == "role" && is_plain_role(role) => {
                Value::Str(Text::template(role))
            }
            other => convert(other, foreign, depth + 1)?,
        };
        entries.insert(Key::text(Text::new(key, foreign)), value);
    }
    Dict::of_input(entries)
}

fn convert(value: &Json, foreign: bool, depth: u32) -> Result<Value> {
    if depth > 150 {
        return Err(fault("the conversation's values stand too deep inside each other"));
    }
    Ok(match value {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::Int(n.into()),
            (_, Some(n)) => Value::Int(n.into()),
            _ => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Str(Text::new(text, foreign)),
        Json::Array(items) => {
            let items = items.iter().map(|item| convert(item, foreign, depth + 1));
            input_list(items.collect::<Result<_>>()?)?
        }
        Json::Object(map) => object(map, foreign, depth, false)?,
    })
}
