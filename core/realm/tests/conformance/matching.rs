//! Compares results with the expectations of scenarios.

use std::collections::HashMap;

use serde_json::Value;

/// Returns `value` with every `{"$ref": "name.key.0"}` replaced by the part of a kept result that it names.
pub(crate) fn resolve(value: &Value, kept: &HashMap<String, Value>) -> Result<Value, String> {
    match value {
        Value::Object(map) if map.len() == 1 && map.contains_key("$ref") => {
            let path = map["$ref"].as_str().ok_or("a `$ref` that is no text")?;
            let mut parts = path.split('.');
            let name = parts.next().unwrap_or_default();
            let mut at = kept.get(name).ok_or_else(|| format!("nothing was kept as `{name}`"))?;
            for part in parts {
                let found = match part.parse::<usize>() {
                    Ok(index) => at.get(index),
                    Err(_) => at.get(part),
                };
                at = found.ok_or_else(|| format!("`{path}` leads nowhere"))?;
            }
            Ok(at.clone())
        }
        // An expectation may refer to this step's own result, so it is resolved later.
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| *key != "expect")
            .map(|(key, value)| Ok((key.clone(), resolve(value, kept)?)))
            .collect::<Result<serde_json::Map<_, _>, _>>()
            .map(Value::Object),
        Value::Array(items) => items.iter().map(|item| resolve(item, kept)).collect(),
        other => Ok(other.clone()),
    }
}

/// Returns where `found` differs from the description `wanted`; `None` if it does not.
pub(crate) fn mismatch(found: &Value, wanted: &Value) -> Option<String> {
    match wanted {
        Value::Object(map) if map.keys().any(|key| key.starts_with('$')) => {
            map.iter().find_map(|(name, argument)| special(found, name, argument))
        }
        Value::Object(map) => map.iter().find_map(|(key, wanted)| match found.get(key) {
            Some(found) => mismatch(found, wanted).map(|why| format!(".{key}{why}")),
            None => Some(format!(": {found} has no `{key}`")),
        }),
        Value::Array(wanted) => {
            let Some(found) = found.as_array() else { return Some(format!(": {found} is no list")) };
            if found.len() != wanted.len() {
                return Some(format!(": {} items and not {}: {found:?}", found.len(), wanted.len()));
            }
            let mut pairs = found.iter().zip(wanted).enumerate();
            pairs.find_map(|(i, (found, wanted))| mismatch(found, wanted).map(|why| format!("[{i}]{why}")))
        }
        _ => {
            let same = match (found.as_f64(), wanted.as_f64()) {
                (Some(found), Some(wanted)) => found == wanted,
                _ => found == wanted,
            };
            (!same).then(|| format!(": {found} and not {wanted}"))
        }
    }
}

fn special(found: &Value, name: &str, argument: &Value) -> Option<String> {
    let number = found.as_f64().unwrap_or(f64::NAN);
    let than = argument.as_f64().unwrap_or(f64::NAN);
    let items = || found.as_array().map(Vec::as_slice).unwrap_or_default();
    let holds = match name {
        "$at_least" => number >= than,
        "$at_most" => number <= than,
        "$near" => (number - than).abs() <= 1e-3 * than.abs().max(1.0),
        "$contains" => match (found, argument) {
            (Value::String(text), Value::String(part)) => text.contains(part),
            _ => items().iter().any(|item| mismatch(item, argument).is_none()),
        },
        "$length" => found.as_str().map_or(items().len(), |text| text.chars().count()) as f64 == than,
        "$norm" => {
            let squares: f64 = items().iter().filter_map(Value::as_f64).map(|value| value * value).sum();
            (squares.sqrt() - than).abs() <= 1e-3
        }
        "$starts" => {
            let wanted = argument.as_array().map(Vec::as_slice).unwrap_or_default();
            let first = items().get(..wanted.len()).unwrap_or_default().to_vec();
            return mismatch(&first.into(), argument);
        }
        "$not" => mismatch(found, argument).is_some(),
        "$json" => {
            return match serde_json::from_str(found.as_str().unwrap_or_default()) {
                Ok(value) => mismatch(&value, argument),
                Err(error) => Some(format!(": {found} is no JSON: {error}")),
            };
        }
        _ => return Some(format!(": there is no matcher `{name}`")),
    };
    (!holds).then(|| format!(": {} is not {name} {argument}", short(found)))
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(400).collect()
}
