//! `/openapi.json` against the answers of the server, and against the page that lists its calls.

mod common;

use std::collections::BTreeSet;

use common::{MODEL, Reply, Running, admin_as, any_port, call, conformance, eventually, model, start_with};
use realm_server::Config;
use serde_json::{Value, json};

fn described(server: &Running, administration: bool) -> Value {
    let address = if administration { server.admin.unwrap() } else { server.address };
    let described = call(address, "GET", "/openapi.json", &[], "").json();
    assert_eq!(described["openapi"], "3.1.0");
    described
}

/// Fails unless a value has the form of a schema.
fn check(described: &Value, schema: &Value, value: &Value, what: &str) {
    let mut whole = described.clone();
    whole["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    whole["$ref"] = schema["$ref"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<_> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path)).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

fn check_reply(described: &Value, method: &str, path: &str, reply: &Reply) {
    let operation = &described["paths"][path][method.to_lowercase()];
    assert!(operation.is_object(), "{method} {path} is not described");
    let responses = &operation["responses"];
    let status = reply.status.to_string();
    let response = if responses[&status].is_null() { &responses["default"] } else { &responses[&status] };
    let kind = reply.header("content-type").unwrap();
    // Events are described without their encoding.
    let kind = kind.trim_end_matches("; charset=utf-8");
    let kind = if path == "/metrics" { reply.header("content-type").unwrap() } else { kind };
    let content = &response["content"][kind];
    assert!(content.is_object(), "{method} {path} has {kind}, which is not described: {reply:?}");
    if kind == "application/json" {
        check(described, &content["schema"], &reply.json(), &format!("{method} {path}"));
    }
}

#[test]
fn answers_of_models_have_the_described_form() {
    let server = common::start(any_port());
    let described = described(&server, false);
    let chat = common::question(json!({"max_tokens": 4}));
    let text = json!({"model": MODEL, "prompt": "a", "max_tokens": 2});
    let mut streamed = chat.clone();
    streamed["stream"] = json!(true);
    let whole = json!({"model": MODEL, "messages": chat["messages"], "prompt": "a", "stream": false, "options": {"num_predict": 2}});
    let mut seen = BTreeSet::new();
    for (method, path, given, body) in [
        ("GET", "/health", "/health", Value::Null),
        ("GET", "/metrics", "/metrics", Value::Null),
        ("GET", "/openapi.json", "/openapi.json", Value::Null),
        ("POST", "/v1/chat/completions", "", chat.clone()),
        ("POST", "/v1/chat/completions", "", streamed.clone()),
        ("POST", "/v1/chat/completions", "", json!({"model": "absent"})),
        ("POST", "/v1/completions", "", text.clone()),
        ("POST", "/v1/embeddings", "", json!({"model": MODEL, "input": ["a", "b"]})),
        ("POST", "/v1/embeddings", "", json!({"model": MODEL, "input": "a", "encoding_format": "base64"})),
        ("GET", "/v1/models", "", Value::Null),
        ("GET", "/v1/models/{name}", "/v1/models/smollm2-135m", Value::Null),
        ("GET", "/v1/models/{name}", "/v1/models/absent", Value::Null),
        ("POST", "/v1/responses", "", json!({"model": MODEL, "input": "a", "max_output_tokens": 4})),
        ("POST", "/v1/responses/input_tokens", "", json!({"model": MODEL, "input": "a"})),
        ("POST", "/v1/messages", "", chat.clone()),
        ("POST", "/v1/messages", "", streamed),
        ("POST", "/v1/messages/count_tokens", "", chat.clone()),
        ("POST", "/api/chat", "", whole.clone()),
        (
            "POST",
            "/api/chat",
            "",
            json!({"model": MODEL, "messages": chat["messages"], "options": {"num_predict": 2}}),
        ),
        ("POST", "/api/generate", "", whole),
        ("POST", "/api/embed", "", json!({"model": MODEL, "input": "a"})),
        ("POST", "/api/show", "", json!({"model": MODEL})),
        ("GET", "/api/tags", "", Value::Null),
        ("GET", "/api/version", "", Value::Null),
        ("POST", "/tokenize", "", json!({"model": MODEL, "prompt": "a"})),
        ("POST", "/detokenize", "", json!({"model": MODEL, "tokens": [1]})),
    ] {
        let given = if given.is_empty() { path } else { given };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = call(server.address, method, given, &[], &body);
        assert_eq!(reply.status == 200, !body.contains("absent") && !given.contains("absent"), "{reply:?}");
        let kind = reply.header("content-type").unwrap().to_owned();
        // Anthropic's and ollama's errors have forms of their own.
        check_reply(&described, method, path, &reply);
        seen.insert(format!("{method} {path}"));
        assert!(!kind.is_empty());
    }
    assert_eq!(seen, all(&described));
}

/// The described calls.
fn all(described: &Value) -> BTreeSet<String> {
    let paths = described["paths"].as_object().unwrap();
    let of_path = |(path, calls): (&String, &Value)| {
        let methods = calls.as_object().unwrap().keys();
        methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// A value of a described type.
fn sample(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("string") => json!("a"),
        Some("integer") => json!(1),
        Some("number") => json!(0.5),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ if schema["$ref"].is_string() => json!({}),
        _ => json!("a"),
    }
}

#[test]
fn every_described_field_of_a_request_is_known() {
    let server = common::start(Config { strict: true, ..any_port() });
    let described = described(&server, false);
    let mut fields = 0;
    for (path, calls) in described["paths"].as_object().unwrap() {
        let body = &calls["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(name) = body.as_str().and_then(|reference| reference.rsplit('/').next()) else { continue };
        let schemas = &described["components"]["schemas"];
        let schema = &schemas[name];
        let base = |key: &str| match key {
            "model" => json!("absent"),
            "messages" => json!([{"role": "user", "content": "a"}]),
            "max_tokens" => json!(1),
            "tokens" => json!([1]),
            _ => json!("a"),
        };
        let required = schema["required"].as_array().unwrap().iter();
        let required: serde_json::Map<_, _> =
            required.map(|key| key.as_str().unwrap()).map(|key| (key.to_owned(), base(key))).collect();
        let mut asks = |more: &[(&str, Value)]| {
            let mut body = required.clone();
            // A text, unless it goes by its other name or is a conversation.
            let other = |(key, _): &(&str, Value)| ["content", "messages"].contains(key);
            if path == "/tokenize" && !more.iter().any(other) {
                body.insert("prompt".into(), json!("a"));
            }
            if name == "OllamaGenerateRequest" {
                body.insert("prompt".into(), json!("a"));
            }
            body.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            fields += 1;
            call(server.address, "POST", path, &[], &Value::Object(body).to_string())
        };
        // An unknown field is refused, so that a known one is told from it.
        let unknown = asks(&[("colour", json!(1))]);
        assert!(unknown.status == 400 && unknown.body.contains("colour"), "{path}: {unknown:?}");
        assert_eq!(asks(&[]).status, 404, "{path}");
        for (key, field) in schema["properties"].as_object().unwrap() {
            let reply = asks(&[(key, sample(field))]);
            assert!(!reply.body.contains("unknown parameter"), "{path} {key}: {reply:?}");
            if key == "realm" {
                for (own, field) in schemas["Realm"]["properties"].as_object().unwrap() {
                    let reply = asks(&[("realm", json!({own: sample(field)}))]);
                    assert!(!reply.body.contains("unknown parameter"), "{path} realm.{own}: {reply:?}");
                }
            }
        }
    }
    assert!(fields > 150, "{fields}");
}

#[test]
fn answers_of_administration_have_the_described_form() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        admin: Some(([127, 0, 0, 1], 0).into()),
        api_keys: Some(folder.path().join("keys.db")),
        ..any_port()
    };
    let (mut key, secret) = realm_server::keys::Key::create("ops").unwrap();
    key.scopes = realm_server::keys::Scope::ALL.to_vec();
    let mut store = realm_server::keys::Sqlite::open(&folder.path().join("keys.db")).unwrap();
    realm_server::keys::Store::add(&mut store, &key).unwrap();
    let server = start_with(config, vec![(MODEL.to_owned(), model())], Some(Box::new(store)));
    let described = admin_as(&server, secret.as_str(), "GET", "/openapi.json", &Value::Null).json();
    let id = key.id;
    let wasm = std::fs::read(conformance("programs/hello.wasm")).unwrap();
    let tenant = json!({
        "models": ["tiny"],
        "rates": {"requests-per-minute": 1, "tokens-per-minute": 2, "concurrent-requests": 3},
        "limits": {"weight": 2.5, "max-concurrent": 1, "max-queued": 2, "kv-tokens": 3, "tokens-per-minute": 4, "request-timeout": 5.5, "memory": 6_000_000},
        "grants": {"adapters": ["a/b"], "programs": ["a/b"], "log": true, "clock": true, "random": true, "store": 5, "http": ["*.example.com"]},
        "program": "p",
    });
    let model = json!({"source": conformance("tiny.gguf"), "context-length": 64, "kv-tokens": 256, "max-queued": 9, "gpu-layers": 1, "chat-template": "chatml"});
    let mut seen = BTreeSet::new();
    for (method, path, body) in [
        ("GET", "/health", Value::Null),
        ("GET", "/openapi.json", Value::Null),
        ("GET", "/admin/status", Value::Null),
        ("POST", "/admin/reload", Value::Null),
        ("PUT", "/admin/models/{name}=tiny", model),
        ("GET", "/admin/models/{name}=tiny", Value::Null),
        ("GET", "/admin/models", Value::Null),
        ("PUT", "/admin/aliases/{name}=chat", json!({"model": MODEL})),
        ("GET", "/admin/aliases", Value::Null),
        ("DELETE", "/admin/aliases/{name}=chat", Value::Null),
        ("PUT", "/admin/tenants/{tenant}=acme", tenant.clone()),
        ("GET", "/admin/tenants/{tenant}=acme", Value::Null),
        ("GET", "/admin/tenants", Value::Null),
        (
            "PUT",
            "/admin/tenants/{tenant}=acme/adapters/{name}=lora",
            json!({"model": MODEL, "source": conformance("adapter")}),
        ),
        ("GET", "/admin/tenants/{tenant}=acme/adapters", Value::Null),
        ("DELETE", "/admin/tenants/{tenant}=acme/adapters/{name}=lora", Value::Null),
        ("PUT", "/admin/tenants/{tenant}=acme/programs/{name}=p", Value::Null),
        ("GET", "/admin/tenants/{tenant}=acme/programs", Value::Null),
        ("POST", "/admin/tenants/{tenant}=acme/programs/{name}=p/rollback", json!({"version": 1})),
        ("DELETE", "/admin/tenants/{tenant}=acme/programs/{name}=p", Value::Null),
        ("DELETE", "/admin/tenants/{tenant}=acme", Value::Null),
        (
            "POST",
            "/admin/keys",
            json!({"tenant": "acme", "note": "a", "scopes": ["inference"], "models": ["tiny"], "rates": {"requests-per-minute": 5}, "expires-in": 60}),
        ),
        ("GET", "/admin/keys", Value::Null),
        ("POST", "/admin/keys/{id}=ID/rotate", json!({"overlap": 60})),
        ("DELETE", "/admin/models/{name}=tiny", Value::Null),
        ("DELETE", "/admin/keys/{id}=ID", Value::Null),
    ] {
        let words = path.split('/').map(|word| word.split_once('=').unwrap_or((word, word)));
        let (pattern, given): (Vec<_>, Vec<_>) = words.unzip();
        let (pattern, given) = (pattern.join("/"), given.join("/").replace("ID", &id));
        let reply = if path.ends_with("{name}=p") && method == "PUT" {
            let bearer = format!("authorization: Bearer {}", secret.as_str());
            let head = format!(
                "PUT {given} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{bearer}\r\ncontent-length: {}\r\n\r\n",
                wasm.len()
            );
            common::Wire::open(server.admin.unwrap()).send(head).send(&wasm).reply()
        } else {
            admin_as(&server, secret.as_str(), method, &given, &body)
        };
        // Without a file there is nothing to read again.
        assert!(reply.status < 300 || path == "/admin/reload", "{method} {path}: {reply:?}");
        check_reply(&described, method, &pattern, &reply);
        if path.ends_with("=acme") && method == "PUT" {
            assert_eq!(reply.json()["config"], tenant);
        }
        if !body.is_null() && pattern != "/admin/reload" {
            let schema = &described["paths"][&pattern][method.to_lowercase()]["requestBody"]["content"]["application/json"]
                ["schema"];
            check(&described, schema, &body, path);
        }
        if method == "PUT" && path.ends_with("=tiny") {
            let loaded = |reply: Reply| reply.json()["state"] == "loaded";
            eventually("it is loaded", || {
                loaded(admin_as(&server, secret.as_str(), "GET", &given, &Value::Null))
            });
        }
        if method == "GET" && path.ends_with("=acme") {
            // The tenant has a key from here on, and goes only when that is revoked.
            assert_eq!(reply.json()["keys"], 0);
        }
        seen.insert(format!("{method} {pattern}"));
    }
    assert_eq!(seen, all(&described));
}

#[test]
fn the_page_lists_every_call() {
    let folder = tempfile::tempdir().unwrap();
    let state = Some(folder.path().join("state.db"));
    let server = common::start(Config { admin: Some(([127, 0, 0, 1], 0).into()), state, ..any_port() });
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/server.md")).unwrap();
    // A row of a table begins with the calls of one kind, in the order method, paths.
    let mut listed = BTreeSet::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let calls = row.split(" |").next().unwrap();
        for group in calls.split("; `") {
            let group = group.replace('`', "");
            let Some((methods, paths)) = group.split_once(' ') else { continue };
            if !paths.starts_with('/') {
                continue;
            }
            for method in methods.split('/') {
                for path in paths.split(", ") {
                    listed.insert(format!("{method} {path}"));
                }
            }
        }
    }
    let capitals = |call: String| {
        let words = call.split('/').map(|word| match word.strip_prefix('{') {
            Some(word) => word.trim_end_matches('}').to_uppercase(),
            None => word.to_owned(),
        });
        words.collect::<Vec<_>>().join("/")
    };
    let mut calls: BTreeSet<String> = all(&described(&server, false)).into_iter().map(capitals).collect();
    calls.extend(all(&described(&server, true)).into_iter().map(capitals));
    assert_eq!(listed, calls);
}
