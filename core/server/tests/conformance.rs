//! The scenarios of `tests/conformance` against a server, as a program that uses one by `Realm::connect` has
//! it.

mod common;
#[path = "../../realm/tests/conformance/matching.rs"]
mod matching;
#[path = "../../realm/tests/conformance/operations.rs"]
mod operations;
#[cfg(feature = "sandbox")]
#[path = "../../realm/tests/conformance/programs.rs"]
mod programs;
#[path = "../../realm/tests/conformance/request.rs"]
mod request;
#[path = "../../realm/tests/conformance/scenario.rs"]
mod scenario;
#[path = "../../realm/tests/conformance/sessions.rs"]
mod sessions;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use common::{MODEL, Running, any_port, start_with};
use operations::Runner;
use realm::{LoadOptions, Model, Realm};
use realm_server::{AdapterConfig, Config, TenantConfig};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

/// The reasons why a scenario makes no sense with a server, by its operations and by options of requests.
const LEFT_OUT: [(&str, &[&str]); 4] = [
    ("it makes a realm of this process", &["realm"]),
    ("it makes tenants, which an administrator does", &["tenant", "set_limits"]),
    (
        "it reads counters, which the server serves at `/metrics`",
        &["metrics", "prometheus", "tenant_metrics"],
    ),
    (
        "it gives programs and functions of this process to a model",
        &["load_program", "compile_program", "set_program", "add_program", "logits_processors"],
    ),
];

fn left_out(scenario: &Value) -> Option<&'static str> {
    if scenario["name"] == "what is no adapter is refused" {
        return Some("it loads files, which an administrator does");
    }
    let steps = scenario["steps"].as_array().unwrap();
    let uses = |name: &&str| {
        let of_request =
            |step: &Value| ["request", "options"].iter().any(|key| step[key].get(*name).is_some());
        steps.iter().any(|step| step["op"] == **name || of_request(step))
    };
    LEFT_OUT.iter().find(|(_, names)| names.iter().any(uses)).map(|(why, _)| *why)
}

/// Starts a server of a model, with the adapter of the scenarios, and finds the model there.
fn served(name: &str, model: Model) -> (Running, Realm, Model) {
    let source = folder().join("adapter");
    let adapter = AdapterConfig { model: name.to_owned(), source };
    let tenant =
        TenantConfig { adapters: [("adapter".to_owned(), adapter)].into(), ..TenantConfig::default() };
    let config = Config { tenants: [("default".to_owned(), tenant)].into(), ..any_port() };
    let server = start_with(config, vec![(name.to_owned(), model)], None);
    let realm = Realm::connect(&format!("http://{}", server.address), "").unwrap();
    let model = realm.load_model(name).unwrap();
    (server, realm, model)
}

/// Runs the scenarios that make sense, and checks how many those are: a scenario that is left out by mistake
/// would be missed by nobody.
fn run(areas: &[(&str, usize)]) {
    let here = Realm::builder().threads(2).device("cpu").build().unwrap();
    let options = LoadOptions { kv_tokens: Some(4096), ..LoadOptions::default() };
    let (_server, realm, model) = served(MODEL, here.load_model_with(MODEL, &options, &mut ()).unwrap());
    for (area, expected) in areas {
        let (here, servers) = (here.clone(), RefCell::new(Vec::new()));
        // An administrator would load it there.
        let load =
            move |_: &Realm, name: &str, options: &LoadOptions, progress: &mut operations::Progress| {
                let (server, _, model) = served(name, here.load_model_with(name, options, progress)?);
                servers.borrow_mut().push(server);
                Ok(model)
            };
        let runner = Runner::new(realm.clone(), model.clone(), Box::new(load));
        assert_eq!(scenario::run(area, runner, left_out), *expected, "{area}");
    }
}

#[test]
fn requests_numbers_and_sequences_are_those_of_this_process() {
    run(&[("generation", 9), ("streams", 6), ("vectors", 3), ("sequences", 5), ("adapters", 2)]);
}

/// Loads many models and takes minutes: REALM_LONG runs it.
#[test]
fn every_other_scenario_is_answered_as_in_this_process() {
    if std::env::var_os("REALM_LONG").is_none() {
        return;
    }
    run(&[("grammars", 9), ("sampling", 6), ("tools", 6), ("reasoning", 2), ("chats", 6), ("lists", 3)]);
    run(&[("prompts", 7), ("errors", 5), ("models", 9)]);
}
