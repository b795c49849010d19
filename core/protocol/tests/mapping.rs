//! Bodies become requests: every case of `requests.json`.

#[allow(dead_code)]
mod common;

use realm::{Message, Prompt};
use realm_protocol::openai::{ChatRequest, CompletionRequest, EmbeddingInput, EmbeddingRequest};
use serde_json::{Map, Value, json};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

/// The parts of a request that cases check.
fn shown(request: &ChatRequest) -> Value {
    let inner = &request.request;
    let sampling = &inner.sampling;
    let bias: Map<_, _> =
        sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(bias))).collect();
    json!({
        "n": request.n, "stream": request.stream, "include_usage": request.include_usage,
        "parallel_tool_calls": request.parallel_tool_calls, "ignored": request.ignored,
        "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p,
        "typical_p": sampling.typical_p, "repetition_penalty": sampling.repetition_penalty,
        "repetition_window": sampling.repetition_window, "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty, "seed": sampling.seed, "logit_bias": bias,
        "max_tokens": inner.max_tokens, "stop": inner.stop, "ignore_eos": inner.ignore_eos, "logprobs": inner.logprobs,
        "variables": inner.template_variables, "input": inner.input,
        "grammar": inner.grammar.as_ref().map(|grammar| format!("{grammar:?}")),
        "shared_prefix": format!("{:?}", inner.shared_prefix), "speculation": format!("{:?}", inner.speculation),
        "tools": inner.tools.iter().map(|tool| &tool["function"]["name"]).collect::<Vec<_>>(),
        "tool_choice": format!("{:?}", inner.tool_choice),
    })
}

#[test]
fn bodies_become_requests_or_errors_that_name_a_field() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("requests.json")).unwrap();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut body = object(case["body"].clone());
        body.insert("model".into(), json!("m"));
        match (ChatRequest::read(body), &case["request"], &case["error"]) {
            (Ok(request), Value::Object(expected), Value::Null) => {
                let shown = shown(&request);
                for (key, value) in expected {
                    if key == "messages" {
                        let expected = value.as_array().unwrap().iter().cloned().map(Message::from);
                        assert_eq!(request.request.prompt, Prompt::Chat(expected.collect()), "{name}");
                    } else {
                        assert_eq!(shown[key], *value, "{name}: {key}");
                    }
                }
            }
            (Err(error), Value::Null, expected) => {
                assert_eq!(error.status(), 400, "{name}: {error:?}");
                assert_eq!(error.parameter(), expected["param"].as_str(), "{name}: {error:?}");
                let part = expected["message"].as_str().unwrap();
                assert!(error.message().contains(part), "{name}: {}", error.message());
                if let Some(code) = expected["code"].as_str() {
                    assert_eq!(error.to_json()["error"]["code"], code, "{name}");
                }
                common::check("ErrorResponse", &error.to_json());
            }
            (result, ..) => panic!("{name}: {result:?}"),
        }
    }
}

#[test]
fn choices_have_seeds_of_their_own() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "n": 3, "seed": -1});
    let request = ChatRequest::read(object(body)).unwrap();
    let seeds: Vec<_> = request.requests().map(|request| request.sampling.seed.unwrap()).collect();
    assert_eq!(seeds, [u64::MAX, 0, 1]);
}

#[test]
fn every_shape_of_a_prompt() {
    let read = |prompt: Value| {
        CompletionRequest::read(object(json!({"model": "m", "prompt": prompt})))
            .map(|request| request.prompts)
    };
    let text = |text: &str| Prompt::Text(text.to_owned());
    assert_eq!(read(json!("a")).unwrap(), [text("a")]);
    assert_eq!(read(json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
    assert_eq!(read(json!([1, 2])).unwrap(), [Prompt::Tokens(vec![1, 2])]);
    assert_eq!(read(json!([[1], [2, 3]])).unwrap(), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]);
    for wrong in [json!(null), json!([]), json!([[]]), json!([1, "a"]), json!([-1]), json!([1.5]), json!({})]
    {
        let error = read(wrong.clone()).unwrap_err();
        assert_eq!(error.parameter(), Some("prompt"), "{wrong}");
    }
    for (key, value) in [("best_of", json!(2)), ("suffix", json!("x")), ("echo", json!(true))] {
        let body = json!({"model": "m", "prompt": "a", "logprobs": 1, key: value});
        assert_eq!(CompletionRequest::read(object(body)).unwrap_err().parameter(), Some(key));
    }
    let body = json!({"model": "m", "prompt": ["a", "b"], "n": 2});
    let request = CompletionRequest::read(object(body)).unwrap();
    let prompts: Vec<_> = request.requests().into_iter().map(|request| request.prompt).collect();
    assert_eq!(prompts, [text("a"), text("a"), text("b"), text("b")]);
    assert_eq!(request.request.max_tokens, Some(16), "OpenAI's default");
}

#[test]
fn every_shape_of_an_input() {
    let read = |body: Value| EmbeddingRequest::read(object(body));
    let request = read(json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64"})).unwrap();
    assert!(request.base64);
    assert_eq!(request.inputs, [EmbeddingInput::Text("a".into()), EmbeddingInput::Text("b".into())]);
    let request = read(json!({"model": "m", "input": [[1, 2]], "user": "u", "colour": 1})).unwrap();
    assert_eq!(request.inputs, [EmbeddingInput::Tokens(vec![1, 2])]);
    assert_eq!(request.ignored, ["colour"]);
    let many: Vec<_> = (0..2049).map(|n| n.to_string()).collect();
    for (param, body) in [
        ("input", json!({"model": "m"})),
        ("input", json!({"model": "m", "input": ""})),
        ("input", json!({"model": "m", "input": ["a", ""]})),
        ("input", json!({"model": "m", "input": many})),
        ("model", json!({"input": "a"})),
        ("encoding_format", json!({"model": "m", "input": "a", "encoding_format": "hex"})),
        ("dimensions", json!({"model": "m", "input": "a", "dimensions": 0})),
    ] {
        assert_eq!(read(body.clone()).unwrap_err().parameter(), Some(param), "{body}");
    }
    assert_eq!(
        read(json!({"model": "m", "input": "a", "dimensions": 8})).unwrap().check_dimensions(8),
        Ok(())
    );
    let wrong = read(json!({"model": "m", "input": "a", "dimensions": 8})).unwrap().check_dimensions(9);
    assert_eq!(wrong.unwrap_err().parameter(), Some("dimensions"));
}
