//! Limits of keys and tenants.

mod common;

use std::time::Duration;

use common::{
    MODEL, Memory, Wire, any_port, call, eventually, model, post_as, question, request, start_with, story,
};
use realm::LoadOptions;
use realm_server::keys::{Key, Secret};
use realm_server::{Config, LimitsConfig, Rates, TenantConfig};
use serde_json::{Value, json};

fn key(store: &Memory, tenant: &str, rates: Rates) -> Secret {
    let (mut key, secret) = Key::create(tenant).unwrap();
    key.rates = rates;
    store.keys.lock().unwrap().push(key);
    secret
}

fn server(config: Config, store: &Memory) -> common::Running {
    start_with(config, vec![(MODEL.to_owned(), model())], Some(Box::new(store.clone())))
}

#[test]
fn requests_a_minute_are_counted_and_the_headers_say_so() {
    let store = Memory::default();
    let secret = key(&store, "acme", Rates { requests_per_minute: Some(3), ..Rates::default() });
    let server = server(any_port(), &store);
    let send = || post_as(&server, secret.as_str(), "/tokenize", &json!({"model": MODEL, "prompt": "a"}));
    for left in ["2", "1", "0"] {
        let reply = send();
        assert_eq!((reply.status, reply.header("x-ratelimit-remaining-requests")), (200, Some(left)));
        assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("3"));
        assert!(reply.header("x-ratelimit-reset-requests").is_some());
    }
    let refused = send();
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    // Lists of models cost nothing.
    let bearer = format!("Bearer {}", secret.as_str());
    assert_eq!(call(server.address, "GET", "/v1/models", &[("authorization", &bearer)], "").status, 200);
}

#[test]
fn concurrency_passes_no_token_limit() {
    let store = Memory::default();
    let most = 400;
    let secret = key(&store, "acme", Rates { tokens_per_minute: Some(most), ..Rates::default() });
    let server = server(any_port(), &store);
    let began = std::time::Instant::now();
    let used: Vec<u64> = std::thread::scope(|scope| {
        let send = || {
            let reply = post_as(&server, secret.as_str(), "/v1/completions", &story(30));
            match reply.status {
                200 => reply.json()["usage"]["total_tokens"].as_u64().unwrap(),
                status => {
                    assert_eq!(status, 429, "{}", reply.body);
                    assert!(reply.header("retry-after").is_some());
                    0
                }
            }
        };
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum: u64 = used.iter().sum();
    let refilled = began.elapsed().as_secs_f64() * f64::from(most) / 60.0;
    assert!(sum as f64 <= f64::from(most) + refilled, "{sum} tokens");
    let each = *used.iter().max().unwrap();
    assert!(sum + each > u64::from(most), "{sum} tokens, although another {each} would have fitted");
}

#[test]
fn tokens_that_were_reserved_and_not_used_come_back() {
    let store = Memory::default();
    let secret = key(&store, "acme", Rates { tokens_per_minute: Some(1_000), ..Rates::default() });
    let server = server(any_port(), &store);
    // The answer has 8 tokens, and up to 900 are reserved.
    let body = question(json!({"max_tokens": 900}));
    let reply = post_as(&server, secret.as_str(), "/v1/chat/completions", &body);
    let used = reply.json()["usage"]["total_tokens"].as_u64().unwrap();
    let left: u64 = reply.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
    // Between both, the bucket has filled a little.
    assert!((1_000 - used..=1_000).contains(&left), "{left} left after {used}");
    // A client that leaves a stream pays for what was generated.
    let mut wire = Wire::open(server.address);
    let bearer = format!("Bearer {}", secret.as_str());
    let mut long = story(700);
    long["stream"] = json!(true);
    wire.send(request("POST", "/v1/completions", &[("authorization", &bearer)], &long.to_string()));
    wire.until("data: ");
    let refused = post_as(&server, secret.as_str(), "/v1/completions", &story(700));
    assert_eq!(refused.status, 429, "{}", refused.body);
    drop(wire);
    eventually("what is left is enough again", || {
        post_as(&server, secret.as_str(), "/v1/completions", &story(1))
            .header("x-ratelimit-remaining-tokens")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 700
    });
}

#[test]
fn what_no_minute_holds_is_a_400() {
    let store = Memory::default();
    let secret = key(&store, "acme", Rates { tokens_per_minute: Some(50), ..Rates::default() });
    let server = server(any_port(), &store);
    let reply = post_as(&server, secret.as_str(), "/v1/completions", &story(60));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("tokens_per_minute_exceeded")));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("max_tokens"));
    assert_eq!(post_as(&server, secret.as_str(), "/v1/completions", &story(10)).status, 200);
}

#[test]
fn a_tenants_limits_hold_over_all_its_keys() {
    let store = Memory::default();
    let keys = [key(&store, "acme", Rates::default()), key(&store, "acme", Rates::default())];
    let other = key(&store, "other", Rates::default());
    let rates = Rates { concurrent_requests: Some(1), requests_per_minute: Some(100), ..Rates::default() };
    let acme = TenantConfig { rates, ..TenantConfig::default() };
    let server = server(Config { tenants: [("acme".to_owned(), acme)].into(), ..any_port() }, &store);
    let mut wire = Wire::open(server.address);
    let bearer = format!("Bearer {}", keys[0].as_str());
    let mut long = story(8_000);
    long["stream"] = json!(true);
    wire.send(request("POST", "/v1/completions", &[("authorization", &bearer)], &long.to_string()));
    wire.until("data: ");
    let refused = post_as(&server, keys[1].as_str(), "/v1/completions", &story(1));
    assert_eq!(refused.status, 429);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("tenant"), "{}", refused.body);
    assert_eq!(post_as(&server, other.as_str(), "/v1/completions", &story(1)).status, 200);
    drop(wire);
    eventually("the place is free", || {
        post_as(&server, keys[1].as_str(), "/v1/completions", &story(1)).status == 200
    });
}

#[test]
fn a_full_queue_is_a_429_with_a_time() {
    let store = Memory::default();
    let secret = key(&store, "acme", Rates::default());
    let limits = LimitsConfig { max_concurrent: Some(1), max_queued: Some(1), ..LimitsConfig::default() };
    let acme = TenantConfig { limits, ..TenantConfig::default() };
    let server = server(Config { tenants: [("acme".to_owned(), acme)].into(), ..any_port() }, &store);
    let bearer = format!("Bearer {}", secret.as_str());
    let mut wires = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::open(server.address);
        wire.send(request(
            "POST",
            "/v1/completions",
            &[("authorization", &bearer)],
            &story(8_000).to_string(),
        ));
        wires.push(wire);
    }
    eventually("one runs and one waits", || {
        let all = model().metrics().served;
        (all.running, all.waiting) == (1, 1)
    });
    let refused = post_as(&server, secret.as_str(), "/v1/completions", &story(1));
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true), "{}", refused.body);
}

#[test]
fn a_full_engine_is_a_429_for_everyone() {
    let options = LoadOptions { max_queued: Some(2), kv_tokens: Some(2_048), ..LoadOptions::default() };
    let tiny = common::realm().load_model_with(MODEL, &options, &mut ()).unwrap();
    // One request runs, two wait in the engine's queue, and the others find it full.
    let limits = LimitsConfig { max_concurrent: Some(1), ..LimitsConfig::default() };
    let tenants = [("default".to_owned(), TenantConfig { limits, ..TenantConfig::default() })].into();
    let config = Config { tenants, ..any_port() };
    let server = start_with(config, vec![(MODEL.to_owned(), tiny.clone())], None);
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let mut wire = Wire::open(server.address);
            wire.send(request("POST", "/v1/completions", &[], &story(1_900).to_string()));
            wire
        })
        .collect();
    eventually("the queue is full", || tiny.metrics().served.waiting == 2);
    let refused = common::post(&server, "/v1/completions", &story(1_900));
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.header("retry-after").is_some());
    drop(busy);
    eventually("none is at work", || tiny.metrics().served.running + tiny.metrics().served.waiting == 0);
}

#[test]
fn streams_of_two_tenants_do_not_mix() {
    let store = Memory::default();
    let keys = [key(&store, "one", Rates::default()), key(&store, "two", Rates::default())];
    let server = server(any_port(), &store);
    let alone: Vec<String> =
        ["one two three", "red green blue"].iter().map(|prompt| text(&server, &keys[0], prompt)).collect();
    assert_ne!(alone[0], alone[1]);
    std::thread::scope(|scope| {
        for round in 0..16 {
            let (server, keys, alone) = (&server, &keys, &alone);
            scope.spawn(move || {
                let which = round % 2;
                let prompt = ["one two three", "red green blue"][which];
                assert_eq!(text(server, &keys[which], prompt), alone[which]);
            });
        }
    });
}

/// The text of a stream.
fn text(server: &common::Running, key: &Secret, prompt: &str) -> String {
    let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 24, "temperature": 0, "stream": true});
    let events = post_as(server, key.as_str(), "/v1/completions", &body).events();
    let (last, events) = events.split_last().unwrap();
    assert_eq!(last.1, "[DONE]");
    let text = |data: &str| {
        serde_json::from_str::<Value>(data).unwrap()["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    events.iter().map(|(_, data)| text(data)).collect()
}

#[test]
fn a_request_time_limit_of_the_tenant_ends_a_stream_with_an_error_event() {
    let store = Memory::default();
    let secret = key(&store, "acme", Rates::default());
    let limits =
        LimitsConfig { request_timeout: Some(Duration::from_millis(300)), ..LimitsConfig::default() };
    let acme = TenantConfig { limits, ..TenantConfig::default() };
    let server = server(Config { tenants: [("acme".to_owned(), acme)].into(), ..any_port() }, &store);
    let mut body = story(8_000);
    body["stream"] = json!(true);
    let reply = post_as(&server, secret.as_str(), "/v1/completions", &body);
    assert_eq!(reply.status, 200);
    let events = reply.events();
    let error: Value = serde_json::from_str(&events[events.len() - 2].1).unwrap();
    assert_eq!(error["error"]["code"], "limit-exceeded", "{error}");
    let chat = question(
        json!({"stream": true, "max_tokens": 8_000, "messages": [{"role": "user", "content": "Write a very long story."}]}),
    );
    let events = post_as(&server, secret.as_str(), "/v1/messages", &chat).events();
    let last = events.last().unwrap();
    // A model that ends its story in time is no failure.
    assert!(matches!(last.0.as_deref(), Some("error" | "message_stop")), "{last:?}");
    assert!(model().metrics().served.requests.timed_out >= 1);
}
