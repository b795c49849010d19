//! Drafts change when a token comes, and never which: with a real model.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Read, anybody, request};
use realm_compute::cpu::CpuBackend;
use realm_engine::{
    Chunk, Draft, Engine, EngineConfig, Error, Finish, FinishReason, Grammar, Limits, Request, Sampling,
    Speculation, Tenant, Token, Usage,
};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;

type Model = (Arc<Transformer<CpuBackend>>, Arc<Tokenizer>);

fn model(name: &str) -> Model {
    let path = Hub::new().unwrap().resolve(&Reference::parse(name).unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let backend = Arc::new(CpuBackend::new(2).unwrap());
    (Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap()), tokenizer)
}

fn plain((weights, tokenizer): &Model, config: EngineConfig) -> Engine {
    let config = EngineConfig { speculation: Speculation::Off, ..config };
    Engine::new(weights, Arc::clone(tokenizer), &config).unwrap()
}

/// An engine that always drafts, whatever it costs here.
fn drafting(model: &Model, drafts: usize, config: EngineConfig) -> Engine {
    let config = EngineConfig { fixed_drafts: Some(drafts), speculation: Speculation::Lookup, ..config };
    Engine::new(&model.0, Arc::clone(&model.1), &config).unwrap()
}

/// An engine whose model is its own draft model.
fn with_itself(model: &Model, drafts: usize, config: EngineConfig) -> Engine {
    let config = EngineConfig { fixed_drafts: Some(drafts), speculation: Speculation::Draft, ..config };
    let draft = Draft { weights: &model.0, tokenizer: &model.1 };
    Engine::with_draft(&model.0, Arc::clone(&model.1), &config, Some(draft)).unwrap()
}

/// Texts that repeat themselves, and one that does not.
const PROMPTS: [&str; 4] = [
    "1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4,",
    "def area(width, height):\n    return width * height\n\ndef volume(width, height, depth):\n    return width *",
    "Once upon a time, in a village by the sea,",
    "The cat sat on the mat. The dog sat on the mat. The bird sat on the",
];

/// All of a text but its timings and its number of drafts.
#[derive(Debug, PartialEq)]
struct Outcome {
    text: String,
    tokens: Vec<Token>,
    reason: FinishReason,
    usage: Usage,
}

fn collect(generation: impl Iterator<Item = Result<Chunk, Error>>) -> (Outcome, Usage) {
    let Read { text, tokens, finish: Finish { reason, usage, .. } } = Read::all(generation);
    let without = Usage { draft_tokens: 0, accepted_tokens: 0, ..usage };
    (Outcome { text, tokens, reason, usage: without }, usage)
}

fn alone(engine: &Engine, requests: &[Request]) -> Vec<(Outcome, Usage)> {
    requests.iter().map(|r| collect(engine.generate(&anybody(), r.clone()).unwrap())).collect()
}

fn together(engine: &Engine, requests: &[Request]) -> Vec<(Outcome, Usage)> {
    let start = |r: &Request| engine.generate(&anybody(), r.clone()).unwrap();
    let all: Vec<_> = requests.iter().map(start).collect();
    all.into_iter().map(collect).collect()
}

fn outcomes(results: Vec<(Outcome, Usage)>) -> Vec<Outcome> {
    results.into_iter().map(|(outcome, _)| outcome).collect()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A configuration without the prefix cache, so that usage does not depend on the order.
fn config() -> EngineConfig {
    EngineConfig { prefix_cache: false, kv_tokens: Some(2048), ..EngineConfig::default() }
}

/// Requests: greedy, sampled, with log-probabilities, stop strings and several lengths.
fn requests(tokenizer: &Tokenizer) -> Vec<Request> {
    let mut requests = Vec::new();
    for (i, text) in PROMPTS.iter().enumerate() {
        requests.push(request(tokenizer, text, 24 + i));
        let sampling = Sampling { seed: Some(i as u64), temperature: 0.7, ..Sampling::default() };
        requests.push(Request { sampling, logprobs: Some(2), ..request(tokenizer, text, 16) });
    }
    let sampling = Sampling { repetition_penalty: 1.1, ..Sampling::greedy() };
    requests.push(Request { sampling, ..request(tokenizer, PROMPTS[1], 16) });
    requests.push(Request { stop: vec!["6, 7".into()], ..request(tokenizer, PROMPTS[0], 24) });
    requests.push(request(tokenizer, PROMPTS[0], 1));
    requests.push(request(tokenizer, PROMPTS[0], 2));
    requests
}

#[test]
fn texts_are_the_same_with_drafts_and_without_alone_and_together() {
    let model = model("smollm2-135m");
    let requests = requests(&model.1);
    let engine = plain(&model, config());
    let expected = outcomes(alone(&engine, &requests));
    assert!(expected.iter().any(|o| o.reason == FinishReason::Stop));
    for engine in [drafting(&model, 7, config()), with_itself(&model, 3, config())] {
        let all = engine.free_pages();
        let results = alone(&engine, &requests);
        let accepted: usize = results.iter().map(|(_, usage)| usage.accepted_tokens).sum();
        assert!(accepted > 50, "{accepted}");
        assert!(results.iter().all(|(_, usage)| usage.accepted_tokens <= usage.draft_tokens));
        assert_eq!(outcomes(results), expected);
        assert_eq!(outcomes(together(&engine, &requests)), expected);
        wait_for("freeing all pages", || engine.free_pages() == all);
    }
    // With the number of drafts as measured here, whatever that is.
    let auto = Engine::new(&model.0, Arc::clone(&model.1), &config()).unwrap();
    assert_eq!(outcomes(together(&auto, &requests)), expected);
}

#[test]
fn texts_are_the_same_where_pages_are_short_and_requests_are_cancelled() {
    let model = model("smollm2-135m");
    let endless = |text: &&str| Request { ignore_eos: true, ..request(&model.1, text, 60) };
    let requests: Vec<Request> = PROMPTS.iter().map(endless).collect();
    let expected = outcomes(alone(&plain(&model, config()), &requests));
    // Two of the four fit at once.
    let few = EngineConfig { kv_tokens: Some(192), ..config() };
    for engine in [drafting(&model, 5, few.clone()), with_itself(&model, 5, few)] {
        let all = engine.free_pages();
        let start = |r: &Request| engine.generate(&anybody(), r.clone()).unwrap();
        let mut given_up: Vec<_> = requests.iter().map(start).collect();
        let kept: Vec<_> = requests.iter().map(start).collect();
        given_up[0].next().unwrap().unwrap();
        given_up[0].cancel();
        drop(given_up);
        let kept: Vec<_> = kept.into_iter().map(collect).collect();
        assert!(kept.iter().any(|(_, usage)| usage.accepted_tokens > 10));
        assert_eq!(outcomes(kept), expected);
        wait_for("freeing all pages", || engine.free_pages() == all);
    }
}

#[test]
fn a_text_that_fills_the_context_ends_where_it_would_without_drafts() {
    let model = model("smollm2-135m");
    let small = EngineConfig { kv_tokens: Some(128), ..config() };
    let endless = Request { max_tokens: None, ignore_eos: true, ..request(&model.1, PROMPTS[0], 1) };
    let requests = [endless];
    let expected = outcomes(alone(&plain(&model, small.clone()), &requests));
    assert_eq!(outcomes(alone(&drafting(&model, 15, small), &requests)), expected);
}

#[test]
fn what_repeats_is_drafted_right_and_a_model_is_its_own_best_draft() {
    let model = model("smollm2-135m");
    let long = Request { ignore_eos: true, ..request(&model.1, PROMPTS[0], 64) };
    let (_, usage) = collect(drafting(&model, 7, config()).generate(&anybody(), long.clone()).unwrap());
    assert!(usage.accepted_tokens > 48 && usage.draft_tokens < 80, "{usage:?}");
    let other = Request { ignore_eos: true, ..request(&model.1, PROMPTS[2], 64) };
    let (_, usage) = collect(with_itself(&model, 3, config()).generate(&anybody(), other).unwrap());
    assert!(usage.accepted_tokens == usage.draft_tokens && usage.draft_tokens > 40, "{usage:?}");
}

#[test]
fn a_tenant_pays_for_tokens_and_not_for_wrong_drafts() {
    let model = model("smollm2-135m");
    let engine = with_itself(&model, 3, config());
    // Nearly uniform sampling: no draft is right.
    let sampling = Sampling {
        temperature: 100.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: Some(1),
        ..Sampling::default()
    };
    let request = Request { sampling, ignore_eos: true, ..request(&model.1, PROMPTS[0], 40) };
    // If wrong drafts counted, the minute's tokens would be used up, and the request would wait for its
    // time-out.
    let limits = Limits {
        tokens_per_minute: Some(request.prompt.len() as u32 + 45),
        request_timeout: Some(Duration::from_secs(50)),
        ..Limits::default()
    };
    let tenant = Arc::new(Tenant::new("metered", limits).unwrap());
    let (outcome, usage) = collect(engine.generate(&tenant, request).unwrap());
    assert!(usage.draft_tokens - usage.accepted_tokens > 40, "{usage:?}");
    assert_eq!(outcome.tokens.len(), 40);
}

#[test]
fn what_a_grammar_forces_is_drafted_right_and_changes_no_text() {
    let model = model("smollm2-135m");
    let schema = serde_json::json!({
        "type": "object", "additionalProperties": false, "required": ["temperature_celsius", "weather_station"],
        "properties": {
            "temperature_celsius": {"type": "integer", "minimum": -40, "maximum": 50},
            "weather_station": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["forecast", "measurement"]},
        },
        "x-guidance": {"whitespace_flexible": false},
    });
    let mut requests = Vec::new();
    for (i, text) in ["The weather as JSON: ", "Once upon a time"].iter().enumerate() {
        let grammar = Some(Grammar::JsonSchema(schema.clone()));
        let greedy = Request { grammar, ..request(&model.1, text, 60) };
        let sampling = Sampling { seed: Some(i as u64), temperature: 0.9, ..Sampling::default() };
        requests.push(Request { sampling, logprobs: Some(2), ..greedy.clone() });
        requests.push(Request {
            sampling: Sampling { repetition_penalty: 1.3, ..Sampling::greedy() },
            ..greedy.clone()
        });
        // Ends in the middle of forced tokens.
        requests.push(Request { max_tokens: Some(4), ..greedy.clone() });
        requests.push(greedy);
    }
    let expected = outcomes(alone(&plain(&model, config()), &requests));
    let auto = |fixed_drafts| {
        let config = EngineConfig { fixed_drafts, ..config() };
        Engine::new(&model.0, Arc::clone(&model.1), &config).unwrap()
    };
    // Repeated text is drafted in both; new text only where grammars force tokens.
    let accepted =
        |results: &[(Outcome, Usage)]| results.iter().map(|r| r.1.accepted_tokens).collect::<Vec<_>>();
    let looked_up = accepted(&alone(&drafting(&model, 15, config()), &requests));
    let engine = auto(Some(15));
    let results = alone(&engine, &requests);
    let forced = accepted(&results);
    assert!(
        forced.iter().zip(&looked_up).all(|(forced, other)| *forced >= other + 2),
        "{forced:?} {looked_up:?}"
    );
    assert_eq!(outcomes(results), expected);
    assert_eq!(outcomes(together(&engine, &requests)), expected);
    assert_eq!(outcomes(together(&auto(None), &requests)), expected);
    // A token that is forced and banned ends the request, drafted or not.
    let first = expected[3].tokens[2].id;
    let banned = Sampling { banned_tokens: vec![first], ..Sampling::greedy() };
    let request = Request { sampling: banned, ..requests[3].clone() };
    for engine in [&plain(&model, config()), &engine] {
        let error = engine.generate(&anybody(), request.clone()).unwrap().last().unwrap().unwrap_err();
        assert!(error.to_string().contains("banned"), "{error}");
    }
}

#[test]
fn a_draft_model_of_another_vocabulary_is_refused() {
    let (model, other) = (model("smollm2-135m"), model("gemma3-270m"));
    let draft = Draft { weights: &other.0, tokenizer: &other.1 };
    let error = Engine::with_draft(&model.0, Arc::clone(&model.1), &config(), Some(draft)).err().unwrap();
    let why = error.to_string();
    assert!(matches!(error, Error::InvalidArgument(_)) && why.contains("vocabulary"), "{why}");
    let engine = plain(&model, config());
    let request = Request { speculation: Some(Speculation::Draft), ..request(&model.1, "Hi", 4) };
    let error = engine.generate(&anybody(), request).err().unwrap().to_string();
    assert!(error.contains("without a draft model"), "{error}");
}
