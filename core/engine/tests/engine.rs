//! The guarantees of the engine to its users, with a real model.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Read, anybody, request};
use realm_compute::cpu::CpuBackend;
use realm_engine::{Chunk, Engine, EngineConfig, Error, FinishReason, MemoryKind, Request, Sampling};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;

fn load(config: &EngineConfig) -> (Engine, Arc<Tokenizer>) {
    let path = Hub::new().unwrap().resolve(&Reference::parse("smollm2-135m").unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let backend = Arc::new(CpuBackend::new(2).unwrap());
    let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap());
    (Engine::new(&model, Arc::clone(&tokenizer), config).unwrap(), tokenizer)
}

fn collect(generation: impl Iterator<Item = Result<Chunk, Error>>) -> (String, Vec<u32>, FinishReason) {
    let read = Read::all(generation);
    let ids = read.ids();
    (read.text, ids, read.finish.reason)
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn greedy_text_is_the_same_alone_and_in_any_batch() {
    let (engine, tokenizer) = load(&EngineConfig { prefill_chunk: 24, ..EngineConfig::default() });
    let prompts = [
        "The capital of France is",
        "Once upon a time, in a village by the sea, there lived an old man who had never seen the water, because",
        "1 + 1 = 2\n2 + 2 = 4\n3 + 3 =",
        "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    ];
    let start = |text: &&str| engine.generate(&anybody(), request(&tokenizer, text, 24)).unwrap();
    let alone: Vec<_> = prompts.iter().map(|text| collect(start(text))).collect();
    let together: Vec<_> = prompts.iter().map(start).collect();
    let together: Vec<_> = together.into_iter().map(collect).collect();
    assert_eq!(alone, together);
    assert!(alone[0].0.starts_with(" Paris."), "{}", alone[0].0);
    assert_eq!(alone[0].2, FinishReason::Length);
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_one_another() {
    let (engine, tokenizer) = load(&EngineConfig::default());
    let text = |seed| {
        let sampling = Sampling { seed, temperature: 1.5, ..Sampling::default() };
        let request = Request { sampling, ..request(&tokenizer, "Once upon a time", 24) };
        collect(engine.generate(&anybody(), request).unwrap()).0
    };
    assert_eq!(text(Some(1)), text(Some(1)));
    assert_ne!(text(Some(1)), text(Some(2)));
    assert_ne!(text(None), text(None));
}

#[test]
fn a_stop_string_ends_the_text_before_it_even_between_tokens() {
    let (engine, tokenizer) = load(&EngineConfig::default());
    let request = Request {
        stop: vec!["ris.\n\nThe Uni".into()],
        ..request(&tokenizer, "The capital of France is", 24)
    };
    let (text, _, reason) = collect(engine.generate(&anybody(), request).unwrap());
    assert_eq!((text.as_str(), reason), (" Pa", FinishReason::Stop));
}

#[test]
fn cancelled_generation_frees_its_pages() {
    let (engine, tokenizer) = load(&EngineConfig { kv_tokens: Some(1024), ..EngineConfig::default() });
    let all = engine.free_pages();
    let mut generation = engine.generate(&anybody(), request(&tokenizer, "Once upon a time", 900)).unwrap();
    generation.next().unwrap().unwrap();
    wait_for("taking pages", || engine.free_pages() < all);
    generation.cancel();
    assert!(generation.next().is_none());
    wait_for("freeing after cancel", || engine.free_pages() == all);
    // Dropping does the same, also for a request that still waits for pages.
    let one = engine.generate(&anybody(), request(&tokenizer, "Once upon a time", 900)).unwrap();
    let two = engine.generate(&anybody(), request(&tokenizer, "Once upon a time", 900)).unwrap();
    drop(two);
    drop(one);
    wait_for("freeing after drop", || engine.free_pages() == all);
}

#[test]
fn a_reader_that_does_not_read_delays_no_other_and_loses_nothing() {
    let (engine, tokenizer) = load(&EngineConfig { channel: 2, ..EngineConfig::default() });
    let slow = engine.generate(&anybody(), request(&tokenizer, "The capital of France is", 24)).unwrap();
    let (text, ..) =
        collect(engine.generate(&anybody(), request(&tokenizer, "The capital of France is", 24)).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(collect(slow).0, text);
}

#[test]
fn unread_chunks_are_their_tenants_memory() {
    let (engine, tokenizer) = load(&EngineConfig::default());
    let tenant = anybody();
    let results = || tenant.memory().read().of(MemoryKind::Results);
    let ended = |tokens| {
        let request = Request { logprobs: Some(4), ..request(&tokenizer, "Once upon a time", tokens) };
        let generation = engine.generate(&tenant, request).unwrap();
        wait_for("the end of a request that nobody reads", || tenant.running() + tenant.waiting() == 0);
        generation
    };
    let few = ended(4);
    let of_few = results();
    assert!(of_few >= 4 * 5 * size_of::<(u32, f32)>(), "{of_few}");
    let many = ended(16);
    assert!(results() >= 4 * of_few, "{of_few} and {}", results());
    drop(many);
    wait_for("giving back what is left unread", || results() == of_few);
    assert_eq!(collect(few).1.len(), 4);
    assert_eq!(results(), 0);
}

#[test]
fn requests_that_outgrow_the_cache_take_turns_and_lose_nothing() {
    let (engine, tokenizer) = load(&EngineConfig { kv_tokens: Some(128), ..EngineConfig::default() });
    let prompts =
        ["The capital of France is", "Once upon a time", "1 + 1 = 2\n2 + 2 = 4\n3 + 3 =", "def f(x):"];
    let endless = |text: &&str| {
        let request = Request { max_tokens: None, ignore_eos: true, ..request(&tokenizer, text, 1) };
        engine.generate(&anybody(), request).unwrap()
    };
    let alone: Vec<_> = prompts.iter().map(|text| collect(endless(text))).collect();
    let together: Vec<_> = prompts.iter().map(endless).collect();
    let together: Vec<_> = together.into_iter().map(collect).collect();
    assert!(alone.iter().all(|(_, ids, _)| ids.len() > 100));
    assert_eq!(alone, together);
    wait_for("freeing all pages", || engine.free_pages() == 4);
}

#[test]
fn logprobs_agree_with_scores() {
    let (engine, tokenizer) = load(&EngineConfig::default());
    let request = Request { logprobs: Some(3), ..request(&tokenizer, "The capital of France is", 8) };
    let mut tokens = request.prompt.clone();
    let first = tokens.len();
    let chunks: Vec<_> = engine.generate(&anybody(), request).unwrap().map(Result::unwrap).collect();
    let generated: Vec<_> = chunks.into_iter().flat_map(|c| c.tokens).collect();
    tokens.extend(generated.iter().map(|t| t.id));
    let scores = engine.score(&anybody(), None, tokens, 0, 3).unwrap().wait().unwrap();
    for (token, score) in generated.iter().zip(&scores[first - 1..]) {
        assert_eq!(&token.top, &score.top);
        assert_eq!((token.id, token.logprob), (score.top[0].id, Some(score.top[0].logprob)));
        assert!(score.next.is_none_or(|next| Some(next) == token.logprob));
    }
}

#[test]
fn impossible_requests_are_refused_with_a_reason() {
    let (engine, tokenizer) = load(&EngineConfig { kv_tokens: Some(64), ..EngineConfig::default() });
    let good = request(&tokenizer, "Hi", 4);
    let long = vec![5; 64];
    for (bad, word) in [
        (Request { prompt: vec![], ..good.clone() }, "no tokens"),
        (Request { prompt: vec![99_999_999], ..good.clone() }, "99999999"),
        (Request { max_tokens: Some(0), ..good.clone() }, "max_tokens"),
        (Request { logprobs: Some(1000), ..good.clone() }, "logprobs"),
        (Request { sampling: Sampling { top_p: 2.0, ..Sampling::default() }, ..good.clone() }, "top_p"),
        (Request { prompt: long, ..good.clone() }, "holds a context of 64"),
    ] {
        let error = engine.generate(&anybody(), bad).err().expect("an error").to_string();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(collect(engine.generate(&anybody(), good).unwrap()).1.len(), 4);
}
