//! Models, aliases, tenants, adapters and programs that change while requests run.

mod common;

use common::{
    MODEL, Running, Wire, admin, admin_as, any_port, call, conformance, eventually, model, post, request,
    running, start_with, story,
};
use realm_server::{Config, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The configuration of a server with administration, whose changes are kept in a folder.
fn config(folder: &TempDir) -> Config {
    Config {
        admin: Some(([127, 0, 0, 1], 0).into()),
        state: Some(folder.path().join("state.db")),
        ..any_port()
    }
}

fn start(folder: &TempDir) -> Running {
    start_with(config(folder), vec![(MODEL.to_owned(), model())], None)
}

fn load(server: &Running, name: &str) {
    load_from(server, name, &conformance("tiny.gguf"));
}

fn load_from(server: &Running, name: &str, source: &str) {
    let path = format!("/admin/models/{name}");
    let begun = admin(server, "PUT", &path, &json!({"source": source}));
    assert_eq!((&begun["state"], &begun["name"]), (&json!("loading"), &json!(name)));
    assert!(begun["loading"]["done"].is_u64(), "{begun}");
    eventually("the model is loaded", || {
        let model = admin(server, "GET", &path, &Value::Null);
        assert!(model["error"].is_null(), "{model}");
        model["loading"].is_null() && model["state"] == "loaded"
    });
}

fn complete(server: &Running, model: &str) -> u16 {
    post(server, "/v1/completions", &json!({"model": model, "prompt": "a", "max_tokens": 1})).status
}

/// The text of an answer to a request with the object `realm`.
fn with_extras(server: &Running, realm: Value) -> Result<String, (u16, String)> {
    let body = json!({"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0, "realm": realm});
    let reply = post(server, "/v1/completions", &body);
    if reply.status == 200 {
        return Ok(reply.json()["choices"][0]["text"].as_str().unwrap().to_owned());
    }
    Err((reply.status, reply.json()["error"]["code"].as_str().unwrap().to_owned()))
}

fn upload(server: &Running, tenant: &str, name: &str, file: &str) -> (u16, Value) {
    let wasm = std::fs::read(conformance(&format!("programs/{file}"))).unwrap();
    let head = format!(
        "PUT /admin/tenants/{tenant}/programs/{name} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        wasm.len()
    );
    let mut wire = Wire::open(server.admin.unwrap());
    wire.send(head).send(wasm);
    let reply = wire.reply();
    (reply.status, reply.json())
}

#[test]
fn models_come_and_go_while_requests_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    assert_eq!(complete(&server, "tiny"), 404);
    load(&server, "tiny");
    assert_eq!(complete(&server, "tiny"), 200);
    admin(&server, "PUT", "/admin/aliases/chat", &json!({"model": "tiny"}));
    assert_eq!(complete(&server, "chat"), 200);
    let names = |server: &Running| {
        let list = common::get(server, "/v1/models").json();
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&server), [MODEL, "tiny", "chat"]);
    // An alias keeps its model; another model under it is a swap.
    let refused = admin_as(&server, "", "DELETE", "/admin/models/tiny", &Value::Null);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("conflict")));
    load(&server, "second");
    admin(&server, "PUT", "/admin/aliases/chat", &json!({"model": "second"}));

    // A stream that has begun outlives its model's name.
    let mut wire = Wire::open(server.address);
    let mut body = story(300);
    body["model"] = json!("tiny");
    body["stream"] = json!(true);
    wire.send(request("POST", "/v1/completions", &[], &body.to_string()));
    wire.until("data: ");
    let unloading = admin(&server, "DELETE", "/admin/models/tiny", &Value::Null);
    // On a busy machine the stream may have ended by now.
    assert_eq!(unloading["state"], "unloading");
    assert!(unloading["running"].as_u64().unwrap() <= 1, "{unloading}");
    assert_eq!(complete(&server, "tiny"), 404);
    let rest = String::from_utf8(wire.rest()).unwrap();
    assert!(rest.contains("[DONE]") && !rest.contains("\"error\""), "{rest}");
    eventually("the model is gone", || {
        admin_as(&server, "", "GET", "/admin/models/tiny", &Value::Null).status == 404
    });
    assert_eq!(complete(&server, "chat"), 200);
    admin(&server, "DELETE", "/admin/aliases/chat", &Value::Null);
    assert_eq!(complete(&server, "chat"), 404);
    assert_eq!(names(&server), ["second", MODEL]);
}

#[test]
fn a_model_is_swapped_under_its_alias_without_a_request_lost() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    load(&server, "m0");
    admin(&server, "PUT", "/admin/aliases/chat", &json!({"model": "m0"}));
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = || {
            let mut asked = 0;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let mut body = story(16);
                (body["model"], body["stream"]) = (json!("chat"), json!(asked % 2 == 0));
                let reply = post(&server, "/v1/completions", &body);
                assert_eq!(reply.status, 200, "{reply:?}");
                assert!(!reply.body.contains("\"error\""), "{reply:?}");
                asked += 1;
            }
            asked
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(asking)).collect();
        for round in 1..8 {
            load(&server, &format!("m{round}"));
            admin(&server, "PUT", "/admin/aliases/chat", &json!({"model": format!("m{round}")}));
            admin(&server, "DELETE", &format!("/admin/models/m{}", round - 1), &Value::Null);
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>() > 0);
    });
}

#[test]
fn an_unloaded_model_is_freed_when_its_last_request_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    let copy = folder.path().join("alone.gguf");
    std::fs::copy(conformance("tiny.gguf"), &copy).unwrap();
    load_from(&server, "alone", copy.to_str().unwrap());
    assert_eq!(complete(&server, "alone"), 200);
    let is_loaded = || common::get(&server, "/metrics").body.contains("alone.gguf");
    assert!(is_loaded());
    let mut wire = Wire::open(server.address);
    let mut body = story(2_000);
    (body["model"], body["stream"]) = (json!("alone"), json!(true));
    wire.send(request("POST", "/v1/completions", &[], &body.to_string()));
    wire.until("data: ");
    admin(&server, "DELETE", "/admin/models/alone", &Value::Null);
    let shown = || admin_as(&server, "", "GET", "/admin/models/alone", &Value::Null);
    // A client that does not read holds its request, and the request its model.
    let unloading = shown().json();
    assert!(unloading["unloading"][0]["running"] == 1 && is_loaded(), "{unloading}");
    drop(wire);
    eventually("the model is gone", || shown().status == 404 && !is_loaded());
}

#[test]
fn a_model_with_other_options_takes_the_place_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    load(&server, "tiny");
    let new = json!({"source": conformance("tiny.gguf"), "context-length": 32});
    admin(&server, "PUT", "/admin/models/tiny", &new);
    let shown = || admin(&server, "GET", "/admin/models/tiny", &Value::Null);
    eventually("it is replaced", || {
        assert_eq!(complete(&server, "tiny"), 200);
        shown()["config"] == new
    });
    let long = json!({"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 64, "ignore_eos": true});
    let answered = post(&server, "/v1/completions", &long).json();
    assert_eq!(answered["usage"]["completion_tokens"], 29, "{answered}");
    // The same again is done already.
    assert_eq!(admin_as(&server, "", "PUT", "/admin/models/tiny", &new).status, 200);
    let lora = json!({"model": MODEL, "source": conformance("adapter")});
    admin(&server, "PUT", "/admin/tenants/default/adapters/lora", &lora);
    let refused = admin_as(&server, "", "DELETE", &format!("/admin/models/{MODEL}"), &Value::Null);
    assert_eq!(refused.status, 409);
}

#[test]
fn a_load_that_fails_says_why_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    let absent = json!({"source": folder.path().join("absent.gguf")});
    admin(&server, "PUT", "/admin/models/small", &absent);
    let show = || admin_as(&server, "", "GET", "/admin/models/small", &Value::Null).json();
    eventually("the load has ended", || show()["loading"].is_null());
    let shown = show();
    assert_eq!(shown["state"], "failed");
    assert!(shown["error"].as_str().unwrap().contains("absent.gguf"), "{shown}");
    assert_eq!(complete(&server, "small"), 404);
    admin(&server, "DELETE", "/admin/models/small", &Value::Null);
    assert_eq!(show()["error"]["code"], "model_not_found");
    // The application's own models are not administration's to change.
    let path = format!("/admin/models/{MODEL}");
    for (method, body) in [("PUT", &absent), ("DELETE", &Value::Null)] {
        let refused = admin_as(&server, "", method, &path, body);
        assert_eq!(refused.status, 409, "{refused:?}");
    }
    for (method, path, body, word) in [
        ("PUT", "/admin/models/small", json!({"sauce": "x"}), "sauce"),
        ("PUT", "/admin/models/small", json!({"context-length": 0}), "context-length"),
        ("PUT", "/admin/models/small", json!({"context-length": "x"}), "usize"),
        ("PUT", "/admin/models/%20", json!({}), "no name"),
        ("PUT", "/admin/aliases/a", json!({"model": "absent"}), "absent"),
        ("PUT", "/admin/aliases/a", json!({}), "model"),
        ("PUT", "/admin/tenants/acme", json!({"limits": {"weight": 0}}), "weight"),
        ("PUT", "/admin/tenants/acme", json!({"models": ["absent"]}), "absent"),
        ("PUT", "/admin/tenants/acme", json!({"grants": {"programs": ["mine"]}}), "OWNER/NAME"),
        ("PUT", "/admin/tenants/acme", json!({"grants": {"http": ["https://a/b"]}}), "host"),
        ("PUT", "/admin/tenants/acme", json!({"grants": {"http": vec!["a.b"; 1_025]}}), "at most 1024"),
        ("PUT", "/admin/tenants/a%2Fb", json!({}), "no name"),
        ("PUT", "/admin/tenants/acme/adapters/x", json!({"model": MODEL, "source": "x"}), "tenant"),
        ("PUT", "/admin/tenants/default/adapters/x", json!({"model": MODEL, "source": "/absent"}), "absent"),
        ("PUT", "/admin/tenants/default/programs/x", json!({"no": "program"}), "WebAssembly"),
        ("POST", "/admin/tenants/default/programs/x/rollback", json!({}), "program"),
        ("POST", "/admin/keys", json!({"tenant": "a"}), "--api-keys"),
        ("POST", "/admin/reload", Value::Null, "configuration"),
        ("GET", "/admin/nothing", Value::Null, "openapi.json"),
        ("POST", "/admin/models", Value::Null, "GET"),
    ] {
        let refused = admin_as(&server, "", method, path, &body);
        assert!((400..500).contains(&refused.status), "{method} {path}: {refused:?}");
        let error = &refused.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(word), "{method} {path}: {error}");
    }
}

#[test]
fn all_changes_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    load(&server, "tiny");
    admin(&server, "PUT", "/admin/aliases/chat", &json!({"model": "tiny"}));
    let acme =
        json!({"limits": {"weight": 3.0, "request-timeout": 60.0}, "rates": {"requests-per-minute": 7}});
    admin(&server, "PUT", "/admin/tenants/acme", &acme);
    let adapter = json!({"model": MODEL, "source": conformance("adapter")});
    admin(&server, "PUT", "/admin/tenants/default/adapters/lora", &adapter);
    for file in ["echo.wasm", "hello.wasm", "echo.wasm"] {
        let (status, shown) = upload(&server, "default", "p", file);
        assert_eq!(status, 200, "{shown}");
    }
    admin(&server, "POST", "/admin/tenants/default/programs/p/rollback", &Value::Null);
    let state = |server: &Running| {
        let mut all = Vec::new();
        for path in ["models", "aliases", "tenants", "tenants/default/adapters", "tenants/default/programs"] {
            let mut found = admin(server, "GET", &format!("/admin/{path}"), &Value::Null);
            for model in found["models"].as_array_mut().into_iter().flatten() {
                model["created"] = Value::Null;
            }
            all.push(found);
        }
        all
    };
    let (before, adapted) = (state(&server), with_extras(&server, json!({"adapter": "lora"})));
    assert_eq!(with_extras(&server, json!({"program": "p"})), Ok("hello".to_owned()));
    assert_eq!(before[2]["tenants"][0]["config"]["limits"], acme["limits"]);
    assert_eq!(before[4]["programs"][0]["version"], 2);
    drop(server);
    let server = start(&folder);
    assert_eq!(state(&server), before);
    assert_eq!(complete(&server, "chat"), 200);
    assert_eq!(with_extras(&server, json!({"program": "p"})), Ok("hello".to_owned()));
    assert_eq!(with_extras(&server, json!({"adapter": "lora"})), adapted);
    for path in [
        "aliases/chat",
        "models/tiny",
        "tenants/acme",
        "tenants/default/adapters/lora",
        "tenants/default/programs/p",
    ] {
        admin(&server, "DELETE", &format!("/admin/{path}"), &Value::Null);
    }
    drop(server);
    let server = start(&folder);
    assert_eq!(complete(&server, "chat"), 404);
    for (what, found) in ["models", "aliases", "tenants", "adapters", "programs"].iter().zip(state(&server)) {
        let left = if ["models", "tenants"].contains(what) { 1 } else { 0 };
        assert_eq!(found[what].as_array().unwrap().len(), left, "{found}");
    }
}

#[test]
fn an_entry_that_cannot_be_restored_is_listed_and_the_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.gguf");
    std::fs::copy(conformance("tiny.gguf"), &copy).unwrap();
    let server = start(&folder);
    load(&server, "tiny");
    admin(&server, "PUT", "/admin/models/gone", &json!({"source": copy}));
    eventually("it is loaded", || complete(&server, "gone") == 200);
    drop(server);
    std::fs::remove_file(copy).unwrap();
    let server = start(&folder);
    assert_eq!((complete(&server, "tiny"), complete(&server, "gone")), (200, 404));
    let shown = admin(&server, "GET", "/admin/models/gone", &Value::Null);
    assert_eq!(shown["state"], "failed", "{shown}");
    admin(&server, "DELETE", "/admin/models/gone", &Value::Null);
    drop(server);
    let server = start(&folder);
    assert_eq!(admin_as(&server, "", "GET", "/admin/models/gone", &Value::Null).status, 404);
}

#[test]
fn programs_are_swapped_rolled_back_and_granted() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    assert_eq!(with_extras(&server, json!({"program": "p"})), Err((404, "program_not_found".to_owned())));
    assert_eq!(upload(&server, "default", "p", "hello.wasm").1["version"], 1);
    assert_eq!(with_extras(&server, json!({"program": "p"})), Ok("hello".to_owned()));
    // The same bytes are no new version.
    assert_eq!(upload(&server, "default", "p", "hello.wasm").1["version"], 1);
    let (_, shown) = upload(&server, "default", "p", "echo.wasm");
    assert_eq!((&shown["version"], shown["versions"].as_array().unwrap().len()), (&json!(2), 2));
    let input = json!({"program": "p", "input": {"a": 1}});
    assert_eq!(with_extras(&server, input), Ok("{\"a\":1}".to_owned()));
    admin(&server, "POST", "/admin/tenants/default/programs/p/rollback", &json!({}));
    assert_eq!(with_extras(&server, json!({"program": "p"})), Ok("hello".to_owned()));
    let refused =
        admin_as(&server, "", "POST", "/admin/tenants/default/programs/p/rollback", &json!({"version": 9}));
    assert_eq!(refused.status, 409);
    admin(&server, "POST", "/admin/tenants/default/programs/p/rollback", &json!({"version": 2}));
    assert_eq!(with_extras(&server, json!({"program": "p", "input": 5})), Ok("5".to_owned()));

    // Another tenant's program is reached by a grant alone.
    admin(&server, "PUT", "/admin/tenants/acme", &json!({}));
    assert_eq!(upload(&server, "acme", "greet", "hello.wasm").0, 200);
    for name in ["acme/greet", "greet", "acme/absent", "nobody/greet"] {
        let refused = with_extras(&server, json!({"program": name}));
        assert_eq!(refused, Err((404, "program_not_found".to_owned())), "{name}");
    }
    admin(&server, "PUT", "/admin/tenants/default", &json!({"grants": {"programs": ["acme/greet"]}}));
    assert_eq!(with_extras(&server, json!({"program": "acme/greet"})), Ok("hello".to_owned()));
    // A tenant's own program answers if none is named, in every protocol.
    admin(
        &server,
        "PUT",
        "/admin/tenants/default",
        &json!({"program": "acme/greet", "grants": {"programs": ["acme/greet"]}}),
    );
    assert_eq!(with_extras(&server, json!({})), Ok("hello".to_owned()));
    let question = common::question(json!({"stream": false}));
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
        let reply = post(&server, path, &question);
        assert!(reply.status == 200 && reply.body.contains("hello"), "{path}: {reply:?}");
    }
    let reply = post(&server, "/v1/responses", &json!({"model": MODEL, "input": "a"}));
    assert!(reply.body.contains("hello"), "{reply:?}");
    let refused = admin_as(&server, "", "DELETE", "/admin/tenants/acme", &Value::Null);
    assert_eq!(refused.status, 409);
    admin(&server, "DELETE", "/admin/tenants/acme/programs/greet", &Value::Null);
    admin(&server, "DELETE", "/admin/tenants/acme", &Value::Null);
    assert_eq!(with_extras(&server, json!({})), Err((404, "program_not_found".to_owned())));
}

#[test]
fn grants_of_programs_hold_over_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    assert_eq!(upload(&server, "default", "clock", "clock.wasm").0, 200);
    let denied = with_extras(&server, json!({"program": "clock"}));
    admin(&server, "PUT", "/admin/tenants/default", &json!({"grants": {"clock": true}}));
    let allowed = with_extras(&server, json!({"program": "clock"}));
    assert_ne!(denied, allowed);
    assert!(allowed.is_ok(), "{allowed:?}");
}

#[test]
fn adapters_belong_to_a_tenant_and_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    load(&server, "tiny");
    let plain = with_extras(&server, json!({})).unwrap();
    let lora = json!({"model": MODEL, "source": conformance("adapter")});
    let shown = admin(&server, "PUT", "/admin/tenants/default/adapters/lora", &lora);
    assert_eq!((&shown["rank"], &shown["state"]), (&json!(1), &json!("loaded")));
    let adapted = with_extras(&server, json!({"adapter": "lora"})).unwrap();
    assert_ne!(adapted, plain);
    assert_eq!(with_extras(&server, json!({"adapter": "lora", "adapter_scale": 0})), Ok(plain.clone()));
    assert_eq!(
        with_extras(&server, json!({"adapter": "absent"})),
        Err((404, "adapter_not_found".to_owned()))
    );
    let alone = with_extras(&server, json!({"adapter_scale": 1}));
    assert_eq!(alone.unwrap_err().0, 400);
    // An adapter of another model, and one that does not fit.
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 1, "realm": {"adapter": "lora"}});
    let other = post(&server, "/v1/completions", &body);
    assert!(other.json()["error"]["param"] == "realm.adapter" && !other.body.contains(MODEL), "{other:?}");
    let misfit = json!({"model": "tiny", "source": conformance("adapter")});
    let refused = admin_as(&server, "", "PUT", "/admin/tenants/default/adapters/other", &misfit);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("invalid-adapter")));
    // Another tenant's, by a grant alone.
    admin(&server, "PUT", "/admin/tenants/acme", &json!({}));
    admin(&server, "PUT", "/admin/tenants/acme/adapters/theirs", &lora);
    let theirs = json!({"adapter": "acme/theirs"});
    assert_eq!(with_extras(&server, theirs.clone()), Err((404, "adapter_not_found".to_owned())));
    admin(&server, "PUT", "/admin/tenants/default", &json!({"grants": {"adapters": ["acme/theirs"]}}));
    assert_eq!(with_extras(&server, theirs), Ok(adapted));
    admin(&server, "DELETE", "/admin/tenants/default/adapters/lora", &Value::Null);
    assert_eq!(with_extras(&server, json!({"adapter": "lora"})), Err((404, "adapter_not_found".to_owned())));
}

#[test]
fn limits_of_a_tenant_change_while_it_calls() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    assert_eq!(complete(&server, MODEL), 200);
    admin(&server, "PUT", "/admin/tenants/default", &json!({"rates": {"requests-per-minute": 1}}));
    assert_eq!((complete(&server, MODEL), complete(&server, MODEL)), (200, 429));
    admin(&server, "PUT", "/admin/tenants/default", &json!({"models": []}));
    assert_eq!(complete(&server, MODEL), 404);
    admin(&server, "DELETE", "/admin/tenants/default", &Value::Null);
    assert_eq!(complete(&server, MODEL), 200);
}

#[test]
fn a_tenant_with_an_alias_alone_learns_nothing_of_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    admin(&server, "PUT", "/admin/aliases/chat", &json!({"model": MODEL}));
    admin(&server, "PUT", "/admin/tenants/default", &json!({"models": ["chat"]}));
    assert_eq!((complete(&server, "chat"), complete(&server, MODEL)), (200, 404));
    let list = common::get(&server, "/v1/models").body;
    assert!(list.contains("chat") && !list.contains(MODEL), "{list}");
    admin(&server, "PUT", "/admin/tenants/default", &json!({"models": [MODEL]}));
    assert_eq!((complete(&server, "chat"), complete(&server, MODEL)), (200, 200));
}

#[test]
fn administration_is_at_its_own_address_alone_and_no_page_reaches_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    for (address, path, status) in [
        (server.address, "/admin/models", 404),
        (server.admin.unwrap(), "/v1/models", 404),
        (server.admin.unwrap(), "/metrics", 404),
        (server.admin.unwrap(), "/health", 200),
        (server.admin.unwrap(), "/admin/status", 200),
    ] {
        assert_eq!(call(address, "GET", path, &[], "").status, status, "{path}");
    }
    let page = [("origin", "https://evil.example.com")];
    assert_eq!(call(server.admin.unwrap(), "GET", "/admin/status", &page, "").status, 403);
    let mut wire = Wire::open(server.admin.unwrap());
    wire.send("GET /admin/status HTTP/1.1\r\nhost: rebound.example.com\r\nconnection: close\r\n\r\n");
    assert_eq!(wire.reply().status, 403);
}

#[test]
fn administration_needs_a_place_for_its_changes_and_keys_beyond_this_machine() {
    let local = Config { admin: Some(([127, 0, 0, 1], 0).into()), ..any_port() };
    let open = Config { admin: Some(([0, 0, 0, 0], 0).into()), state: Some("x.db".into()), ..any_port() };
    let both = Config { state: Some("x.db".into()), api_keys: Some("y.db".into()), ..any_port() };
    for (config, word) in [(local, "--state"), (open, "--scope administration"), (both, "state")] {
        let error = Server::new(config, common::realm(), []).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn every_body_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.http.max_body = 2_000;
    let server = running(Server::new(config, common::realm(), [(MODEL.to_owned(), model())]).unwrap());
    let large = json!({"source": "x".repeat(3_000)});
    assert_eq!(admin_as(&server, "", "PUT", "/admin/models/a", &large).status, 413);
    for at in 0..64 {
        admin(&server, "PUT", &format!("/admin/aliases/a{at}"), &json!({"model": MODEL}));
    }
    let name = format!("/admin/aliases/{}", "a".repeat(200));
    assert_eq!(admin_as(&server, "", "PUT", &name, &json!({"model": MODEL})).status, 400);
}

#[test]
fn a_tenant_has_no_more_programs_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    // Compiled code is on the tenant's account.
    admin(&server, "PUT", "/admin/tenants/small", &json!({"limits": {"memory": 1_000}}));
    let (status, refused) = upload(&server, "small", "p", "hello.wasm");
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("limit-exceeded")), "{refused}");
    admin(&server, "PUT", "/admin/tenants/small", &json!({}));
    for at in 0..64 {
        assert_eq!(upload(&server, "small", &format!("p{at}"), "hello.wasm").0, 200);
    }
    let (status, refused) = upload(&server, "small", "one-more", "hello.wasm");
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("too_many")));
    // Another version of one of them is none more; the last 8 versions are kept.
    for at in 0..9 {
        let file = if at % 2 == 0 { "echo.wasm" } else { "hello.wasm" };
        let (status, shown) = upload(&server, "small", "p0", file);
        assert_eq!(status, 200, "{shown}");
    }
    let programs = admin(&server, "GET", "/admin/tenants/small/programs", &Value::Null);
    let versions = programs["programs"][0]["versions"].as_array().unwrap();
    let numbers: Vec<_> = versions.iter().map(|version| version["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn acts_at_once_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder);
    // Bodies that never come keep their places; no more are read than may be at once. Some more ask than
    // there are places, since the requests for the status take places, too.
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut wire = Wire::open(server.admin.unwrap());
            wire.send("PUT /admin/aliases/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n");
            wire
        })
        .collect();
    let status = || admin_as(&server, "", "GET", "/admin/status", &Value::Null);
    eventually("all places are taken", || status().status == 429);
    assert_eq!(status().header("retry-after"), Some("1"));
    drop(waiting);
    eventually("they are free again", || status().status == 200);
}
