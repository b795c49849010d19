//! Fairness, limits and isolation, step by step.

use std::time::Duration;

use super::*;

/// Many short requests of each tenant, so that all tenants always have work, and steps that cannot serve all
/// of them.
fn saturated(weights: &[f32], steps: usize) -> (Vec<f64>, EngineConfig, Vec<Vec<f64>>) {
    let config = EngineConfig {
        decode_rows: 4,
        max_running: 16,
        prefill_chunk: 32,
        shared_prefill_chunk: 16,
        ..EngineConfig::default()
    };
    let mut bench = Bench::new(&tiny("llama-f32"), 200, config.clone());
    let tenants: Vec<_> = weights
        .iter()
        .map(|&weight| tenant(Limits { weight, max_queued: 10_000, ..Limits::default() }))
        .collect();
    let mut open = Vec::new();
    for i in 0..400 {
        // Tenants differ in their requests: long prompts, short prompts, long answers, short answers.
        for (t, tenant) in tenants.iter().enumerate() {
            let prompt = text((i * 10 + t) as u32, 0, 3 + (i + 17 * t) % 60);
            open.push(bench.generate(tenant, &prompt, 5 + (i * 7 + t * 11) % 40));
        }
    }
    let mut history = Vec::new();
    for _ in 0..steps {
        assert_eq!(bench.scheduler.step(), Next::Go);
        history.push(tenants.iter().map(|t| bench.scheduler.accounts.counter(t.id())).collect());
    }
    bench.check();
    // Check the metrics, not the counters themselves.
    let served = tenants
        .iter()
        .map(|tenant| {
            let tokens = bench.scheduler.ledger.read_tenant(tenant).tokens;
            (tokens.prompt + tokens.generated) as f64
        })
        .collect();
    (served, config, history)
}

#[test]
fn equal_weights_are_served_equally() {
    let (served, ..) = saturated(&[1.0, 1.0, 1.0], 600);
    let (least, most) =
        (served.iter().copied().fold(f64::MAX, f64::min), served.iter().copied().fold(0.0, f64::max));
    assert!(most / least < 1.05, "{served:?}");
}

#[test]
fn weights_of_one_and_three_are_served_one_to_three() {
    let (served, ..) = saturated(&[1.0, 3.0], 600);
    assert!((served[1] / served[0] / 3.0 - 1.0).abs() < 0.1, "{served:?}");
}

/// The bound that `docs/guide/tenants.md` states.
#[test]
fn counters_never_differ_by_more_than_two_steps() {
    let weights = [1.0, 2.0, 0.5];
    let (_, config, history) = saturated(&weights, 400);
    let bound = 2.0 * (config.prefill_chunk + config.decode_rows) as f64 / 0.5;
    for counters in history {
        let (low, high) = counters.iter().fold((f64::MAX, 0.0f64), |(l, h), &c| (l.min(c), h.max(c)));
        assert!(high - low <= bound, "{counters:?}, allowed {bound}");
    }
}

#[test]
fn a_hundred_long_prompts_hold_another_tenant_up_for_one_chunk_a_token() {
    let config = EngineConfig { shared_prefill_chunk: 64, ..EngineConfig::default() };
    let mut bench = Bench::new(&tiny("llama-f32"), 600, config);
    let (victim, attacker) = (tenant(Limits::default()), tenant(Limits::default()));
    let chunks = bench.generate(&victim, &text(1, 0, 10), 60);
    bench.step();
    assert_eq!(tokens(&chunks).0.len(), 1);
    let _attack: Vec<_> = (0..100).map(|i| bench.generate(&attacker, &text(i, 0, 400), 4)).collect();
    for _ in 0..59 {
        bench.step();
        assert!(bench.scheduler.batch.rows() <= 64 + bench.scheduler.config.decode_rows);
        assert_eq!(tokens(&chunks).0.len(), 1, "every step serves the one who generates");
    }
}

#[test]
fn a_tenant_within_its_share_of_pages_gets_them_from_one_above() {
    let config = EngineConfig { prefix_cache: false, ..EngineConfig::default() };
    let mut bench = Bench::new(&tiny("llama-f32"), 20, config);
    let (greedy, late) = (tenant(Limits::default()), tenant(Limits::default()));
    let _all: Vec<_> = (0..4).map(|i| bench.generate(&greedy, &text(i, 0, 150), 100)).collect();
    bench.step();
    bench.step();
    assert!(bench.scheduler.kv.available() < 5);
    let chunks = bench.generate(&late, &text(9, 0, 150), 5);
    for _ in 0..12 {
        bench.step();
    }
    assert_eq!(tokens(&chunks).0.len(), 5, "it did not wait for the others to end");
    assert!(greedy.running() >= 1 && greedy.waiting() >= 1);
}

/// A prompt that takes nearly all pages, computed 16 tokens a step beside other requests.
fn with_a_long_prompt() -> (Bench, Arc<Tenant>, Chunks) {
    let config = EngineConfig { prefill_chunk: 16, shared_prefill_chunk: 16, ..EngineConfig::default() };
    let mut bench = Bench::new(&tiny("llama-f32"), 20, config);
    let long = tenant(Limits::default());
    let chunks = bench.generate(&long, &text(1, 0, 610), 5);
    bench.step();
    (bench, long, chunks)
}

#[test]
fn a_short_request_does_not_wait_for_the_end_of_a_prompt_that_takes_nearly_all_pages() {
    let (mut alone, _, expected) = with_a_long_prompt();
    alone.finish();
    let expected = tokens(&expected).0;

    let (mut bench, long, chunks) = with_a_long_prompt();
    let short = tenant(Limits::default());
    let few = bench.generate(&short, &text(9, 0, 10), 5);
    for _ in 0..6 {
        bench.step();
    }
    assert_eq!(tokens(&few).0.len(), 5, "it got in at once");
    assert_eq!((long.running(), long.waiting()), (1, 0), "the long one kept its pages");
    bench.finish();
    assert_eq!(tokens(&chunks).0, expected);
}

#[test]
fn a_prompt_that_takes_nearly_all_pages_ends_beside_any_number_of_short_requests() {
    let (mut bench, long, chunks) = with_a_long_prompt();
    // Another one of its kind waits for its turn all the while, and keeps none of the short ones out.
    let other = tenant(Limits::default());
    let more = bench.generate(&other, &text(2, 0, 610), 5);
    let short = tenant(Limits::default());
    let mut running = Vec::new();
    let (mut ended, mut steps) = (0, 0);
    while long.running() + long.waiting() + other.running() + other.waiting() > 0 {
        if running.len() < 2 {
            running.push(bench.generate(&short, &text(9 + steps, 0, 40), 30));
        }
        bench.step();
        steps += 1;
        running.retain(|chunks| {
            let done = tokens(chunks).1.is_some();
            ended += u32::from(done);
            !done
        });
        assert!(steps < 3000, "the long ones do not end: {ended} short ones did");
    }
    assert_eq!((tokens(&chunks).0.len(), tokens(&more).0.len()), (5, 5));
    assert!(ended > steps / 100, "{ended} short ones in {steps} steps");
}

#[test]
fn a_prefix_that_a_tenant_computed_is_its_own() {
    let mut bench = Bench::new(&tiny("llama-f32"), 100, EngineConfig::default());
    let (one, other) = (tenant(Limits::default()), tenant(Limits::default()));
    let prompt = text(5, 0, 200);
    // The cost: the rows computed, and the cached tokens in the usage.
    let mut run = |tenant: &Arc<Tenant>, shared: usize| {
        let chunks = bench.request(tenant, &prompt, 1, shared);
        let mut rows = 0;
        while bench.step() == Next::Go {
            rows += bench.scheduler.batch.rows();
        }
        let usage = tokens(&chunks).1.expect("an end").usage;
        (rows, usage.cached_tokens)
    };
    assert_eq!(run(&one, 0), (200, 0));
    assert_eq!(run(&one, 0), (8, 192), "its own prefix is known");
    assert_eq!(run(&other, 0), (200, 0), "another tenant learns nothing");
    assert_eq!(run(&other, 130), (200, 0), "what was not marked is not shared");
    assert_eq!(run(&one, 130), (72, 128), "what both marked is");
}

#[test]
fn limits_hold_and_nothing_is_lost() {
    let mut bench = Bench::new(&tiny("llama-f32"), 100, EngineConfig::default());
    let few = tenant(Limits { max_concurrent: Some(2), ..Limits::default() });
    let all: Vec<_> = (0..6).map(|i| bench.generate(&few, &text(i, 0, 20), 10)).collect();
    while bench.step() == Next::Go {
        assert!(few.running() <= 2);
    }
    assert!(all.iter().all(|chunks| tokens(chunks).0.len() == 10));
    assert_eq!((few.running(), few.waiting()), (0, 0));

    // 40 tokens of prompt and 30 generated: the second request waits until the first has ended.
    let small = tenant(Limits { kv_tokens: Some(100), ..Limits::default() });
    let all: Vec<_> = (0..3).map(|i| bench.generate(&small, &text(i, 0, 40), 30)).collect();
    while bench.step() == Next::Go {
        let held = bench.scheduler.running.iter().map(|task| task.cached).sum::<usize>();
        assert!(held <= 100, "{held}");
    }
    assert!(all.iter().all(|chunks| tokens(chunks).0.len() == 30));
}

#[test]
fn a_tenant_over_its_tokens_a_minute_waits_and_others_do_not() {
    let mut bench = Bench::new(&tiny("llama-f32"), 100, EngineConfig::default());
    let slow = tenant(Limits { tokens_per_minute: Some(60), ..Limits::default() });
    let free = tenant(Limits::default());
    let first = bench.generate(&slow, &text(1, 0, 70), 5);
    let other = bench.generate(&free, &text(2, 0, 70), 5);
    let next = loop {
        match bench.step() {
            Next::Go => {}
            next => break next,
        }
    };
    assert_eq!(tokens(&other).0.len(), 5);
    assert_eq!(tokens(&first).0.len(), 1, "its prompt took more than a minute's worth");
    assert!(matches!(next, Next::Wait(Some(wait)) if wait <= Duration::from_secs(60)), "{next:?}");
}

#[test]
fn a_request_out_of_time_ends_with_an_error_that_says_so() {
    let mut bench = Bench::new(&tiny("llama-f32"), 100, EngineConfig::default());
    let hasty = tenant(Limits::default());
    let chunks = bench.generate(&hasty, &text(1, 0, 70), 5);
    bench.step();
    bench.scheduler.running[0].deadline = Some(Instant::now());
    bench.finish();
    let last = std::iter::from_fn(|| chunks.try_recv().ok()).last().expect("a chunk").into_inner();
    assert!(matches!(last, Err(Error::LimitExceeded(why)) if why.contains("request_timeout")));
    assert_eq!(hasty.running(), 0);
}
