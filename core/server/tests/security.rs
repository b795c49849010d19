//! Keys, scopes, pages of strangers, and what errors say.

mod common;

use common::{MODEL, Memory, any_port, call, eventually, model, post_as, question, start, start_with};
use realm_server::keys::{Key, Scope, Secret};
use realm_server::{Config, TenantConfig};
use serde_json::json;

/// Every route, with a body that it would answer.
fn routes() -> Vec<(&'static str, &'static str, String)> {
    let chat = question(json!({"max_tokens": 1})).to_string();
    let text =
        json!({"model": MODEL, "prompt": "a", "input": "a", "tokens": [1], "max_tokens": 1, "stream": false})
            .to_string();
    vec![
        ("POST", "/v1/chat/completions", chat.clone()),
        ("POST", "/chat/completions", chat.clone()),
        ("POST", "/v1/completions", json!({"model": MODEL, "prompt": "a", "max_tokens": 1}).to_string()),
        ("POST", "/v1/embeddings", json!({"model": MODEL, "input": "a"}).to_string()),
        ("POST", "/v1/responses", json!({"model": MODEL, "input": "a", "max_output_tokens": 1}).to_string()),
        ("POST", "/v1/responses/input_tokens", json!({"model": MODEL, "input": "a"}).to_string()),
        ("POST", "/v1/messages", chat.clone()),
        ("POST", "/v1/messages/count_tokens", chat.clone()),
        ("POST", "/api/chat", chat),
        ("POST", "/api/generate", text.clone()),
        ("POST", "/api/embed", json!({"model": MODEL, "input": "a"}).to_string()),
        ("POST", "/api/show", text.clone()),
        ("POST", "/tokenize", text),
        ("POST", "/detokenize", json!({"model": MODEL, "tokens": [1]}).to_string()),
        ("GET", "/v1/models", String::new()),
        ("GET", "/v1/models/smollm2-135m", String::new()),
        ("GET", "/api/tags", String::new()),
        ("GET", "/api/version", String::new()),
        ("GET", "/metrics", String::new()),
        ("GET", "/openapi.json", String::new()),
        ("GET", "/no/such/path", String::new()),
        ("GET", "/v1/chat/completions", String::new()),
        ("GET", "/v1/responses/resp_1", String::new()),
        ("DELETE", "/v1/models/smollm2-135m", String::new()),
    ]
}

fn key(tenant: &str, scopes: &[Scope]) -> (Key, Secret) {
    let (mut key, secret) = Key::create(tenant).unwrap();
    key.scopes = scopes.to_vec();
    (key, secret)
}

#[test]
fn the_routes_of_these_tests_are_the_servers() {
    let described = call(start(any_port()).address, "GET", "/openapi.json", &[], "").json();
    let known: Vec<_> = routes().into_iter().map(|(method, path, _)| (method, path)).collect();
    for (path, calls) in described["paths"].as_object().unwrap() {
        let path = path.replace("{name}", MODEL);
        for method in calls.as_object().unwrap().keys() {
            let here = known.iter().any(|(m, p)| m.eq_ignore_ascii_case(method) && *p == path);
            assert!(here || path == "/health", "{method} {path} is not among the routes");
        }
    }
}

#[test]
fn callers_without_a_right_get_nothing_on_any_route() {
    let store = Memory::default();
    let (inference, inference_key) = key("acme", &[Scope::Inference]);
    let (metrics, metrics_key) = key("watch", &[Scope::Metrics]);
    let (mut expired, expired_key) = key("acme", &[Scope::Inference, Scope::Metrics]);
    expired.expires = Some(1);
    let (nothing, nothing_key) = key("acme", &[]);
    let (_, unknown_key) = key("acme", &[Scope::Inference]);
    store.keys.lock().unwrap().extend([inference, metrics, expired, nothing]);
    let server = start_with(any_port(), vec![(MODEL.to_owned(), model())], Some(Box::new(store)));
    let status = |method: &str, path: &str, body: &str, headers: &[(&str, &str)]| {
        let reply = call(server.address, method, path, headers, body);
        (reply.status, reply.body)
    };
    for (method, path, body) in routes() {
        let bearer = |secret: &Secret| format!("Bearer {}", secret.as_str());
        let mut refusals = Vec::new();
        let mut refused = |headers: &[(&str, &str)], expected: u16| {
            // The same request for a model that does not exist must not differ.
            let other = body.replace(MODEL, "no-such-model");
            for (body, path) in [(&body, path.to_owned()), (&other, path.replace(MODEL, "no-such-model"))] {
                let (status, answer) = status(method, &path, body, headers);
                assert_eq!(status, expected, "{method} {path} {headers:?}: {answer}");
                assert!(!answer.contains("model"), "{answer}");
                refusals.push((status, answer));
            }
        };
        refused(&[], 401);
        refused(&[("authorization", "Bearer nonsense")], 401);
        refused(&[("authorization", "Basic cmVhbG06cmVhbG0=")], 401);
        for secret in [&expired_key, &unknown_key] {
            refused(&[("authorization", &bearer(secret))], 401);
            refused(&[("x-api-key", secret.as_str())], 401);
        }
        refused(&[("authorization", &bearer(&inference_key)), ("x-api-key", metrics_key.as_str())], 401);
        refused(&[("authorization", &bearer(&nothing_key))], 403);
        let wrong = if path == "/metrics" { &inference_key } else { &metrics_key };
        refused(&[("authorization", &bearer(wrong))], 403);
        let right = if path == "/metrics" { &metrics_key } else { &inference_key };
        let (answered, answer) = status(method, path, &body, &[("authorization", &bearer(right))]);
        let expected = match (method, path) {
            ("DELETE", _) => 405,
            (_, "/no/such/path") | ("GET", "/v1/chat/completions" | "/v1/responses/resp_1") => 404,
            _ => 200,
        };
        assert_eq!(answered, expected, "{method} {path}: {answer}");
    }
    assert_eq!(status("GET", "/health", "", &[]), (200, r#"{"status":"ok"}"#.to_owned()));
}

#[test]
fn a_forbidden_model_is_one_that_does_not_exist() {
    let store = Memory::default();
    let (mut limited, secret) = key("acme", &[Scope::Inference]);
    limited.models = Some(vec!["open".to_owned()]);
    let (of_tenant, tenants_secret) = key("small", &[Scope::Inference]);
    store.keys.lock().unwrap().extend([limited, of_tenant]);
    let small = TenantConfig { models: Some(vec!["open".to_owned()]), ..TenantConfig::default() };
    let config = Config { tenants: [("small".to_owned(), small)].into(), ..any_port() };
    let models = vec![("open".to_owned(), model()), ("closed".to_owned(), model())];
    let server = start_with(config, models, Some(Box::new(store)));
    for secret in [secret.as_str(), tenants_secret.as_str()] {
        let bearer = format!("Bearer {secret}");
        let reply = |model: &str, path: &str, body: &str| {
            let body = serde_json::from_str(&body.replace(MODEL, model)).unwrap();
            let reply = post_as(&server, secret, path, &body);
            (reply.status, reply.body.replace(model, "NAME"))
        };
        for (method, path, body) in routes() {
            if method == "POST" {
                let (forbidden, unknown) = (reply("closed", path, &body), reply("absent", path, &body));
                assert_eq!(forbidden, unknown, "{path}");
                assert_eq!(forbidden.0, 404, "{path}: {}", forbidden.1);
            }
        }
        assert_eq!(
            reply("open", "/v1/chat/completions", &question(json!({"max_tokens": 1})).to_string()).0,
            200
        );
        let list = call(server.address, "GET", "/v1/models", &[("authorization", &bearer)], "").json();
        let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
        assert_eq!(names, ["open"]);
        let one = call(server.address, "GET", "/v1/models/closed", &[("authorization", &bearer)], "");
        assert_eq!(one.status, 404);
    }
}

#[test]
fn a_revoked_key_is_refused_within_a_second_or_two() {
    let store = Memory::default();
    let (key, secret) = key("acme", &[Scope::Inference]);
    store.keys.lock().unwrap().push(key);
    let server = start_with(any_port(), vec![(MODEL.to_owned(), model())], Some(Box::new(store.clone())));
    let status =
        || post_as(&server, secret.as_str(), "/tokenize", &json!({"model": MODEL, "prompt": "a"})).status;
    assert_eq!(status(), 200);
    store.keys.lock().unwrap().clear();
    eventually("the key is refused", || status() == 401);
}

#[test]
fn what_a_key_used_is_written_behind() {
    let store = Memory::default();
    let (key, secret) = key("acme", &[Scope::Inference]);
    let id = key.id.clone();
    store.keys.lock().unwrap().push(key);
    let server = start_with(any_port(), vec![(MODEL.to_owned(), model())], Some(Box::new(store.clone())));
    let usage =
        post_as(&server, secret.as_str(), "/v1/chat/completions", &question(json!({}))).json()["usage"]
            .clone();
    // Stopping writes what is left.
    drop(server);
    let used = store.used.lock().unwrap().clone();
    assert_eq!(used.len(), 1, "{used:?}");
    assert_eq!((&used[0].0, used[0].1.requests), (&id, 1));
    assert_eq!(usage["prompt_tokens"], used[0].1.prompt_tokens);
    assert_eq!(usage["completion_tokens"], used[0].1.generated_tokens);
}

#[test]
fn another_address_without_keys_refuses_to_start() {
    let config = Config { host: [0, 0, 0, 0].into(), ..any_port() };
    let error = realm_server::Server::new(config, common::realm(), []).err().unwrap().to_string();
    assert!(error.contains("realm api-key create") && error.contains("127.0.0.1"), "{error}");
}

#[test]
fn web_pages_reach_nothing_unless_they_are_listed() {
    let listed = "https://chat.example.com";
    let config = Config { allowed_origins: vec![listed.to_owned()], ..any_port() };
    let (open, closed) = (start(config), start(any_port()));
    let get = |server: &common::Running, headers: &[(&str, &str)]| {
        call(server.address, "GET", "/v1/models", headers, "")
    };
    let evil = get(&closed, &[("origin", "https://evil.example.com")]);
    assert_eq!((evil.status, evil.header("access-control-allow-origin")), (403, None));
    let allowed = get(&open, &[("origin", listed)]);
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some(listed)));
    assert_eq!(get(&open, &[("origin", "https://evil.example.com")]).status, 403);
    let ask = [
        ("origin", listed),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let preflight = call(open.address, "OPTIONS", "/v1/chat/completions", &ask, "");
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-headers")),
        (204, Some("authorization"))
    );
    assert_eq!(preflight.header("access-control-allow-credentials"), None);
    // A page whose name was pointed at this machine.
    let mut wire = common::Wire::open(closed.address);
    wire.send("GET /v1/models HTTP/1.1\r\nhost: rebound.example.com\r\nconnection: close\r\n\r\n");
    assert_eq!(wire.reply().status, 403);
    let named = start(Config { allowed_hosts: vec!["llm.example.com".to_owned()], ..any_port() });
    let mut wire = common::Wire::open(named.address);
    wire.send("GET /v1/models HTTP/1.1\r\nhost: llm.example.com:8443\r\nconnection: close\r\n\r\n");
    assert_eq!(wire.reply().status, 200);
}

#[test]
fn every_answer_has_an_id_and_no_error_names_a_path_or_an_address() {
    let server = start(any_port());
    let mut ids = std::collections::HashSet::new();
    let bodies = [
        "",
        "{",
        "[]",
        "{\"model\": 1}",
        "{\"model\": \"/etc/passwd\"}",
        "{\"model\": \"../../x\", \"messages\": []}",
    ];
    for (method, path, _) in routes() {
        for body in bodies {
            let reply = call(server.address, method, path, &[], body);
            assert!(ids.insert(reply.header("x-request-id").unwrap().to_owned()), "an id came twice");
            assert!(reply.status < 500, "{method} {path} {body}: {}", reply.body);
            if path == "/metrics" {
                continue;
            }
            let text = reply.body.replace("/etc/passwd", "").replace("../../x", "");
            for word in ["/root", "/home", "/work", "/tmp", ".gguf", "127.0.0.1", ".rs"] {
                assert!(!text.contains(word), "{method} {path} {body}: {text}");
            }
        }
    }
}
