//! The powers of keys over administration, and the audit log.

mod common;

use common::{MODEL, Memory, Reply, Running, admin_as, any_port, call, conformance, model, start_with};
use realm_server::keys::{Key, Scope, Secret};
use realm_server::{Config, TenantConfig};
use serde_json::{Value, json};

struct Keys {
    inference: Secret,
    metrics: Secret,
    acme: Secret,
    everything: Secret,
}

fn add(store: &Memory, tenant: &str, scopes: &[Scope]) -> Secret {
    let (mut key, secret) = Key::create(tenant).unwrap();
    key.scopes = scopes.to_vec();
    store.keys.lock().unwrap().push(key);
    secret
}

fn start(config: Config) -> (Running, Keys, Memory) {
    let store = Memory::default();
    let keys = Keys {
        inference: add(&store, "acme", &[Scope::Inference]),
        metrics: add(&store, "acme", &[Scope::Metrics]),
        acme: add(&store, "acme", &[Scope::TenantAdministration]),
        everything: add(&store, "ops", &[Scope::Administration]),
    };
    let secret = TenantConfig::default();
    let config = Config {
        admin: Some(([127, 0, 0, 1], 0).into()),
        api_keys: Some("in-memory".into()),
        tenants: [("other".to_owned(), secret)].into(),
        ..config
    };
    let server = start_with(config, vec![(MODEL.to_owned(), model())], Some(Box::new(store.clone())));
    (server, keys, store)
}

/// The routes as the server itself describes them, with names that exist or not in place of those in braces.
fn routes(server: &Running, key: &Secret, exists: bool) -> Vec<(String, String)> {
    let described = admin_as(server, key.as_str(), "GET", "/openapi.json", &Value::Null).json();
    let mut found = Vec::new();
    for (path, calls) in described["paths"].as_object().unwrap() {
        if path == "/health" {
            continue;
        }
        let (tenant, name) = if exists { ("other", MODEL) } else { ("nobody", "absent") };
        let path = path.replace("{tenant}", tenant).replace("{name}", name).replace("{id}", "0123456789");
        for method in calls.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            found.push((method.to_uppercase(), path.clone()));
        }
    }
    assert!(found.len() >= 24, "{found:?}");
    found
}

fn body(reply: &Reply) -> String {
    reply.body.replace("nobody", "TENANT").replace("other", "TENANT")
}

#[test]
fn callers_without_a_right_administer_nothing_and_learn_nothing() {
    let (server, keys, _) = start(any_port());
    let (there, absent) = (routes(&server, &keys.everything, true), routes(&server, &keys.everything, false));
    for ((method, path), (_, other)) in there.iter().zip(&absent) {
        let reply = |key: &str, path: &str| admin_as(&server, key, method, path, &json!({}));
        for (key, status) in
            [("", 401), ("rk_nonsense", 401), (keys.inference.as_str(), 403), (keys.metrics.as_str(), 403)]
        {
            let (one, two) = (reply(key, path), reply(key, other));
            assert_eq!((one.status, two.status), (status, status), "{method} {path}: {one:?}");
            assert_eq!(one.body, two.body, "{method} {path}");
        }
        // A tenant's administrator gets the same for another tenant and for none.
        if path.contains("/tenants/other") {
            let (one, two) = (reply(keys.acme.as_str(), path), reply(keys.acme.as_str(), other));
            assert!(matches!(one.status, 403 | 404), "{method} {path}: {one:?}");
            assert_eq!((one.status, body(&one)), (two.status, body(&two)), "{method} {path}");
        }
    }
    // Nothing of all that was done.
    let models = admin_as(&server, keys.everything.as_str(), "GET", "/admin/models", &Value::Null).json();
    assert_eq!(models["models"].as_array().unwrap().len(), 1, "{models}");
    // The keys of administration ask no models.
    for key in [&keys.acme, &keys.everything] {
        let bearer = format!("Bearer {}", key.as_str());
        let reply = call(server.address, "GET", "/v1/models", &[("authorization", &bearer)], "");
        assert_eq!(reply.status, 403);
    }
}

#[test]
fn a_tenants_administrator_has_its_own_tenant_alone() {
    let (server, keys, store) = start(any_port());
    let everything = |method: &str, path: &str, body: Value| {
        let reply = admin_as(&server, keys.everything.as_str(), method, path, &body);
        assert!(reply.status < 300, "{method} {path}: {reply:?}");
        reply.json()
    };
    let acme =
        |method: &str, path: &str, body: Value| admin_as(&server, keys.acme.as_str(), method, path, &body);
    everything("PUT", "/admin/aliases/theirs", json!({"model": MODEL}));
    everything("PUT", "/admin/tenants/acme", json!({"models": ["theirs"]}));
    let lora = json!({"model": MODEL, "source": conformance("adapter")});
    everything("PUT", "/admin/tenants/acme/adapters/lora", lora);
    // It sees what it may use, and no files.
    assert_eq!(acme("GET", "/admin/models", Value::Null).json(), json!({"models": []}));
    assert_eq!(acme("GET", &format!("/admin/models/{MODEL}"), Value::Null).status, 404);
    let aliases = acme("GET", "/admin/aliases", Value::Null);
    assert!(aliases.body.contains("theirs") && !aliases.body.contains(MODEL), "{aliases:?}");
    let adapters = acme("GET", "/admin/tenants/acme/adapters", Value::Null);
    assert!(adapters.body.contains("lora"), "{adapters:?}");
    assert!(!adapters.body.contains("conformance") && !adapters.body.contains(MODEL), "{adapters:?}");
    let tenants = acme("GET", "/admin/tenants", Value::Null).json();
    assert_eq!(tenants["tenants"].as_array().unwrap().len(), 1);
    assert_eq!(tenants["tenants"][0]["name"], "acme");
    // It changes neither its limits nor the server.
    for (method, path) in [
        ("PUT", "/admin/tenants/acme"),
        ("PUT", "/admin/tenants/acme/adapters/x"),
        ("DELETE", "/admin/tenants/acme/adapters/lora"),
        ("PUT", "/admin/models/x"),
        ("POST", "/admin/reload"),
        ("GET", "/admin/status"),
    ] {
        assert_eq!(acme(method, path, json!({})).status, 403, "{method} {path}");
    }
    // Its keys can do no more than it.
    let all = acme("GET", "/admin/keys", Value::Null).json();
    let ids: Vec<_> = all["keys"].as_array().unwrap().iter().map(|key| &key["id"]).collect();
    assert_eq!(ids, [keys.inference.id(), keys.acme.id()]);
    let made = acme("POST", "/admin/keys", json!({"tenant": "acme", "note": "new", "expires-in": 60}));
    assert_eq!((made.status, &made.json()["scopes"]), (200, &json!(["inference"])));
    let secret = made.json()["key"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {secret}");
    assert_eq!(call(server.address, "GET", "/v1/models", &[("authorization", &bearer)], "").status, 200);
    assert!(!acme("GET", "/admin/keys", Value::Null).body.contains(&secret));
    for (body, status) in [
        (json!({"tenant": "acme", "scopes": ["administration"]}), 400),
        (json!({"tenant": "acme", "scopes": ["metrics"]}), 400),
        (json!({"tenant": "acme", "scopes": ["nothing"]}), 400),
        (json!({"tenant": "acme", "note": "x".repeat(300)}), 400),
        (json!({"tenant": "acme", "rates": {"requests-per-minute": 0}}), 400),
        (json!({"tenant": "acme", "expires-in": u64::MAX}), 400),
        (json!({"tenant": "other"}), 404),
        (json!({"tenant": "nobody"}), 404),
    ] {
        let refused = acme("POST", "/admin/keys", body.clone());
        assert_eq!(refused.status, status, "{body}: {refused:?}");
    }
    let strange = [keys.everything.id(), keys.metrics.id(), "0123456789"];
    for id in strange {
        for (method, path) in
            [("DELETE", format!("/admin/keys/{id}")), ("POST", format!("/admin/keys/{id}/rotate"))]
        {
            let refused = acme(method, &path, json!({}));
            assert_eq!(
                (refused.status, body(&refused).replace(id, "ID")),
                (404, refused.body.replace(id, "ID"))
            );
            assert_eq!(refused.json()["error"]["code"], "key_not_found");
        }
    }
    let status = |secret: &str| {
        call(server.address, "GET", "/v1/models", &[("authorization", &format!("Bearer {secret}"))], "")
            .status
    };
    let rotated = acme("POST", &format!("/admin/keys/{}/rotate", keys.inference.id()), json!({"overlap": 0}));
    assert_eq!(rotated.status, 200, "{rotated:?}");
    assert_eq!(status(rotated.json()["key"].as_str().unwrap()), 200);
    assert_eq!(status(keys.inference.as_str()), 401);
    assert_eq!(acme("DELETE", &format!("/admin/keys/{}", keys.inference.id()), Value::Null).status, 200);
    assert!(store.keys.lock().unwrap().iter().all(|key| key.id != keys.inference.id()));
    let bearer = format!("Bearer {}", keys.inference.as_str());
    assert_eq!(call(server.address, "GET", "/v1/models", &[("authorization", &bearer)], "").status, 401);
}

#[test]
fn the_audit_log_has_acts_and_refusals_and_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let (server, keys, _) = start(Config { audit_log: Some(path.clone()), ..any_port() });
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let made = admin_as(&server, keys.everything.as_str(), "POST", "/admin/keys", &json!({"tenant": "acme"}));
    // What is answered is on disk.
    let line = lines().pop().unwrap();
    assert_eq!(
        (&line["act"], &line["result"], &line["key"]),
        (&json!("CreateKey"), &json!("done"), &json!(keys.everything.id()))
    );
    assert_eq!(line["request"], made.header("x-request-id").unwrap());
    let alias = json!({"model": "a secret name"});
    admin_as(&server, keys.everything.as_str(), "PUT", "/admin/aliases/chat", &alias);
    let line = lines().pop().unwrap();
    assert_eq!(
        (&line["act"], &line["object"], &line["result"]),
        (&json!("SetAlias"), &json!("chat"), &json!("not-found"))
    );
    admin_as(&server, keys.acme.as_str(), "POST", "/admin/reload", &Value::Null);
    let line = lines().pop().unwrap();
    assert_eq!(
        (&line["act"], &line["result"], &line["tenant"]),
        (&json!("Reload"), &json!("denied"), &json!("acme"))
    );
    // Reading is no act.
    let before = lines().len();
    admin_as(&server, keys.everything.as_str(), "GET", "/admin/models", &Value::Null);
    assert_eq!(lines().len(), before);
    // Refusals of both addresses; a thousand of them do not fill the disk.
    call(server.address, "GET", "/v1/models", &[], "");
    admin_as(&server, keys.inference.as_str(), "GET", "/admin/models", &Value::Null);
    let (_, unknown) = Key::create("acme").unwrap();
    admin_as(&server, unknown.as_str(), "GET", "/admin/models", &Value::Null);
    common::eventually("refusals are written", || lines().len() >= before + 3);
    let found: Vec<_> =
        lines()[before..].iter().map(|line| (line["result"].clone(), line["key"].clone())).collect();
    let expected = [
        (json!("no-key"), Value::Null),
        (json!("scope"), json!(keys.inference.id())),
        (json!("unknown-key"), json!(unknown.id())),
    ];
    assert_eq!(found, expected);
    for _ in 0..300 {
        call(server.address, "GET", "/v1/models", &[], "");
    }
    common::eventually("the rest is counted", || lines().last().unwrap()["more"].is_u64());
    let text = std::fs::read_to_string(&path).unwrap();
    let secret = made.json()["key"].as_str().unwrap().to_owned();
    for word in [&secret[14..], &keys.everything.as_str()[14..], &unknown.as_str()[14..], "a secret name"] {
        assert!(!text.contains(word), "{word}");
    }
    assert!(lines().len() < 300, "{} lines", lines().len());
}
