//! OpenAI's specification as schemas.

use serde_json::{Value, json};

/// Fails unless `value` matches the schema `name` of the specification.
pub(crate) fn check(name: &str, value: &Value) {
    check_in(include_str!("../openai-answers.json"), name, value);
}

/// Same as [`check`], for the schemas of responses and their events.
#[allow(dead_code, reason = "one test binary has responses")]
pub(crate) fn check_response(name: &str, value: &Value) {
    check_in(include_str!("../openai-responses.json"), name, value);
}

fn check_in(schemas: &str, name: &str, value: &Value) {
    let mut schema: Value = serde_json::from_str(schemas).unwrap();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$ref"] = json!(format!("#/components/schemas/{name}"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path)).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{value:#}");
}
