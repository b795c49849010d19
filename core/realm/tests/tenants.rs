//! Tenants, their limits, and their isolation from each other, with a real model.

mod common;

use std::time::Duration;

use realm::{ErrorCode, Limits, LoadOptions, Message, Model, Realm, Request, SharedPrefix};

use common::story;

fn load() -> (Realm, Model) {
    let realm = Realm::builder().threads(2).build().unwrap();
    let options = LoadOptions { kv_tokens: Some(4096), ..LoadOptions::default() };
    let model = realm.load_model_with("smollm2-135m", &options, &mut ()).unwrap();
    (realm, model)
}

#[test]
fn tenants_share_a_model_and_get_the_same_answers() {
    let (realm, model) = load();
    let alone = model.generate(story(24)).unwrap().text;
    let tenants: Vec<_> =
        (0..8).map(|i| realm.tenant(&format!("tenant {i}"), Limits::default()).unwrap()).collect();
    let streams: Vec<_> =
        tenants.iter().map(|t| t.model(&model).unwrap().stream(story(24)).unwrap()).collect();
    for stream in streams {
        assert_eq!(stream.finish().unwrap().text, alone);
    }
    assert!(tenants.iter().all(|tenant| tenant.running() + tenant.waiting() == 0));
}

#[test]
fn a_limit_that_is_reached_is_an_error_that_says_what_to_do() {
    let (realm, model) = load();
    let limits = Limits { max_concurrent: Some(1), max_queued: 1, ..Limits::default() };
    let busy = realm.tenant("busy", limits).unwrap();
    let seen = busy.model(&model).unwrap();
    let mut running = seen.stream(story(200)).unwrap();
    running.next_blocking().unwrap().unwrap();
    let waiting = seen.stream(story(1)).unwrap();
    let refused = seen.stream(story(1)).err().expect("one too many");
    assert_eq!(refused.code(), ErrorCode::LimitExceeded);
    assert!(refused.message().contains("`busy`") && refused.message().contains("max_queued"), "{refused}");
    drop(running);
    assert_eq!(waiting.finish().unwrap().usage.generated_tokens, 1);

    let hasty = realm
        .tenant("hasty", Limits { request_timeout: Some(Duration::from_millis(1)), ..Limits::default() });
    let late = hasty.unwrap().model(&model).unwrap().generate(story(500)).unwrap_err();
    assert_eq!(late.code(), ErrorCode::LimitExceeded);
    assert!(late.message().contains("request_timeout"), "{late}");

    let small = realm.tenant("small", Limits { kv_tokens: Some(32), ..Limits::default() }).unwrap();
    let small = small.model(&model).unwrap();
    assert_eq!(small.generate(story(500)).unwrap().usage.generated_tokens, 28);
    let long = small.generate(Request::text("word ".repeat(100))).unwrap_err();
    assert!(long.code() == ErrorCode::LimitExceeded && long.message().contains("kv_tokens"), "{long}");

    let limits = Limits { models: Some(vec!["qwen2.5-coder-0.5b".into()]), ..Limits::default() };
    let other = realm.tenant("other", limits).unwrap().model(&model).err().expect("not its model");
    assert_eq!(other.code(), ErrorCode::LimitExceeded);
    assert!(other.message().contains("smollm2-135m"), "{other}");

    let senseless = realm.tenant("none", Limits { weight: -1.0, ..Limits::default() }).err().unwrap();
    assert_eq!(senseless.code(), ErrorCode::InvalidArgument);
}

#[test]
fn limits_change_while_requests_wait() {
    let (realm, model) = load();
    let limits = Limits { max_concurrent: Some(1), ..Limits::default() };
    let tenant = realm.tenant("changing", limits.clone()).unwrap();
    let seen = tenant.model(&model).unwrap();
    let streams: Vec<_> = (0..3).map(|_| seen.stream(story(16)).unwrap()).collect();
    tenant.set_limits(Limits { max_concurrent: None, ..limits }).unwrap();
    assert!(tenant.set_limits(Limits { max_concurrent: Some(0), ..Limits::default() }).is_err());
    assert_eq!(tenant.limits().max_concurrent, None);
    for stream in streams {
        stream.finish().unwrap();
    }
}

#[test]
fn a_system_prompt_is_computed_once_for_a_tenant_and_for_those_who_share_it() {
    let (realm, model) = load();
    let system = format!("You are a helpful assistant. {}", "Be brief and polite at all times. ".repeat(30));
    let ask = |question: &str| {
        let messages = [Message::system(system.as_str()), Message::user(question)];
        Request::chat(messages).temperature(0.0).max_tokens(4)
    };
    let tenants = ["one", "two", "three", "four"].map(|name| {
        let tenant = realm.tenant(name, Limits::default()).unwrap();
        tenant.model(&model).unwrap()
    });
    let cached = |model: &Model, request: Request| model.generate(request).unwrap().usage.cached_tokens;
    assert_eq!(cached(&tenants[0], ask("What is the capital of France?")), 0);
    assert!(cached(&tenants[0], ask("And of Spain?")) > 200, "its own system prompt is known");
    assert_eq!(cached(&tenants[1], ask("What is the capital of France?")), 0, "another tenant's is not");
    let shared = |question: &str| ask(question).shared_prefix(SharedPrefix::System);
    assert_eq!(cached(&tenants[2], shared("What is the capital of France?")), 0, "nobody shared it before");
    assert!(cached(&tenants[3], shared("And of Spain?")) > 200, "now somebody has");
    assert_eq!(cached(&tenants[3], ask("Of Italy?")), 0, "and only who says so uses it");
}
