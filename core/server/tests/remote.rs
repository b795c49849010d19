//! `Realm::connect`: a program for models of this process runs against a server.

mod common;

use std::time::Duration;

use common::{ANSWER, MODEL, Memory, any_port, eventually, held, model, start, start_with};
use realm::{ErrorCode, Limits, LoadOptions, LogitsProcessor, Message, Output, Realm, Request};
use realm_server::keys::{Key, Scope};
use realm_server::{Config, LimitsConfig, TenantConfig};

fn url(server: &common::Running) -> String {
    format!("http://{}", server.address)
}

fn question() -> Request {
    let question = "What is the capital of France? Answer in one sentence.";
    Request::chat([Message::user(question)]).temperature(0.0).max_tokens(16)
}

fn story(tokens: usize) -> Request {
    let mut request = Request::text("Once upon a time").temperature(0.0).max_tokens(tokens);
    request.ignore_eos = true;
    request
}

fn at_work() -> usize {
    let all = model().metrics().served;
    all.running + all.waiting
}

/// What a program does with a realm, whoever computes.
fn program(realm: &Realm) -> (String, String, Vec<u32>, Vec<f32>, usize) {
    let model = realm.load_model(MODEL).unwrap();
    let answer = model.generate(question()).unwrap();
    let streamed: String =
        model.stream(question()).unwrap().into_iter().map(|chunk| chunk.unwrap().text).collect();
    let mut sequence = model.sequence().unwrap();
    sequence.append(&model.encode("The capital of France is")).unwrap();
    let mut said = Vec::new();
    for _ in 0..4 {
        let logits = sequence.forward(Output::LastLogits).unwrap();
        let best =
            (0..logits.width).max_by(|&a, &b| logits.values[a].total_cmp(&logits.values[b])).unwrap() as u32;
        said.push(best);
        sequence.append(&[best]).unwrap();
    }
    let fork = sequence.fork().unwrap();
    (answer.text, streamed, said, model.embed("The sky").unwrap(), fork.len())
}

#[test]
fn a_program_runs_against_a_server_by_one_changed_line() {
    let server = start(any_port());
    let here = program(&common::realm());
    let there = program(&Realm::connect(&url(&server), "").unwrap());
    assert_eq!(here, there);
    assert_eq!(here.0, ANSWER);
    eventually("its sequences are freed", || at_work() == 0);
}

#[test]
fn what_cannot_be_done_there_says_what_to_do_instead() {
    let (store, server) = with_tenant();
    let realm = Realm::connect(&url(&server), &store).unwrap();
    let model = realm.load_model(MODEL).unwrap();
    let fails = |error: realm::Error, code: ErrorCode, word: &str| {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(word), "{error}");
    };
    let options = LoadOptions { kv_tokens: Some(1), ..LoadOptions::default() };
    fails(
        realm.load_model_with(MODEL, &options, &mut ()).err().unwrap(),
        ErrorCode::Unsupported,
        "realm admin models load",
    );
    fails(realm.load_model("absent").err().unwrap(), ErrorCode::NotFound, "no model `absent`");
    fails(realm.tenant("other", Limits::default()).err().unwrap(), ErrorCode::Denied, "key of `other`");
    let heavy = Limits { weight: 3.0, ..Limits::default() };
    fails(realm.tenant("acme", heavy).err().unwrap(), ErrorCode::Unsupported, "realm admin tenants set acme");
    let processor = LogitsProcessor::new(|_, _| Ok(()));
    fails(
        model.generate(question().logits_processor(processor)).unwrap_err(),
        ErrorCode::Unsupported,
        "program",
    );
    fails(model.load_adapter("none").unwrap_err(), ErrorCode::NotFound, "adapter `none`");
    let tenant = realm.tenant("acme", Limits::default()).unwrap();
    assert_eq!((tenant.name(), tenant.limits().max_queued), ("acme", 7));
    fails(tenant.set_limits(Limits::default()).unwrap_err(), ErrorCode::Unsupported, "realm admin tenants");
    assert_eq!(tenant.model(&model).unwrap().generate(question()).unwrap().text, ANSWER);
    fails(tenant.model(&common::model()).err().unwrap(), ErrorCode::InvalidArgument, "another realm");
    let local = common::realm().tenant("acme", Limits::default()).unwrap();
    fails(local.model(&model).err().unwrap(), ErrorCode::InvalidArgument, "another realm");
    assert!(realm.is_remote() && model.is_remote() && !common::realm().is_remote());
    assert!(realm.is(&realm.clone()) && !realm.is(&common::realm()));
    // Failures of requests are those of this process.
    for wrong in [
        question().temperature(-1.0),
        question().max_tokens(0),
        Request::text("a").lark("start: ("),
        Request::tokens(vec![]),
    ] {
        let (here, there) = (common::model().generate(wrong.clone()), model.generate(wrong));
        let said = |result: Result<_, realm::Error>| result.map_err(|error| error.to_string());
        assert_eq!(said(here), said(there));
    }
}

/// A server with a key of the tenant `acme`, which has limits.
fn with_tenant() -> (String, common::Running) {
    let store = Memory::default();
    let (mut key, secret) = Key::create("acme").unwrap();
    key.scopes = vec![Scope::Inference];
    store.keys.lock().unwrap().push(key);
    let limits = LimitsConfig { max_queued: Some(7), ..LimitsConfig::default() };
    let acme = TenantConfig { limits, ..TenantConfig::default() };
    let config = Config { tenants: [("acme".to_owned(), acme)].into(), ..any_port() };
    let server = start_with(config, vec![(MODEL.to_owned(), model())], Some(Box::new(store)));
    (secret.as_str().to_owned(), server)
}

#[test]
fn a_server_that_is_not_there_or_does_not_know_the_key_is_an_error() {
    let (_, server) = with_tenant();
    let code = |url: &str, key: &str| Realm::connect(url, key).err().unwrap().code();
    assert_eq!(code(&url(&server), "rk_wrong"), ErrorCode::Denied);
    assert_eq!(code(&url(&server), ""), ErrorCode::Denied);
    assert_eq!(code("ftp://localhost", ""), ErrorCode::InvalidArgument);
    let gone = url(&server);
    drop(server);
    assert_eq!(code(&gone, ""), ErrorCode::Io);
    // Another server than one of Realm's.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let other = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    });
    assert_eq!(code(&format!("http://{address}"), ""), ErrorCode::Io);
    other.join().unwrap();
}

#[test]
fn leaving_in_any_way_ends_the_work_at_the_server() {
    let server = start(any_port());
    let realm = Realm::connect(&url(&server), "").unwrap();
    let model = realm.load_model(MODEL).unwrap();
    let mut read = model.stream(story(8_000)).unwrap();
    read.next_blocking().unwrap().unwrap();
    let unread = model.stream(story(8_000)).unwrap();
    let mut cancelled = model.stream(story(8_000)).unwrap();
    eventually("three are at work", || at_work() == 3);
    cancelled.cancel();
    assert!(cancelled.next_blocking().is_none());
    eventually("two are at work", || at_work() == 2);
    drop((read, unread));
    eventually("none is at work", || at_work() == 0);
    // A forward pass whose caller leaves, and what is then there.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut sequence = model.sequence().unwrap();
    sequence.append(&[5; 4_000]).unwrap();
    let computed = || common::model().metrics().served.tokens.prompt;
    let before = computed();
    let left = runtime.block_on(async {
        tokio::time::timeout(Duration::from_millis(50), sequence.forward_async(Output::Nothing))
            .await
            .is_err()
    });
    assert!(left);
    eventually("the pass has ended", || at_work() == 0);
    assert!(computed() < before + 4_000, "the whole pass was computed");
    assert_eq!(sequence.len(), 4_000);
    sequence.truncate(3).unwrap();
    assert!(sequence.forward(Output::Logits).unwrap().rows().len() <= 3);
    drop(sequence);
}

#[test]
fn answers_that_are_not_read_stop_no_others() {
    let server = start(any_port());
    let realm = Realm::connect(&url(&server), "").unwrap();
    let model = realm.load_model(MODEL).unwrap();
    let unread: Vec<_> = (0..8).map(|_| model.stream(story(24)).unwrap()).collect();
    assert_eq!(model.generate(question()).unwrap().text, ANSWER);
    let texts: Vec<_> = unread.into_iter().map(|generation| generation.finish().unwrap().text).collect();
    assert!(texts.iter().all(|text| *text == texts[0] && text.len() > 24));
}

#[test]
fn a_server_that_was_restarted_is_found_again() {
    let first = start(any_port());
    let port = first.address.port();
    let realm = Realm::connect(&url(&first), "").unwrap();
    let model = realm.load_model(MODEL).unwrap();
    let mut sequence = model.sequence().unwrap();
    drop(first);
    let error = model.generate(question()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Io, "{error}");
    // A server that ends waits for answers, and not for sequences that rest.
    let error = sequence.forward(Output::Nothing).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Io, "{error}");
    assert!(error.message().contains("the server ends"), "{error}");
    let _second = start(Config { port, ..any_port() });
    assert_eq!(model.generate(question()).unwrap().text, ANSWER);
}

#[test]
fn sequences_are_forked_cut_saved_and_restored_there() {
    let server = start(any_port());
    let realm = Realm::connect(&url(&server), "").unwrap();
    let (there, here) = (realm.load_model(MODEL).unwrap(), model());
    let tokens = here.encode("The quick brown fox jumps over the lazy dog");
    let (mut one, mut two) = (there.sequence().unwrap(), here.sequence().unwrap());
    assert_eq!(one.context_length(), two.context_length());
    one.append(&tokens).unwrap();
    two.append(&tokens).unwrap();
    let (logits, expected) = (one.forward(Output::Logits).unwrap(), two.forward(Output::Logits).unwrap());
    // More than one message of gRPC.
    assert!(expected.values.len() * 4 > 1 << 20);
    assert_eq!((logits.width, &logits.values), (expected.width, &expected.values));
    let saved = one.save().unwrap();
    let mut fork = one.fork().unwrap();
    fork.append(&[7]).unwrap();
    one.truncate(4).unwrap();
    two.truncate(4).unwrap();
    assert_eq!(one.tokens(), two.tokens());
    assert_eq!(one.forward(Output::Hidden).unwrap().values, two.forward(Output::Hidden).unwrap().values);
    assert_eq!(fork.forward(Output::Logits).unwrap().rows().len(), 1);
    let mut restored = there.restore_sequence(&saved).unwrap();
    assert_eq!(restored.tokens(), tokens);
    restored.append(&[7]).unwrap();
    assert_eq!(
        restored.forward(Output::LastLogits).unwrap().values,
        fork.forward(Output::LastLogits).unwrap().values
    );
    let errors = |mut sequence: realm::Sequence| {
        [
            sequence.forward(Output::Nothing).unwrap_err().to_string(),
            sequence.append(&[u32::MAX]).unwrap_err().to_string(),
            sequence.append(&vec![1; 1 << 20]).unwrap_err().to_string(),
        ]
    };
    assert_eq!(errors(there.sequence().unwrap()), errors(here.sequence().unwrap()));
    let bad = |model: &realm::Model| model.restore_sequence(b"none").err().unwrap().to_string();
    assert_eq!(bad(&there), bad(&here));
    // One that is dropped is freed there, also while others of its call stay.
    let one = there.sequence().unwrap();
    let before = held("default", "sequences");
    let two = there.sequence().unwrap();
    assert!(held("default", "sequences") > before);
    drop(two);
    eventually("it is freed there", || held("default", "sequences") == before);
    drop(one);
}
