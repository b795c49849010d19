//! The guarantees of metrics to their readers, with a real model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use realm_compute::cpu::CpuBackend;
use realm_engine::{
    Engine, EngineConfig, Limits, Metrics, Output, Request, Requests, Sampling, Served, Tenant,
};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;

fn load(config: &EngineConfig) -> Engine {
    let path = Hub::new().unwrap().resolve(&Reference::parse("smollm2-135m").unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let backend = Arc::new(CpuBackend::new(2).unwrap());
    let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap());
    Engine::new(&model, tokenizer, config).unwrap()
}

/// A prompt that shares no beginning with prompts of another `first`.
fn request(first: u32, prompt: u32, tokens: usize) -> Request {
    Request {
        prompt: (0..prompt).map(|i| 100 + (first + i) * 7919 % 40_000).collect(),
        sampling: Sampling::greedy(),
        max_tokens: Some(tokens),
        ignore_eos: true,
        ..Request::default()
    }
}

fn tenant(name: &str, limits: Limits) -> Arc<Tenant> {
    Arc::new(Tenant::new(name, limits).unwrap())
}

fn finish(engine: &Engine, tenant: &Arc<Tenant>, request: Request) {
    assert!(engine.generate(tenant, request).unwrap().all(|chunk| chunk.is_ok()));
}

/// Tokens that went through forward passes. The last token of a generation is not computed with.
fn computed(metrics: &Metrics) -> u64 {
    let tokens = metrics.served.tokens;
    tokens.prompt + tokens.recomputed + tokens.generated - metrics.served.first_token_seconds.count()
}

/// Waits until `ended` requests have ended and the engine has nothing to do.
fn at_rest(engine: &Engine, ended: u64) -> Metrics {
    let start = Instant::now();
    loop {
        let metrics = engine.metrics();
        let Served { running, waiting, kv_pages, requests, .. } = metrics.served;
        let Requests { finished, cancelled, timed_out, refused, failed } = requests;
        // Requests are counted before their readers know, and steps when they are over.
        let counted = metrics.batch_rows.sum as u64 >= computed(&metrics);
        let rests = (running, waiting, kv_pages, metrics.kv.used) == (0, 0, 0, 0);
        if rests && counted && finished + cancelled + timed_out + refused + failed == ended {
            return metrics;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{metrics:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn of<'a>(metrics: &'a Metrics, name: &str) -> &'a Served {
    &metrics.tenants.iter().find(|tenant| tenant.name == name).expect("a tenant that is there").served
}

#[test]
fn every_token_and_every_request_is_counted_once() {
    let engine = load(&EngineConfig::default());
    let (ada, bob) = (tenant("ada", Limits::default()), tenant("bob", Limits::default()));
    finish(&engine, &ada, request(0, 70, 5));
    // The same beginning: two pages of 32 tokens are cached.
    finish(&engine, &ada, request(0, 90, 3));
    let mut cancelled = engine.generate(&bob, request(1000, 10, 1000)).unwrap();
    cancelled.next().unwrap().unwrap();
    drop(cancelled);
    engine.score(&bob, None, request(2000, 20, 1).prompt, 0, 0).unwrap().wait().unwrap();

    let metrics = at_rest(&engine, 4);
    let (first, second) = (of(&metrics, "ada"), of(&metrics, "bob"));
    assert_eq!((first.tokens.prompt, first.tokens.cached, first.tokens.generated), (70 + 90 - 64, 64, 8));
    assert_eq!(first.requests, Requests { finished: 2, ..Requests::default() });
    assert_eq!((second.tokens.prompt, second.tokens.cached), (30, 0));
    assert!(second.tokens.generated >= 1);
    assert_eq!(second.requests, Requests { finished: 1, cancelled: 1, ..Requests::default() });
    let mut both = first.clone();
    both.add(second);
    assert_eq!((both.tokens, both.requests), (metrics.served.tokens, metrics.served.requests));
    assert_eq!(both.first_token_seconds.buckets, metrics.served.first_token_seconds.buckets);
    assert_eq!(both.inter_token_seconds.buckets, metrics.served.inter_token_seconds.buckets);

    // Every token but a request's first has a time since the previous one.
    let tokens = metrics.served.tokens;
    assert_eq!(metrics.served.first_token_seconds.count(), 3);
    assert_eq!(metrics.served.inter_token_seconds.count(), tokens.generated - 3);
    assert_eq!(metrics.served.queue_seconds.count(), 4);
    assert_eq!((metrics.batch_rows.sum as u64, tokens.recomputed), (computed(&metrics), 0));
    assert_eq!(metrics.step_seconds.count(), metrics.batch_rows.count());
    let share = metrics.scheduler_share().unwrap();
    assert!(share > 0.0 && share < 1.0 && metrics.forward_seconds < metrics.step_seconds.sum);
    let kv = metrics.kv;
    assert_eq!(kv.used + kv.remembered + kv.free, kv.total);
    assert!(kv.remembered >= 2 && kv.page_bytes > 0);
}

#[test]
fn drafts_are_counted_as_usage_says() {
    let engine = load(&EngineConfig { fixed_drafts: Some(4), ..EngineConfig::default() });
    let ada = tenant("ada", Limits::default());
    // A text that repeats itself.
    let prompt: Vec<u32> = (0..60).map(|i| 100 + i % 12).collect();
    let request = Request { prompt, ..request(0, 1, 40) };
    let mut usage = None;
    for chunk in engine.generate(&ada, request).unwrap() {
        usage = chunk.unwrap().finish.map(|finish| finish.usage);
    }
    let usage = usage.unwrap();
    assert!(usage.accepted_tokens > 0 && usage.draft_tokens > usage.accepted_tokens, "{usage:?}");
    let metrics = engine.metrics();
    for tokens in [of(&metrics, "ada").tokens, metrics.served.tokens] {
        let counted = (tokens.drafted as usize, tokens.accepted as usize);
        assert_eq!(counted, (usage.draft_tokens, usage.accepted_tokens));
    }
}

#[test]
fn what_runs_and_holds_pages_can_be_seen_while_it_does() {
    let engine = load(&EngineConfig::default());
    let busy = tenant("busy", Limits { max_concurrent: Some(1), ..Limits::default() });
    let mut running = engine.generate(&busy, request(0, 40, 100_000)).unwrap();
    let waits = engine.generate(&busy, request(1, 40, 4)).unwrap();
    running.next().unwrap().unwrap();
    let start = Instant::now();
    let seen = loop {
        let metrics = engine.metrics();
        if of(&metrics, "busy").waiting > 0 && metrics.kv.used > 0 {
            break of(&metrics, "busy").clone();
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{metrics:?}");
        let _ = running.next();
    };
    assert_eq!((seen.running, seen.waiting), (1, 1));
    assert!(seen.kv_pages >= 2);
    drop((running, waits));
    assert_eq!(of(&at_rest(&engine, 2), "busy").requests.cancelled, 2);
}

#[test]
fn refusals_timeouts_and_preemptions_have_their_own_counts() {
    let engine = load(&EngineConfig { kv_tokens: Some(128), prefix_cache: false, ..EngineConfig::default() });
    let hasty = Limits { max_queued: 0, max_concurrent: Some(1), ..Limits::default() };
    let hasty = tenant("hasty", Limits { request_timeout: Some(Duration::from_millis(1)), ..hasty });
    let late = engine.generate(&hasty, request(0, 20, 100)).unwrap();
    assert!(engine.generate(&hasty, request(0, 20, 100)).is_err());
    assert!(late.last().unwrap().is_err());
    let requests = of(&at_rest(&engine, 2), "hasty").requests;
    assert_eq!(requests, Requests { refused: 1, timed_out: 1, ..Requests::default() });

    // Two requests that need three of the four pages each.
    let patient = tenant("patient", Limits::default());
    let both = [0, 500].map(|first| engine.generate(&patient, request(first, 20, 70)).unwrap());
    for generation in both {
        assert_eq!(generation.map(Result::unwrap).map(|chunk| chunk.tokens.len()).sum::<usize>(), 70);
    }
    let metrics = at_rest(&engine, 4);
    let served = of(&metrics, "patient");
    assert_eq!((served.tokens.prompt, served.tokens.generated), (40, 140));
    assert!(served.preemptions > 0 && served.tokens.recomputed > 0);
}

#[test]
fn a_programs_sequence_counts_what_it_computes_once() {
    let engine = load(&EngineConfig::default());
    let program = tenant("program", Limits::default());
    let mut sequence = engine.sequence(&program, None, 0).unwrap();
    sequence.append(&request(0, 10, 1).prompt).unwrap();
    sequence.forward(Output::LastLogits).unwrap();
    let fork = sequence.fork().unwrap();
    sequence.truncate(8).unwrap();
    sequence.append(&[500, 501]).unwrap();
    sequence.forward(Output::LastLogits).unwrap();
    drop((sequence, fork));
    let metrics = at_rest(&engine, 0);
    let served = of(&metrics, "program");
    assert_eq!((served.tokens.prompt, served.tokens.recomputed, served.tokens.generated), (12, 0, 0));
    assert_eq!(served.requests, Requests::default());
}

#[test]
fn a_tenant_that_is_gone_counts_in_the_totals_alone() {
    let engine = load(&EngineConfig::default());
    let gone = tenant("gone", Limits::default());
    finish(&engine, &gone, request(0, 10, 4));
    assert_eq!(of(&at_rest(&engine, 1), "gone").tokens.generated, 4);
    drop(gone);
    let start = Instant::now();
    while !engine.metrics().tenants.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(engine.metrics().served.tokens.generated, 4);
}
