//! Renders arbitrary text as a template. Rendering has to end within its limits, and the foreign ranges have
//! to be well formed.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use realm_template::{Input, Limits, Template};
use serde_json::{Map, Value, json};

static VARIABLES: LazyLock<(Map<String, Value>, Map<String, Value>)> = LazyLock::new(|| {
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    let foreign = json!({
        "messages": [
            {"role": "user", "content": "a b\n"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"x": 1.5}}}]},
            {"role": "tool", "content": "ü"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "u": "中 x", "n": 3, "list": [1, "x", null],
    });
    (object(foreign), object(json!({"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true})))
});

fuzz_target!(|source: &str| {
    let Ok(template) = Template::parse(source) else { return };
    let input = Input { trusted: &VARIABLES.1, foreign: &VARIABLES.0 };
    let limits = Limits { steps: 100_000, bytes: 1 << 20, clock: None };
    let Ok(rendered) = template.render(&input, &limits) else { return };
    assert!(rendered.text.len() <= limits.bytes);
    let mut end = None;
    for run in &rendered.foreign {
        assert!(run.start < run.end && end.is_none_or(|end| end < run.start));
        assert!(rendered.text.get(run.clone()).is_some());
        end = Some(run.end);
    }
});
