//! OpenAI's `response_format`.

use realm_engine::Grammar;
use serde_json::{Map, Value};

use crate::Error;
use crate::error::ErrorCode;

/// Returns the grammar of a `response_format`; `None` for free text.
///
/// # Errors
/// `invalid-argument` for an unknown format, or an unknown key of one.
pub(crate) fn grammar(format: &Value) -> Result<Option<Grammar>, Error> {
    let Some(keys) = format.as_object() else {
        return Err(invalid("it is an object with a `type`: `text`, `json_object` or `json_schema`"));
    };
    let text = |key: &str| keys.get(key).and_then(Value::as_str);
    match text("type") {
        Some("text") => {
            known(keys, "", &["type"])?;
            Ok(None)
        }
        Some("json_object") => {
            known(keys, "", &["type", "schema"])?;
            match keys.get("schema") {
                None | Some(Value::Null) => Ok(Some(Grammar::JsonObject)),
                Some(value) => schema(value, "schema").map(Some),
            }
        }
        Some("json_schema") => {
            known(keys, "", &["type", "json_schema", "schema"])?;
            let Some(Value::Object(inner)) = keys.get("json_schema") else {
                // llama.cpp's server takes the schema itself here.
                return match keys.get("schema") {
                    Some(value) => schema(value, "schema").map(Some),
                    None => Err(invalid("it has no schema, which belongs in `json_schema.schema`")),
                };
            };
            known(inner, "json_schema.", &["name", "description", "schema", "strict"])?;
            for (key, fits) in [
                ("name", Value::is_string as fn(&Value) -> bool),
                ("description", Value::is_string),
                ("strict", Value::is_boolean),
            ] {
                if inner.get(key).is_some_and(|value| !fits(value) && !value.is_null()) {
                    let type_name = if key == "strict" { "true or false" } else { "a text" };
                    return Err(invalid(&format!("`json_schema.{key}` is {type_name}")));
                }
            }
            match inner.get("schema") {
                Some(value) => schema(value, "json_schema.schema").map(Some),
                None => Err(invalid("it has no schema, which belongs in `json_schema.schema`")),
            }
        }
        Some("regex") => Err(invalid("there is no type `regex`; the option `regex` takes the expression")),
        Some("grammar" | "gbnf" | "lark" | "ebnf") => Err(invalid(
            "there is no type for grammars; the option `grammar` (`lark` in Rust, C and Swift) takes one",
        )),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(invalid(&format!(
                "there is no type {other:?}; there are `text`, `json_object` and `json_schema`"
            )))
        }
        None => Err(invalid("it needs a `type`: `text`, `json_object` or `json_schema`")),
    }
}

fn schema(value: &Value, place: &str) -> Result<Grammar, Error> {
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(Grammar::JsonSchema(value.clone())),
        _ => Err(invalid(&format!("`{place}` is an object"))),
    }
}

fn known(keys: &Map<String, Value>, place: &str, names: &[&str]) -> Result<(), Error> {
    match keys.keys().find(|key| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let key: String = key.chars().take(40).collect();
            let names = names.join("`, `");
            Err(invalid(&format!("unknown key `{place}{key}`; there are `{names}`")))
        }
    }
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("response_format: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_are_read_to_the_last_key() {
        let object = json!({"type": "object"});
        for (format, wanted) in [
            (json!({"type": "text"}), None),
            (json!({"type": "json_object"}), Some(Grammar::JsonObject)),
            (json!({"type": "json_object", "schema": object}), Some(Grammar::JsonSchema(object.clone()))),
            (json!({"type": "json_schema", "schema": object}), Some(Grammar::JsonSchema(object.clone()))),
            (
                json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "description": "b", "schema": object}}),
                Some(Grammar::JsonSchema(object.clone())),
            ),
        ] {
            assert_eq!(grammar(&format).unwrap(), wanted, "{format}");
        }
        for (format, word) in [
            (json!("json_object"), "object"),
            (json!({}), "type"),
            (json!({"type": "xml"}), "xml"),
            (json!({"type": "regex", "regex": "a"}), "option `regex`"),
            (json!({"type": "grammar", "grammar": "a"}), "option `grammar`"),
            (json!({"type": "text", "schema": object}), "`schema`"),
            (json!({"type": "json_object", "shema": object}), "`shema`"),
            (json!({"type": "json_object", "schema": 3}), "`schema`"),
            (json!({"type": "json_schema"}), "json_schema.schema"),
            (json!({"type": "json_schema", "json_schema": {"name": "a"}}), "json_schema.schema"),
            (json!({"type": "json_schema", "json_schema": {"scheme": object}}), "json_schema.scheme"),
            (
                json!({"type": "json_schema", "json_schema": {"schema": object, "strict": "yes"}}),
                "json_schema.strict",
            ),
        ] {
            let error = grammar(&format).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("response_format"), "{format}: {error}");
        }
    }
}
