//! A real model behind OpenAI's protocol.

mod common;

use std::sync::{Arc, OnceLock};

use common::{check, check_response};
use realm::{Limits, LoadOptions, Model, Realm};
use realm_protocol::{Answer, Body, Events, LoadedByName, OneModel, Service};
use serde_json::{Value, json};

const MODEL: &str = "smollm2-135m";
const ANSWER: &str = "The capital of France is Paris.";

fn realm() -> Realm {
    static REALM: OnceLock<Realm> = OnceLock::new();
    REALM.get_or_init(|| Realm::builder().build().unwrap()).clone()
}

fn model() -> Model {
    static MODEL_: OnceLock<Model> = OnceLock::new();
    MODEL_.get_or_init(|| realm().load_model(MODEL).unwrap()).clone()
}

fn service() -> Service {
    Service::of_model(model())
}

/// A service whose model begins with a call where the request has tools, and the schema of such a call.
fn service_that_calls() -> (Service, Value) {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        <|im_start|>assistant\n{% if tools %}<tool_call>{% endif %}";
    let options =
        LoadOptions { chat_template: Some(template.into()), kv_tokens: Some(512), ..LoadOptions::default() };
    let service = Service::of_model(realm().load_model_with(MODEL, &options, &mut ()).unwrap());
    let schema = json!({"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"],
        "additionalProperties": false});
    (service, schema)
}

async fn post(service: &Service, path: &str, body: Value) -> Answer {
    service.handle("POST", path, body.to_string().as_bytes()).await
}

fn whole(answer: Answer) -> (u16, Value) {
    match answer.body {
        Body::Json(text) => (answer.status, serde_json::from_str(&text).unwrap()),
        Body::Events(_) => panic!("events"),
    }
}

fn events(answer: Answer) -> Events {
    match answer.body {
        Body::Events(events) => events,
        Body::Json(text) => panic!("{}: {text}", answer.status),
    }
}

async fn all(answer: Answer) -> Vec<Value> {
    let events = events(answer);
    let mut found = Vec::new();
    while let Some(event) = events.next_async().await {
        found.push(serde_json::from_str(&event).unwrap());
    }
    found
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

fn question(more: Value) -> Value {
    let mut body = json!({
        "model": MODEL, "temperature": 0, "max_tokens": 16,
        "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_whole_answer_is_as_the_specification_has_it() {
    let body = question(json!({"n": 2, "logprobs": true, "top_logprobs": 2, "service_tier": "auto"}));
    let (status, answer) = whole(post(&service(), "/v1/chat/completions", body).await);
    assert_eq!(status, 200, "{answer}");
    check("CreateChatCompletionResponse", &answer);
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    let message = &answer["choices"][1]["message"];
    assert_eq!(message, &json!({"role": "assistant", "content": ANSWER, "refusal": null}));
    assert_eq!(answer["choices"][1]["finish_reason"], "stop");
    assert_eq!(answer["service_tier"], "default");
    // The prompt is counted once, and an end token is no part of a text's log-probabilities.
    let usage = &answer["usage"];
    assert_eq!(usage["completion_tokens"], 16);
    assert_eq!(usage["total_tokens"].as_u64().unwrap(), usage["prompt_tokens"].as_u64().unwrap() + 16);
    let logprobs = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let spelled: String = logprobs.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(spelled, ANSWER);
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_stream_is_as_the_specification_has_it() {
    let body = question(
        json!({"stream": true, "n": 2, "logprobs": true, "stream_options": {"include_usage": true}}),
    );
    let answer = post(&service(), "/v1/chat/completions", body).await;
    assert_eq!(header(&answer, "content-type"), Some("text/event-stream; charset=utf-8"));
    let chunks = all(answer).await;
    for chunk in &chunks {
        check("CreateChatCompletionStreamResponse", chunk);
        assert_eq!(chunk["id"], chunks[0]["id"]);
    }
    for index in 0..2 {
        let choices = chunks.iter().filter_map(|chunk| chunk["choices"].get(0));
        let own: Vec<_> = choices.filter(|choice| choice["index"] == index).collect();
        assert_eq!(own[0]["delta"], json!({"role": "assistant", "content": ""}));
        let text: String = own.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, ANSWER);
        let (last, before) = own.split_last().unwrap();
        assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("stop")));
        assert!(before.iter().all(|choice| choice["finish_reason"].is_null()));
        let tokens =
            own.iter().flat_map(|choice| choice["logprobs"]["content"].as_array().into_iter().flatten());
        let spelled: String = tokens.map(|token| token["token"].as_str().unwrap()).collect();
        assert_eq!(spelled, ANSWER);
    }
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 16);
    assert!(before.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    let plain = all(post(&service(), "/chat/completions", question(json!({"stream": true}))).await).await;
    assert!(plain.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn tool_calls_whole_and_in_a_stream() {
    let (service, schema) = service_that_calls();
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    let asked = json!({"tools": tools, "tool_choice": "required", "max_tokens": 64});
    let (status, answer) = whole(post(&service, "/v1/chat/completions", question(asked.clone())).await);
    assert_eq!(status, 200, "{answer}");
    check("CreateChatCompletionResponse", &answer);
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Paris"}));

    let mut asked = asked;
    asked["stream"] = json!(true);
    let chunks = all(post(&service, "/v1/chat/completions", question(asked)).await).await;
    chunks.iter().for_each(|chunk| check("CreateChatCompletionStreamResponse", chunk));
    let deltas: Vec<_> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let calls: Vec<_> = deltas.iter().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    assert_eq!(calls.len(), 1);
    assert_eq!((&calls[0]["index"], &calls[0]["function"]["name"]), (&json!(0), &json!("weather")));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn texts_are_continued() {
    let body = json!({"model": MODEL, "prompt": ["The capital of France is", "One, two, three,"], "temperature": 0,
        "max_tokens": 4, "logprobs": 2, "n": 2});
    let (status, answer) = whole(post(&service(), "/v1/completions", body.clone()).await);
    assert_eq!(status, 200, "{answer}");
    check("CreateCompletionResponse", &answer);
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert_eq!(choices[0]["text"], choices[1]["text"]);
    assert!(choices[0]["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert!(choices[2]["text"].as_str().unwrap().contains("four"), "{answer}");
    let logprobs = &choices[0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2);
    assert_eq!(logprobs["text_offset"][1], logprobs["tokens"][0].as_str().unwrap().chars().count());
    assert_eq!(answer["usage"]["completion_tokens"], 16);

    let mut streamed = body;
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let pieces = all(post(&service(), "/v1/completions", streamed).await).await;
    for (index, whole) in choices.iter().enumerate() {
        let own = pieces
            .iter()
            .filter_map(|piece| piece["choices"].get(0))
            .filter(|choice| choice["index"] == index);
        let text: String = own.map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(text, whole["text"]);
    }
    assert_eq!(pieces.last().unwrap()["usage"]["total_tokens"], answer["usage"]["total_tokens"]);

    let body =
        json!({"model": MODEL, "prompt": "One, two,", "temperature": 0, "max_tokens": 2, "echo": true});
    let (_, answer) = whole(post(&service(), "/completions", body).await);
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("One, two, ") && text.len() > "One, two, ".len(), "{answer}");
}

#[tokio::test]
async fn vectors_as_numbers_and_as_base64() {
    use base64::Engine as _;
    let ids = model().encode("Hello");
    let body = json!({"model": MODEL, "input": ["Hello", "Good bye"]});
    let (status, numbers) = whole(post(&service(), "/v1/embeddings", body).await);
    assert_eq!(status, 200, "{numbers}");
    check("CreateEmbeddingResponse", &numbers);
    let vector = |answer: &Value, index: usize| -> Vec<f32> {
        serde_json::from_value(answer["data"][index]["embedding"].clone()).unwrap()
    };
    let hello = vector(&numbers, 0);
    assert_eq!(hello.len(), model().info().hidden);
    assert_ne!(hello, vector(&numbers, 1));
    let body = json!({"model": MODEL, "input": [ids], "encoding_format": "base64"});
    let (_, base64) = whole(post(&service(), "/v1/embeddings", body).await);
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(base64["data"][0]["embedding"].as_str().unwrap());
    let bytes = bytes.unwrap();
    let floats: Vec<_> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(floats, hello);
    let (status, error) =
        whole(post(&service(), "/v1/embeddings", json!({"model": MODEL, "input": [[4_000_000]]})).await);
    assert_eq!(status, 400, "{error}");
}

#[tokio::test]
async fn failures_have_a_status_and_name_what_was_wrong() {
    let (service, long) = (service(), "word ".repeat(20_000));
    let too_long = json!({"model": MODEL, "messages": [{"role": "user", "content": long}]});
    let cases = [
        ("POST", "/v1/chat/completions", too_long, 400, "context_length_exceeded", json!("messages")),
        (
            "POST",
            "/v1/completions",
            json!({"model": MODEL, "prompt": long}),
            400,
            "context_length_exceeded",
            json!("prompt"),
        ),
        (
            "POST",
            "/v1/embeddings",
            json!({"model": MODEL, "input": long}),
            400,
            "context_length_exceeded",
            json!("input"),
        ),
        ("POST", "/v1/chat/completions", question(json!({"n": 0})), 400, "invalid-argument", json!("n")),
        ("POST", "/v1/chat/completions", question(json!({"top_p": 7})), 400, "invalid-argument", json!(null)),
        ("POST", "/v1/chat/completions", json!([]), 400, "invalid-argument", json!(null)),
        ("GET", "/v1/completions", json!({}), 405, "method_not_allowed", json!(null)),
        ("GET", "/v1/chat/completions", json!({}), 404, "not_stored", json!(null)),
        ("POST", "/v1/nothing", json!({}), 404, "unknown_url", json!(null)),
        ("POST", "/v2/chat", json!({}), 404, "unknown_url", json!(null)),
    ];
    for (method, path, body, status, code, param) in cases {
        let answer = service.handle(method, path, body.to_string().as_bytes()).await;
        assert!(header(&answer, "realm-error-code").is_some());
        let (found, error) = whole(answer);
        check("ErrorResponse", &error);
        assert_eq!((found, &error["error"]["code"]), (status, &json!(code)), "{path}: {error}");
        assert_eq!(error["error"]["param"], param, "{path}: {error}");
        assert!(error["error"]["message"].as_str().unwrap().len() < 400, "{error}");
    }
    let (_, error) = whole(service.handle("POST", "/v1/chat/completions", b"{\"model\": NaN}").await);
    assert!(error["error"]["message"].as_str().unwrap().contains("line 1"), "{error}");
}

#[tokio::test]
async fn a_tenant_s_full_queue_asks_to_come_back() {
    let limits = Limits { max_concurrent: Some(1), max_queued: 0, ..Limits::default() };
    let tenant = realm().tenant("small", limits).unwrap();
    let service = Service::of_model(tenant.model(&model()).unwrap());
    let running =
        post(&service, "/v1/chat/completions", question(json!({"stream": true, "max_tokens": 500}))).await;
    let running = events(running);
    running.next_async().await.unwrap();
    let refused = post(&service, "/v1/chat/completions", question(json!({}))).await;
    assert_eq!((refused.status, header(&refused, "retry-after")), (429, Some("1")));
    assert_eq!(whole(refused).1["error"]["code"], "rate_limit_exceeded");
    running.cancel();

    let limits = Limits { models: Some(Vec::new()), ..Limits::default() };
    let error = realm().tenant("other", limits).unwrap().model(&model()).err().unwrap();
    assert_eq!(realm_protocol::ApiError::from(error).status(), 403);
}

#[tokio::test]
async fn fields_that_nothing_reads_are_listed_or_refused() {
    let body = question(json!({"colour": "red", "a\r\nb": 1, "max_tokens": 1}));
    let answer = post(&service(), "/v1/chat/completions", body.clone()).await;
    assert_eq!((answer.status, header(&answer, "realm-ignored-fields")), (200, Some("colour, a??b")));
    let (status, error) = whole(post(&service().strict(), "/v1/chat/completions", body).await);
    assert_eq!((status, &error["error"]["code"]), (400, &json!("unknown_parameter")));
    assert_eq!(error["error"]["param"], "colour");
    let body =
        json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi", "extra": 1}], "max_tokens": 1});
    assert_eq!(post(&service().strict(), "/v1/chat/completions", body).await.status, 200);
}

#[tokio::test]
async fn leaving_ends_the_work() {
    let tenant = realm().tenant("leaver", Limits::default()).unwrap();
    let service = Service::of_model(tenant.model(&model()).unwrap());
    let mut long = question(json!({"stream": true, "max_tokens": 1900, "n": 3, "ignore_eos": true}));
    let dropped = events(post(&service, "/v1/chat/completions", long.clone()).await);
    dropped.next_async().await.unwrap();
    drop(dropped);
    let cancelled = Arc::new(events(post(&service, "/v1/chat/completions", long.clone()).await));
    let waiting = {
        let cancelled = Arc::clone(&cancelled);
        tokio::spawn(async move { while cancelled.next_async().await.is_some() {} })
    };
    cancelled.cancel();
    waiting.await.unwrap();
    assert_eq!(cancelled.next_async().await, None);
    // A whole answer whose future is dropped.
    long["stream"] = json!(false);
    let body = long.to_string();
    let given_up = service.handle("POST", "/v1/chat/completions", body.as_bytes());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), given_up).await.is_err());
    while tenant.running() + tenant.waiting() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let requests = tenant.metrics().requests;
    assert_eq!((requests.cancelled, requests.finished), (9, 0), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn first_calls_at_the_same_time_load_a_model_once() {
    let realm = Realm::builder().build().unwrap();
    let service = Service::new(LoadedByName::new(realm.clone()));
    let asked: Vec<_> = (0..16)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(
                async move { post(&service, "/v1/chat/completions", question(json!({}))).await.status },
            )
        })
        .collect();
    // A request that gives up takes nothing from the others.
    asked[0].abort();
    for status in asked.into_iter().skip(1) {
        assert_eq!(status.await.unwrap(), 200);
    }
    // All requests went to one engine, the only one that there is.
    let served = service.model(MODEL).await.unwrap().metrics().served.requests.finished;
    assert!(served >= 15, "{served}");
    let finished = realm.prometheus();
    let line =
        finished.lines().find(|line| line.contains("realm_requests_total") && line.contains("finished"));
    assert!(line.unwrap().ends_with(&format!(" {served}")), "{line:?}, {served}");

    let answer = service.handle(
        "POST",
        "/v1/chat/completions",
        br#"{"model": "no-such", "messages": [{"role": "user", "content": ""}]}"#,
    );
    let (status, error) = whole(answer.await);
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")), "{error}");
}

#[tokio::test]
async fn models_are_listed() {
    let by_name = LoadedByName::new(realm());
    by_name.insert("mine/own", model());
    let service = Service::new(by_name);
    let (status, list) = whole(service.handle("GET", "/v1/models", b"").await);
    assert_eq!(status, 200);
    check("ListModelsResponse", &list);
    let ids: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&MODEL) && ids.contains(&"mine/own"), "{ids:?}");
    let (status, found) = whole(service.handle("GET", "/v1/models/mine%2Fown", b"").await);
    assert_eq!((status, &found["id"]), (200, &json!("mine/own")));
    check("Model", &found);
    let (status, error) = whole(service.handle("GET", "/v1/models/none", b"").await);
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    let (_, one) = whole(Service::new(OneModel::new(model())).handle("GET", "/models", b"").await);
    assert_eq!(one["data"][0]["id"], MODEL);
}

/// The schema of an event of responses.
fn schema_of(event: &str) -> String {
    let name = match event {
        "error" => return "ResponseErrorEvent".to_owned(),
        "response.output_text.delta" => "text_delta",
        "response.output_text.done" => "text_done",
        other => other.strip_prefix("response.").unwrap(),
    };
    let words = name.split(['.', '_']).map(|word| word[..1].to_uppercase() + &word[1..]);
    format!("Response{}Event", words.collect::<String>())
}

#[tokio::test]
async fn responses_are_as_the_specification_has_them() {
    let (service, schema) = service_that_calls();
    let tool = json!({"type": "function", "name": "weather", "parameters": schema, "strict": true});
    let plain = json!({"model": MODEL, "input": "What is the capital of France? Answer in one sentence.",
        "instructions": "Be brief.", "temperature": 0, "max_output_tokens": 16});
    let mut called = plain.clone();
    called["tools"] = json!([tool]);
    called["tool_choice"] = json!({"type": "function", "name": "weather"});
    called["max_output_tokens"] = json!(64);
    let mut cut = plain.clone();
    cut["max_output_tokens"] = json!(1);
    for (body, item, status) in [
        (plain, "message", "completed"),
        (called, "function_call", "completed"),
        (cut, "message", "incomplete"),
    ] {
        let (code, answer) = whole(post(&service, "/v1/responses", body.clone()).await);
        assert_eq!((code, &answer["status"]), (200, &json!(status)), "{answer}");
        check_response("Response", &answer);
        assert_eq!(answer["output"][0]["type"], item);
        let mut body = body;
        body["stream"] = json!(true);
        let events = all(post(&service, "/v1/responses", body).await).await;
        for (number, event) in events.iter().enumerate() {
            check_response(&schema_of(event["type"].as_str().unwrap()), event);
            assert_eq!(event["sequence_number"], number);
        }
        let last = &events.last().unwrap()["response"];
        assert_eq!((&last["status"], &last["output"][0]["type"]), (&json!(status), &json!(item)));
        assert_eq!(last["usage"]["output_tokens"], answer["usage"]["output_tokens"]);
    }
}

#[tokio::test]
async fn stored_answers_are_none_and_the_error_says_so() {
    let service = service();
    for (method, path) in [
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions/chatcmpl-1"),
        ("POST", "/v1/chat/completions/chatcmpl-1"),
        ("DELETE", "/v1/chat/completions/chatcmpl-1"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("POST", "/v1/responses/compact"),
    ] {
        let (status, answer) = whole(service.handle(method, path, b"").await);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (404, &json!("not_stored")),
            "{method} {path}: {answer}"
        );
    }
    for path in ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/score"] {
        let (status, answer) = whole(service.handle("POST", path, b"").await);
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("unsupported")), "{path}: {answer}");
    }
    let body = json!({"model": MODEL, "instructions": "Be brief.", "input": "Hi"});
    let (status, counted) = whole(post(&service, "/v1/responses/input_tokens", body.clone()).await);
    let (_, answer) = whole(post(&service, "/v1/responses", body).await);
    assert_eq!((status, &counted["input_tokens"]), (200, &answer["usage"]["input_tokens"]), "{counted}");
}

#[tokio::test]
async fn names_of_programs_and_adapters_need_a_service_that_knows_some() {
    let service = service();
    for (realm, param) in [
        (json!({"program": "p"}), "realm.program"),
        (json!({"adapter": "a"}), "realm.adapter"),
        (json!({"adapter": "a", "adapter_scale": 0.5}), "realm.adapter"),
    ] {
        for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"] {
            let body = json!({"model": MODEL, "prompt": "a", "input": "a", "max_tokens": 1, "realm": realm,
                "messages": [{"role": "user", "content": "a"}]});
            let mut body = body;
            for key in
                if path == "/v1/responses" { &["prompt", "messages", "max_tokens"][..] } else { &["input"] }
            {
                body.as_object_mut().unwrap().remove(*key);
            }
            let answer = post(&service, path, body).await;
            let (status, answer) = whole(answer);
            assert_eq!(status, 404, "{path}: {answer}");
            if path != "/v1/messages" {
                assert_eq!(answer["error"]["param"], param, "{path}");
            }
        }
    }
    let body = json!({"model": MODEL, "prompt": "a", "realm": {"adapter_scale": 2}});
    let (status, answer) = whole(post(&service, "/v1/completions", body).await);
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("realm.adapter_scale")), "{answer}");
}
