//! `json` sends JSON that fits its schema, or nothing.

use std::sync::{Arc, Mutex};

use realm::{ErrorCode, Grants, Request};
use serde_json::{Value, json};

use crate::{Sandboxed, ask};

fn colors() -> Request {
    ask("Name three colors, as a JSON list.").temperature(1.0)
}

#[test]
fn answers_fit_what_grammars_can_and_cannot_ask() {
    let both = Sandboxed::new("json");
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let grants = Grants::none().log_to(move |_, _, line| lines.lock().unwrap().push(line.to_owned()));
    both.tenant.set_grants(grants);

    let person = json!({
        "type": "object", "required": ["name", "age"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    });
    let answer = both.answer(ask("Invent a person.").json_schema(person));
    let value: Value = serde_json::from_str(&answer.text).unwrap();
    assert!(value["name"].is_string() && value["age"].as_u64().unwrap() <= 120, "{value}");
    assert_eq!(answer.usage.generated_tokens, answer.tokens.len());

    // No grammar makes strings with a pattern unique, so the program generates some answers again.
    let schema = json!({
        "type": "array", "minItems": 3, "maxItems": 3, "uniqueItems": true,
        "items": {"type": "string", "pattern": "^(red|green|blue)$"},
    });
    for seed in 0..6 {
        let input = json!({"schema": schema, "retries": 40});
        let answer = both.answer(colors().temperature(4.0).seed(seed).input(input));
        let mut items: Vec<String> = serde_json::from_str(&answer.text).unwrap();
        items.sort();
        assert_eq!(items, ["blue", "green", "red"], "{}", answer.text);
    }
    let log = log.lock().unwrap();
    assert!(log.iter().any(|line| line.contains("asking again") && line.contains("twice")), "{log:?}");
}

#[test]
fn an_answer_that_never_fits_is_an_error_and_sends_nothing() {
    let both = Sandboxed::new("json");
    let schema = json!({"type": "integer", "minimum": 1, "maximum": 9, "not": {"type": "integer"}});
    let stream = both.model.stream(colors().seed(1).input(json!({"schema": schema, "retries": 1}))).unwrap();
    let mut chunks: Vec<_> = stream.into_iter().collect();
    let failed = chunks.pop().unwrap().unwrap_err();
    assert!(chunks.is_empty(), "{chunks:?}");
    assert_eq!(failed.code(), ErrorCode::Failed);
    assert!(
        failed.message().contains("after 1 retries") && failed.message().contains("must not be"),
        "{failed}"
    );
    let none = both.model.generate(colors()).unwrap_err();
    assert!(none.code() == ErrorCode::InvalidArgument && none.message().contains("schema"), "{none}");
}
