//! Grammars that guide a text.

use realm::{Grammar, Request};
use serde_json::Value;

use crate::ApiError;
use crate::fields::Fields;

/// Reads OpenAI's `response_format`, and the guides of vLLM, llama.cpp and Realm.
pub(super) fn read(fields: &mut Fields, request: &mut Request) -> Result<(), ApiError> {
    if let Some(format) = fields.take("response_format") {
        let name = fields.name("response_format");
        let guided = request.clone().response_format(&format);
        *request = guided.map_err(|error| ApiError::from(error).param(name))?;
    }
    if let Some(schema) = fields.take("guided_json") {
        let name = fields.name("guided_json");
        set(request, &name, Grammar::JsonSchema(schema_of(schema, &name)?))?;
    }
    texts(fields, request, "guided_regex", Grammar::Regex)?;
    texts(fields, request, "guided_grammar", Grammar::Lark)?;
    choices(fields, request, "guided_choice")?;
    fields.skip(&["guided_decoding_backend", "guided_whitespace_pattern"]);
    if let Some(outputs) = fields.object("structured_outputs")? {
        let mut outputs = Fields::new(outputs, "structured_outputs.");
        if let Some(schema) = outputs.take("json") {
            let name = outputs.name("json");
            set(request, &name, Grammar::JsonSchema(schema_of(schema, &name)?))?;
        }
        if outputs.flag("json_object")? == Some(true) {
            set(request, &outputs.name("json_object"), Grammar::JsonObject)?;
        }
        texts(&mut outputs, request, "regex", Grammar::Regex)?;
        texts(&mut outputs, request, "grammar", Grammar::Lark)?;
        choices(&mut outputs, request, "choice")?;
        super::options::refuse(&mut outputs, "structural_tag", &[])?;
    }
    own(fields, request)
}

/// Reads the guides under Realm's names.
pub(super) fn own(fields: &mut Fields, request: &mut Request) -> Result<(), ApiError> {
    if let Some(schema) = fields.take("json_schema") {
        let name = fields.name("json_schema");
        set(request, &name, Grammar::JsonSchema(schema_of(schema, &name)?))?;
    }
    if fields.flag("json")? == Some(true) {
        set(request, &fields.name("json"), Grammar::JsonObject)?;
    }
    texts(fields, request, "regex", Grammar::Regex)?;
    texts(fields, request, "grammar", Grammar::Lark)
}

fn texts(
    fields: &mut Fields,
    request: &mut Request,
    key: &str,
    guide: fn(String) -> Grammar,
) -> Result<(), ApiError> {
    // llama.cpp's web page sends an empty grammar for none.
    match fields.text(key)? {
        Some(text) if !text.is_empty() => set(request, &fields.name(key), guide(text)),
        _ => Ok(()),
    }
}

/// Reads a list of texts, one of which the answer has to be.
fn choices(fields: &mut Fields, request: &mut Request, key: &str) -> Result<(), ApiError> {
    let Some(list) = fields.list(key)? else { return Ok(()) };
    if list.is_empty() || !list.iter().all(Value::is_string) {
        return Err(fields.invalid(key, "an array of at least one string"));
    }
    let quoted: Vec<_> = list.iter().map(Value::to_string).collect();
    set(request, &fields.name(key), Grammar::Lark(format!("start: {}", quoted.join(" | "))))
}

/// Reads a schema, which vLLM's clients also send as JSON in a text.
fn schema_of(schema: Value, name: &str) -> Result<Value, ApiError> {
    match schema {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| ApiError::invalid(name, format!("{name} is not JSON: {error}"))),
        schema => Ok(schema),
    }
}

fn set(request: &mut Request, name: &str, guide: Grammar) -> Result<(), ApiError> {
    if request.grammar.is_some() {
        let message = format!("only one grammar or schema can guide a text; leave {name} or the other out");
        return Err(ApiError::invalid(name, message));
    }
    request.grammar = Some(guide);
    Ok(())
}
