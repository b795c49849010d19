//! A configuration that is read again while requests run.

mod common;

use std::sync::{Arc, Mutex};

use common::{MODEL, Running, Wire, any_port, conformance, post, request, running, story};
use realm_server::{Config, Error, Server};
use serde_json::json;

/// A server whose configuration is a text that a test changes.
struct Configured {
    server: Running,
    file: Arc<Mutex<String>>,
}

fn read(text: &str) -> Result<Config, Error> {
    // The file stays for the lines of errors.
    let path = tempfile::tempdir().unwrap().keep().join("realm.toml");
    std::fs::write(&path, text).unwrap();
    let mut config = Config::read(&path)?;
    config.port = 0;
    Ok(config)
}

impl Configured {
    fn start(text: &str) -> Self {
        let config = read(text).unwrap();
        let load = |name: &String| {
            let model = &config.models[name];
            let source = model.source.as_deref().unwrap_or(name);
            common::realm()
                .load_model_with(source, &model.load_options(&Default::default()), &mut ())
                .unwrap()
        };
        let models: Vec<_> = config.models.keys().map(|name| (name.clone(), load(name))).collect();
        let file = Arc::new(Mutex::new(text.to_owned()));
        let reread = Arc::clone(&file);
        let server = Server::new(config, common::realm(), models).unwrap();
        let server = running(server.on_reload(move || read(&reread.lock().unwrap())));
        Self { server, file }
    }

    fn reload(&self, text: &str) -> Result<(), String> {
        *self.file.lock().unwrap() = text.to_owned();
        self.server.reloader.reload().map_err(|error| error.to_string())
    }

    fn complete(&self, model: &str) -> u16 {
        post(&self.server, "/v1/completions", &json!({"model": model, "prompt": "a", "max_tokens": 1})).status
    }
}

fn tiny(name: &str) -> String {
    format!("[models.{name}]\nsource = \"{}\"\n", conformance("tiny.gguf"))
}

#[test]
fn a_good_file_changes_models_aliases_and_tenants_while_requests_run() {
    let configured = Configured::start(&tiny("one"));
    let mut wire = Wire::open(configured.server.address);
    let mut body = story(300);
    (body["model"], body["stream"]) = (json!("one"), json!(true));
    wire.send(request("POST", "/v1/completions", &[], &body.to_string()));
    wire.until("data: ");
    let new = format!(
        "strict = true\n{}context-length = 64\n[aliases]\nchat = \"two\"\n[tenants.default]\nrates.requests-per-minute = 3\n",
        tiny("two")
    );
    configured.reload(&new).unwrap();
    let rest = String::from_utf8(wire.rest()).unwrap();
    assert!(rest.contains("[DONE]") && !rest.contains("\"error\""), "{rest}");
    assert_eq!(configured.complete("one"), 404);
    assert_eq!(configured.complete("chat"), 200);
    let unknown = json!({"model": "two", "prompt": "a", "max_tokens": 1, "colour": 1});
    let refused = post(&configured.server, "/v1/completions", &unknown);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("unknown_parameter")));
    assert_eq!(configured.complete("two"), 429);
    // A file without the tenant gives it the defaults again, and one with other options loads anew.
    let context = format!("{}context-length = 32\n", tiny("two"));
    configured.reload(&context).unwrap();
    let long = json!({"model": "two", "prompt": [1, 2, 3], "max_tokens": 64, "ignore_eos": true});
    let answered = post(&configured.server, "/v1/completions", &long);
    assert_eq!(answered.json()["usage"]["completion_tokens"], 29, "{answered:?}");
}

#[test]
fn a_faulty_file_is_refused_with_its_place_and_nothing_changes() {
    let old = format!("{}[aliases]\nchat = \"one\"\n", tiny("one"));
    let configured = Configured::start(&old);
    let hello = conformance("programs/hello.wasm");
    for (text, words) in [
        (format!("{old}[tenants.acme]\nlimits.priority = 1\n"), &["line 6", "priority", "weight"][..]),
        (format!("{old}[tenants.acme]\nrates.tokens-per-minute = \"many\"\n"), &["line 6", "u32"]),
        (format!("prot = 1\n{old}"), &["line 1", "prot", "port"]),
        (format!("{old}[http]\nkeep-alive = 0\n"), &["line 6", "0.001"]),
        (format!("{old}x = [\n"), &["line 5"]),
        (format!("{old}[tenants.acme]\nlimits.weight = 0\n"), &["line 5", "acme", "weight"]),
        (format!("{old}[tenants.acme]\nmodels = [\"two\"]\n"), &["line 6", "acme", "two", "one"]),
        (old.replace("chat = \"one\"", "chat = \"two\""), &["line 4", "aliases.chat", "two", "one"]),
        (old.replace("chat =", "one ="), &["line 4", "aliases.one"]),
        (old.replace("tiny.gguf", "absent.gguf"), &["line 1", "models.one", "absent.gguf"]),
        (
            format!("{old}[tenants.acme.adapters.a]\nmodel = \"one\"\nsource = \"/absent\"\n"),
            &["acme.adapters.a"],
        ),
        (
            format!("{old}[tenants.acme.adapters.a]\nmodel = \"two\"\nsource = \"/absent\"\n"),
            &["adapters.a", "two"],
        ),
        (format!("{old}[tenants.acme.programs.p]\nsource = \"/absent\"\n"), &["acme.programs.p", "/absent"]),
        (format!("{old}[tenants.acme]\nprogram = \"p\"\n"), &["line 6", "acme.program", "`p`"]),
        (
            format!("{old}[tenants.acme]\ngrants.programs = [\"b/p\"]\n"),
            &["line 6", "grants.programs", "b/p"],
        ),
        (format!("{old}[tenants.\"a/b\"]\n"), &["line 5", "a/b", "a-z"]),
        (format!("host = \"::1\"\n{old}"), &["line 1", "`host`", "restart"]),
        (format!("access-log = \"-\"\n{old}"), &["`access-log`"]),
        (
            format!(
                "{old}[tenants.acme.programs.p]\nsource = \"{hello}\"\n[tenants.acme.programs.q]\nsource = \"{}\"\n",
                conformance("tiny.gguf")
            ),
            &["programs.q"],
        ),
    ] {
        let error = configured.reload(&text).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{text}\n{error}");
        }
        assert_eq!((configured.complete("one"), configured.complete("chat")), (200, 200), "{text}");
    }
    configured.reload(&old).unwrap();
}

#[test]
fn tenants_in_the_file_have_adapters_and_programs() {
    let text = |program: &str, more: &str| {
        format!(
            "[models.{MODEL}]\n[tenants.default.programs.p]\nsource = \"{}\"\n[tenants.default.adapters.lora]\n\
             model = \"{MODEL}\"\nsource = \"{}\"\n{more}",
            conformance(&format!("programs/{program}")),
            conformance("adapter")
        )
    };
    let configured = Configured::start(&text("hello.wasm", ""));
    let ask = |realm: serde_json::Value| {
        let body = json!({"model": MODEL, "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0, "realm": realm});
        let reply = post(&configured.server, "/v1/completions", &body).json();
        reply["choices"][0]["text"].as_str().map(str::to_owned)
    };
    assert_eq!(ask(json!({"program": "p"})).as_deref(), Some("hello"));
    let adapted = ask(json!({"adapter": "lora"}));
    assert!(adapted.is_some() && adapted != ask(json!({})));
    configured.reload(&text("echo.wasm", "")).unwrap();
    assert_eq!(ask(json!({"program": "p", "input": 7})).as_deref(), Some("7"));
    configured.reload(&text("echo.wasm", "[tenants.default]\nprogram = \"p\"\n")).unwrap();
    assert_eq!(ask(json!({"input": 8})).as_deref(), Some("8"));
    // The model is loaded anew, and its adapter with it.
    let again =
        text("echo.wasm", "").replace("]\n[tenants.default.p", "]\nkv-tokens = 512\n[tenants.default.p");
    configured.reload(&again).unwrap();
    assert_eq!(ask(json!({"adapter": "lora"})), adapted);
    configured.reload(&format!("[models.{MODEL}]\nkv-tokens = 512\n")).unwrap();
    assert_eq!((ask(json!({"program": "p"})), ask(json!({"adapter": "lora"}))), (None, None));
}

#[test]
fn what_administration_made_and_what_the_file_names_do_not_clash() {
    let folder = tempfile::tempdir().unwrap();
    let head = format!("admin = \"127.0.0.1:0\"\nstate = \"{}\"\n", folder.path().join("state.db").display());
    let old = format!("{head}{}", tiny("one"));
    let configured = Configured::start(&old);
    let server = &configured.server;
    common::admin(server, "PUT", "/admin/aliases/chat", &json!({"model": "one"}));
    common::admin(server, "PUT", "/admin/tenants/acme", &json!({}));
    for (text, word) in [
        (format!("{old}[aliases]\nchat = \"one\"\n"), "aliases.chat"),
        (format!("{old}[tenants.acme]\n"), "tenants.acme"),
        (format!("{head}{}", tiny("chat")), "chat"),
        (format!("{head}{}", tiny("two")), "chat"),
    ] {
        let error = configured.reload(&text).unwrap_err();
        assert!(error.contains(word), "{text}\n{error}");
    }
    for (path, body) in [("models/one", json!({"source": "x"})), ("aliases/one", json!({"model": "one"}))] {
        let refused = common::admin_as(server, "", "PUT", &format!("/admin/{path}"), &body);
        assert_eq!(refused.status, 409, "{refused:?}");
    }
    // Administration reads the file, too, and says what is wrong with it.
    *configured.file.lock().unwrap() = old.clone();
    common::admin(server, "POST", "/admin/reload", &serde_json::Value::Null);
    *configured.file.lock().unwrap() = format!("{old}x = 1\n");
    let refused = common::admin_as(server, "", "POST", "/admin/reload", &serde_json::Value::Null);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("invalid_configuration")));
}

#[test]
fn a_server_without_a_file_reads_none() {
    let server = common::start(any_port());
    assert!(server.reloader.reload().unwrap_err().to_string().contains("no configuration"));
}

#[test]
fn the_documented_configuration_is_valid() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/server.md")).unwrap();
    let samples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    assert!(!samples.is_empty());
    for sample in samples {
        read(sample).and_then(|config| config.check()).unwrap_or_else(|error| panic!("{error}\n{sample}"));
    }
}
