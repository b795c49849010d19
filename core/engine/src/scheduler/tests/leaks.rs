//! A tenant's counts reveal nothing about another tenant.

use realm_compute::PAGE_TOKENS;

use super::*;
use crate::command::SessionCommand;
use crate::leak;
use crate::task::session::{Forwarded, Output, Results};

const PAGES: usize = 24;

struct Probe {
    bench: Bench,
    own: Arc<Tenant>,
    other: Arc<Tenant>,
}

impl Probe {
    fn new() -> Self {
        let config = EngineConfig {
            context_length: Some(8 * PAGE_TOKENS),
            prefill_chunk: 64,
            speculation: Speculation::Off,
            ..EngineConfig::default()
        };
        let bench = Bench::new(&tiny("llama-f32"), PAGES, config);
        let (own, other) = (tenant(Limits::default()), tenant(Limits::default()));
        bench.members.add(&own);
        bench.members.add(&other);
        Self { bench, own, other }
    }

    /// Returns how many tokens of a prompt were cached.
    fn ask(&mut self, prompt: &[u32]) -> usize {
        let chunks = self.bench.generate(&Arc::clone(&self.own), prompt, 1);
        self.bench.finish();
        tokens(&chunks).1.expect("an end").usage.cached_tokens
    }

    fn short(round: usize, i: usize) -> Vec<u32> {
        (0..PAGE_TOKENS + 1).map(|j| ((round * 7919 + i * 131 + j * j * 17 + i * j) % 97) as u32).collect()
    }
}

/// A tenant that fills its part of the cache and checks how much of it is left finds out nothing about the
/// length of another tenant's prompt. Before, it knew the number of its pages exactly, in each of ten rounds.
#[test]
fn the_length_of_anothers_prompt_does_not_show_in_what_is_remembered() {
    let (mut probe, mut random) = (Probe::new(), leak::random(7));
    let seen = (0..leak::rounds()).map(|round| {
        for i in 0..PAGES + 8 {
            probe.ask(&Probe::short(round, i));
        }
        let pages = random(7);
        let secret = text(round as u32, 0, pages * PAGE_TOKENS + 1);
        let chunks = probe.bench.generate(&Arc::clone(&probe.other), &secret, 1);
        probe.bench.finish();
        assert!(tokens(&chunks).1.is_some());
        let newest_first = (0..PAGES + 8).rev();
        let left = newest_first.take_while(|&i| probe.ask(&Probe::short(round, i)) > 0).count();
        assert!(left >= 6, "{left} pages are remembered");
        (pages, left)
    });
    leak::assert_tells_nothing(&seen.collect::<Vec<_>>());
}

/// The same holds for requests that run beside the other tenant's, and for a sequence that rests meanwhile,
/// all within the tenant's part.
#[test]
fn what_others_run_at_the_same_time_does_not_show_either() {
    let life = |busy: bool| {
        let (mut probe, mut random) = (Probe::new(), leak::random(11));
        let mut noise = leak::random(12);
        let (id, tenant) = (probe.bench.next_id(), Arc::clone(&probe.own));
        let open = SessionCommand::Open { id, tenant, adapter: None, limit: 200, shared_prefix: 0 };
        probe.bench.scheduler.session(open);
        let (mut seen, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..leak::rounds() * 4 {
            if busy {
                for _ in 0..noise(4) {
                    let prompt = text(noise(50) as u32, 0, 1 + noise(5 * PAGE_TOKENS));
                    let other = Arc::clone(&probe.other);
                    beside.push(probe.bench.generate(&other, &prompt, 1 + noise(30)));
                    probe.bench.step();
                }
                if noise(3) == 0 {
                    beside.clear();
                }
            }
            let prompt = text(random(8) as u32, 40, 40 + random(3 * PAGE_TOKENS));
            let chunks = probe.bench.generate(&Arc::clone(&probe.own), &prompt, 1 + random(8));
            let finish = loop {
                probe.bench.step();
                if let (_, Some(finish)) = tokens(&chunks) {
                    break finish;
                }
            };
            seen.push(finish.usage.cached_tokens);
            if random(3) == 0 {
                let (reply, answer) = realm_handover::channel(1);
                let results = Results::Values(Forwarded::default(), reply);
                let tokens = text(random(3) as u32, 0, 1 + random(9));
                let output = Output::LastLogits;
                probe.bench.scheduler.session(SessionCommand::Forward { id, tokens, output, results });
                let forwarded = loop {
                    probe.bench.step();
                    if let Ok(forwarded) = answer.try_recv() {
                        break forwarded.expect("no error");
                    }
                };
                seen.push(forwarded.cached);
                probe.bench.scheduler.session(SessionCommand::Truncate { id, len: random(PAGE_TOKENS) });
            }
        }
        seen
    };
    let (alone, beside) = (life(false), life(true));
    assert!(alone.iter().filter(|&&cached| cached > 0).count() > alone.len() / 4, "{alone:?}");
    assert_eq!(alone, beside);
}

/// A request that needs nearly all pages gets them, beside the cached and idle pages of others.
#[test]
fn a_sequence_of_the_whole_cache_is_computed_whatever_others_remember() {
    let config = EngineConfig { speculation: Speculation::Off, ..EngineConfig::default() };
    let mut bench = Bench::new(&tiny("llama-f32"), PAGES, config);
    let tenants: Vec<_> = (0..3).map(|_| tenant(Limits::default())).collect();
    for round in 0..3 {
        for (i, tenant) in tenants.iter().enumerate() {
            let prompt = text((round * 3 + i) as u32, 0, bench.context - 10);
            let chunks = bench.generate(tenant, &prompt, 10);
            bench.finish();
            assert_eq!(tokens(&chunks).0.len(), 10);
        }
    }
    let (id, tenant) = (bench.next_id(), Arc::clone(&tenants[0]));
    let limit = bench.context;
    let open = SessionCommand::Open { id, tenant, adapter: None, limit, shared_prefix: 0 };
    bench.scheduler.session(open);
    let (reply, answer) = realm_handover::channel(1);
    let results = Results::Values(Forwarded::default(), reply);
    let forward = SessionCommand::Forward { id, tokens: text(1, 0, 300), output: Output::Nothing, results };
    bench.scheduler.session(forward);
    bench.finish();
    answer.try_recv().expect("an answer").expect("no error");
    // The sequence rests, and holds pages.
    let chunks = bench.generate(&tenants[1], &text(2, 0, bench.context - 10), 10);
    bench.finish();
    assert_eq!(tokens(&chunks).0.len(), 10);
}

/// Prefixes that a tenant marks as shared are cached only within the part for shared prefixes, and beyond it
/// by the tenant itself.
#[test]
fn prefixes_that_are_marked_as_shared_take_nothing_from_what_others_remember() {
    let mut probe = Probe::new();
    // From the first mark on there is a part for shared prefixes.
    let marked = probe.bench.request(&Arc::clone(&probe.other), &text(90, 0, 70), 1, 64);
    probe.bench.finish();
    assert!(tokens(&marked).1.is_some());
    let kept = text(1, 0, 4 * PAGE_TOKENS + 1);
    probe.ask(&kept);
    for i in 0..60 {
        let chunks = probe.bench.request(&Arc::clone(&probe.other), &text(i, 0, 100), 1, 96);
        probe.bench.finish();
        assert!(tokens(&chunks).1.is_some());
    }
    assert_eq!(probe.ask(&kept), 4 * PAGE_TOKENS);
}
