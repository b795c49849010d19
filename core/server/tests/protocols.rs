//! The protocols over HTTP, with a real model.

mod common;

use common::{ANSWER, MODEL, any_port, get, post, question, start, story};
use realm_server::Config;
use serde_json::{Value, json};

#[test]
fn openais_calls_are_answered() {
    let server = start(any_port());
    let reply = post(&server, "/v1/chat/completions", &question(json!({})));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(reply.json()["choices"][0]["message"]["content"], ANSWER);
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
    let completion = post(&server, "/v1/completions", &story(4)).json();
    assert_eq!(completion["usage"]["completion_tokens"], 4);
    let list = get(&server, "/v1/models").json();
    assert_eq!(list["data"][0]["id"], MODEL);
    assert_eq!(get(&server, &format!("/v1/models/{MODEL}")).json()["object"], "model");
    let vectors = post(&server, "/v1/embeddings", &json!({"model": MODEL, "input": ["a", "b"]})).json();
    assert_eq!(vectors["data"][1]["embedding"].as_array().unwrap().len(), 576);
    let base64 = json!({"model": MODEL, "input": "a", "encoding_format": "base64"});
    assert_eq!(
        post(&server, "/v1/embeddings", &base64).json()["data"][0]["embedding"].as_str().unwrap().len(),
        3072
    );
    assert_eq!(get(&server, "/health").json(), json!({"status": "ok"}));
}

#[test]
fn tokens_are_counted_and_spelled() {
    let server = start(any_port());
    let tokens = post(&server, "/tokenize", &json!({"model": MODEL, "prompt": "Hello, world"})).json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let text = post(&server, "/detokenize", &json!({"model": MODEL, "tokens": tokens["tokens"]})).json();
    assert_eq!(text["prompt"], "Hello, world");
    let chat = question(json!({}));
    let rendered = post(&server, "/tokenize", &json!({"model": MODEL, "messages": chat["messages"]})).json();
    let usage = post(&server, "/v1/chat/completions", &chat).json();
    assert_eq!(rendered["count"], usage["usage"]["prompt_tokens"]);
    let error = post(&server, "/detokenize", &json!({"model": MODEL, "tokens": [99_999_999]}));
    assert_eq!((error.status, &error.json()["error"]["param"]), (400, &json!("tokens")));
}

#[test]
fn a_stream_ends_with_its_usage_and_done() {
    let server = start(any_port());
    let body = question(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let reply = post(&server, "/v1/chat/completions", &body);
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    let events = reply.events();
    let (last, events) = events.split_last().unwrap();
    assert_eq!(last.1, "[DONE]");
    let chunks: Vec<Value> = events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, ANSWER);
    let usage = chunks.last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(8)));
}

#[test]
fn a_prompt_that_is_too_long_is_refused_with_both_figures() {
    let server = start(any_port());
    let long = "word ".repeat(9_000);
    let most = common::model().info().context_length.to_string();
    let chat = json!([{"role": "user", "content": long}]);
    for (path, body, param) in [
        ("/v1/chat/completions", json!({"model": MODEL, "messages": chat}), "messages"),
        ("/v1/chat/completions", json!({"model": MODEL, "messages": chat, "stream": true}), "messages"),
        ("/v1/completions", json!({"model": MODEL, "prompt": long}), "prompt"),
        ("/v1/embeddings", json!({"model": MODEL, "input": long}), "input"),
        ("/v1/responses", json!({"model": MODEL, "input": long}), "input"),
    ] {
        let reply = post(&server, path, &body);
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["code"]),
            (400, &json!("context_length_exceeded")),
            "{path}: {error}"
        );
        assert_eq!(error["param"], param, "{path}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("the prompt has 90") && message.contains(&most), "{path}: {message}");
    }
    let body = json!({"model": MODEL, "messages": chat, "max_tokens": 5});
    let error = post(&server, "/v1/messages", &body);
    assert_eq!((error.status, &error.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    let error = post(&server, "/api/chat", &json!({"model": MODEL, "messages": chat}));
    assert_eq!(error.status, 400);
    assert!(error.json()["error"].as_str().unwrap().contains(&most));
    let wide = json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "options": {"num_ctx": 1_000_000}});
    assert!(post(&server, "/api/chat", &wide).json()["error"].as_str().unwrap().contains("num_ctx"));
}

#[test]
fn unknown_fields_are_listed_or_refused_and_known_ones_are_never_dropped() {
    let server = start(any_port());
    let odd = question(json!({"colour": "red"}));
    let reply = post(&server, "/v1/chat/completions", &odd);
    assert_eq!((reply.status, reply.header("realm-ignored-fields")), (200, Some("colour")));
    let reply = post(&server, "/v1/chat/completions", &question(json!({"store": true})));
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("store")));
    let strict = start(Config { strict: true, ..any_port() });
    let reply = post(&strict, "/v1/chat/completions", &odd);
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("colour")));
}

#[test]
fn a_schema_guides_the_answer_or_the_request_fails() {
    let server = start(any_port());
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
        "additionalProperties": false});
    let format = |schema: &Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}}});
    let answer = post(&server, "/v1/chat/completions", &question(format(&schema))).json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(
        ["Paris", "Rome"].contains(&serde_json::from_str::<Value>(text).unwrap()["city"].as_str().unwrap())
    );
    let bad = format(&json!({"type": "no such type"}));
    assert_eq!(post(&server, "/v1/chat/completions", &question(bad)).status, 400);
}

#[test]
fn anthropics_messages_whole_and_streamed() {
    let server = start(any_port());
    let body = |more: Value| {
        let mut body = question(json!({"max_tokens": 20, "system": [{"type": "text", "text": "Be brief."}]}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let whole = post(&server, "/v1/messages", &body(json!({})));
    let answer = whole.json();
    assert_eq!(
        (whole.status, &answer["type"], &answer["stop_reason"]),
        (200, &json!("message"), &json!("end_turn"))
    );
    let text = answer["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("Paris"), "{answer}");
    let counted = post(&server, "/v1/messages/count_tokens", &body(json!({}))).json();
    let usage = &answer["usage"];
    let sum = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(counted, json!({"input_tokens": sum}));

    let events = post(&server, "/v1/messages", &body(json!({"stream": true}))).events();
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_deref().unwrap()).collect();
    assert_eq!(names[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let mut streamed = String::new();
    for (name, data) in &events {
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name.as_deref().unwrap());
        streamed += data["delta"]["text"].as_str().unwrap_or_default();
    }
    assert_eq!(streamed, text);

    let stopped = post(&server, "/v1/messages", &body(json!({"stop_sequences": ["zebra", " Paris"]}))).json();
    assert_eq!(
        (&stopped["stop_reason"], &stopped["stop_sequence"]),
        (&json!("stop_sequence"), &json!(" Paris"))
    );
    let short = post(&server, "/v1/messages", &body(json!({"max_tokens": 1}))).json();
    assert_eq!((&short["stop_reason"], &short["stop_sequence"]), (&json!("max_tokens"), &Value::Null));
    let begun = json!([question(json!({}))["messages"][0], {"role": "assistant", "content": "The capital of France is"}]);
    let continued = post(&server, "/v1/messages", &body(json!({"messages": begun}))).json();
    assert!(continued["content"][0]["text"].as_str().unwrap().starts_with(" Paris"), "{continued}");
}

#[test]
fn anthropics_errors_have_their_form() {
    let server = start(any_port());
    for (body, status, kind, word) in [
        (
            json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}),
            400,
            "invalid_request_error",
            "max_tokens",
        ),
        (question(json!({"model": "none"})), 404, "not_found_error", "none"),
        (
            question(json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})),
            400,
            "invalid_request_error",
            "tools[0]",
        ),
        (question(json!({"mcp_servers": [{"url": "x"}]})), 400, "invalid_request_error", "mcp_servers"),
        (
            question(json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]})),
            400,
            "invalid_request_error",
            "image",
        ),
    ] {
        let reply = post(&server, "/v1/messages", &body);
        let error = reply.json();
        assert_eq!(
            (reply.status, &error["type"], &error["error"]["type"]),
            (status, &json!("error"), &json!(kind))
        );
        assert!(error["error"]["message"].as_str().unwrap().contains(word), "{error}");
    }
}

#[test]
fn ollamas_calls_are_answered() {
    let server = start(any_port());
    let messages = &question(json!({}))["messages"];
    let options = json!({"temperature": 0, "repeat_penalty": 1, "num_predict": 16});
    let body = json!({"model": format!("{MODEL}:latest"), "messages": messages, "options": options});
    let reply = post(&server, "/api/chat", &body);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-ndjson")));
    let lines: Vec<Value> = reply.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text: String = lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(text, ANSWER);
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["eval_count"]),
        (&json!(true), &json!("stop"), &json!(8))
    );
    let mut whole = body.clone();
    whole["stream"] = json!(false);
    let answer = post(&server, "/api/chat", &whole).json();
    assert_eq!((&answer["message"]["content"], &answer["model"]), (&json!(ANSWER), &json!(MODEL)));
    let generate = json!({"model": MODEL, "prompt": "Once upon a", "raw": true, "stream": false, "options": {"temperature": 0, "num_predict": 1}});
    assert_eq!(post(&server, "/api/generate", &generate).json()["response"], " time");
    assert_eq!(get(&server, "/api/tags").json()["models"][0]["name"], MODEL);
    assert!(get(&server, "/api/version").json()["version"].is_string());
    assert_eq!(post(&server, "/api/show", &json!({"model": MODEL})).json()["details"]["family"], "llama");
    let vectors = post(&server, "/api/embed", &json!({"model": MODEL, "input": ["a", "b"]})).json();
    assert_eq!(vectors["embeddings"].as_array().unwrap().len(), 2);
}

#[test]
fn responses_whole_and_streamed() {
    let server = start(any_port());
    let question = "What is the capital of France? Answer in one sentence.";
    let body = json!({"model": MODEL, "input": question, "temperature": 0, "max_output_tokens": 16});
    let answer = post(&server, "/v1/responses", &body).json();
    assert_eq!((&answer["object"], &answer["status"]), (&json!("response"), &json!("completed")), "{answer}");
    assert_eq!(answer["output"][0]["content"][0]["text"], ANSWER);
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = post(&server, "/v1/responses", &streamed).events();
    let mut text = String::new();
    for (number, (name, data)) in events.iter().enumerate() {
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
        if name.as_deref() == Some("response.output_text.delta") {
            text += data["delta"].as_str().unwrap();
        }
    }
    assert_eq!(text, ANSWER);
    let last: Value = serde_json::from_str(&events.last().unwrap().1).unwrap();
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], ANSWER);
    let mut cut = body.clone();
    cut["max_output_tokens"] = json!(2);
    let answer = post(&server, "/v1/responses", &cut).json();
    assert_eq!(answer["incomplete_details"], json!({"reason": "max_output_tokens"}));
    for (field, value) in [
        ("previous_response_id", json!("resp_1")),
        ("store", json!(true)),
        ("background", json!(true)),
        ("truncation", json!("auto")),
        ("tools", json!([{"type": "web_search"}])),
    ] {
        let mut body = body.clone();
        body[field] = value;
        let reply = post(&server, "/v1/responses", &body);
        assert_eq!(reply.status, 400, "{field}");
        assert!(
            reply.json()["error"]["param"].as_str().unwrap().starts_with(field),
            "{field}: {}",
            reply.body
        );
    }
}
