//! `agent` calls the tools that the application grants.

use std::sync::{Arc, Mutex};

use realm::{Grants, Request};
use serde_json::{Value, json};

use crate::{Sandboxed, ask};

fn weather() -> Request {
    let tool = json!({"type": "function", "function": {
        "name": "get_weather", "description": "The weather in a city.",
        "parameters": {
            "type": "object", "required": ["city"], "additionalProperties": false,
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
        },
    }});
    ask("What is the weather in Paris?").tool(tool).input(json!({"tool_choice": "required"}))
}

#[test]
fn a_granted_tool_is_called_and_its_answer_reaches_the_model() {
    let both = Sandboxed::new("agent");
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    both.tenant.set_grants(Grants::none().tool("get_weather", move |arguments| {
        seen.lock().unwrap().push(arguments);
        Ok(json!({"weather": "heavy snow, -7 degrees"}).to_string())
    }));
    let answer = both.answer(weather());
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 1);
    let arguments: Value = serde_json::from_str(&calls[0]).unwrap();
    assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()), "{arguments}");
    assert!(!answer.text.contains("tool_call"), "{}", answer.text);
    assert!(answer.text.contains("snow") || answer.text.contains("-7"), "{}", answer.text);
    // Calls count as tokens, although their text is not sent.
    let sent = both.plain.decode(&crate::ids(&answer)).unwrap();
    assert!(sent.contains("<tool_call>") && sent.contains(&answer.text), "{sent}");
}

#[test]
fn without_a_grant_nothing_is_called_and_the_model_is_told() {
    let both = Sandboxed::new("agent");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lines);
    both.tenant
        .set_grants(Grants::none().log_to(move |_, _, line| log.lock().unwrap().push(line.to_owned())));
    let answer = both.answer(weather());
    assert!(!answer.text.is_empty() && !answer.text.contains("tool_call"));
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("denied")), "{lines:?}");
}

#[test]
fn without_tools_it_answers() {
    let both = Sandboxed::new("agent");
    let question = ask("What is the capital of France? Answer in one sentence.");
    assert_eq!(both.answer(question).text, "The capital of France is Paris.");
}
