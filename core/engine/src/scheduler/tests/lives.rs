//! Random lives of requests and sessions: whatever arrives, is cancelled, forks or runs short of pages,
//! greedy text is the same as alone, and no page is leaked.

use std::collections::HashMap;

use proptest::prelude::*;
use realm_compute::{Batch, PAGE_TOKENS, Want};

use super::*;
use crate::Speculation;
use crate::command::SessionCommand;
use crate::task::session::{Forwarded, Output, Results};

#[derive(Debug, Clone)]
enum Event {
    Request { tenant: usize, text: u32, len: usize, tokens: usize, shared: bool },
    Cancel { request: usize },
    Steps(usize),
    Open { tenant: usize },
    Forward { session: usize, text: u32, len: usize, output: Output },
    Fork { session: usize },
    Truncate { session: usize, len: usize },
    Close { session: usize },
}

fn events(len: usize, longest: usize) -> impl Strategy<Value = Vec<Event>> {
    let session = 0usize..4;
    let output = prop_oneof![
        Just(Output::LastLogits),
        Just(Output::Logits),
        Just(Output::Hidden),
        Just(Output::Nothing)
    ];
    let request = (0usize..3, 0u32..4, 1..longest, 1usize..24, any::<bool>());
    let event = prop_oneof![
        5 => request.prop_map(|(tenant, text, len, tokens, shared)| Event::Request { tenant, text, len, tokens, shared }),
        1 => (0usize..8).prop_map(|request| Event::Cancel { request }),
        8 => (1usize..12).prop_map(Event::Steps),
        1 => (0usize..3).prop_map(|tenant| Event::Open { tenant }),
        3 => (session.clone(), 0u32..4, 0..longest, output)
            .prop_map(|(session, text, len, output)| Event::Forward { session, text, len, output }),
        1 => session.clone().prop_map(|session| Event::Fork { session }),
        1 => (session.clone(), 0..longest).prop_map(|(session, len)| Event::Truncate { session, len }),
        1 => session.prop_map(|session| Event::Close { session }),
    ];
    prop::collection::vec(event, 1..len)
}

/// The handle's side of a session.
struct Handle {
    id: u64,
    tokens: Vec<u32>,
    pending: Option<Pending>,
}

/// The pending forward: its results, the wanted output, and the index of the first new token.
type Pending = (Receiver<Result<Forwarded, Error>>, Output, usize);

struct Life<'a> {
    model: &'a Model,
    bench: Bench,
    tenants: Vec<Arc<Tenant>>,
    requests: Vec<(Vec<u32>, usize, Chunks)>,
    sessions: Vec<Handle>,
    alone: &'a mut HashMap<Vec<u32>, Vec<u32>>,
}

impl Life<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Request { tenant, text: seed, len, tokens, shared } => {
                let prompt = text(seed, 40, len);
                let shared = if shared { 40 } else { 0 };
                let chunks = self.bench.request(&self.tenants[tenant], &prompt, tokens, shared);
                self.requests.push((prompt, tokens, chunks));
            }
            Event::Cancel { request } if request < self.requests.len() => {
                self.requests.swap_remove(request);
            }
            Event::Steps(steps) => {
                for _ in 0..steps {
                    self.bench.step();
                }
            }
            Event::Open { tenant } if self.sessions.len() < 4 => {
                let (id, limit) = (self.bench.next_id(), self.bench.context);
                let tenant = Arc::clone(&self.tenants[tenant]);
                self.bench.members.add(&tenant);
                let open = SessionCommand::Open { id, tenant, adapter: None, limit, shared_prefix: 0 };
                self.bench.scheduler.session(open);
                self.sessions.push(Handle { id, tokens: Vec::new(), pending: None });
            }
            Event::Forward { session, text: seed, len, output } if session < self.sessions.len() => {
                self.settle(session);
                let handle = &mut self.sessions[session];
                let first = handle.tokens.len();
                let new = text(seed, 0, len.min(self.bench.context - first));
                handle.tokens.extend(&new);
                if handle.tokens.is_empty() {
                    return;
                }
                let (reply, answer) = realm_handover::channel(1);
                let first = first.min(handle.tokens.len() - 1);
                handle.pending = Some((answer, output, first));
                let results = Results::Values(Forwarded::default(), reply);
                let forward = SessionCommand::Forward { id: handle.id, tokens: new, output, results };
                self.bench.scheduler.session(forward);
            }
            Event::Fork { session } if session < self.sessions.len() && self.sessions.len() < 4 => {
                // Forking cancels a pending forward; its tokens stay.
                self.sessions[session].pending = None;
                let (id, to) = (self.sessions[session].id, self.bench.next_id());
                self.bench.scheduler.session(SessionCommand::Fork { id, to });
                let tokens = self.sessions[session].tokens.clone();
                self.sessions.push(Handle { id: to, tokens, pending: None });
            }
            Event::Truncate { session, len } if session < self.sessions.len() => {
                let handle = &mut self.sessions[session];
                handle.pending = None;
                handle.tokens.truncate(len);
                self.bench.scheduler.session(SessionCommand::Truncate { id: handle.id, len });
            }
            Event::Close { session } if session < self.sessions.len() => {
                let handle = self.sessions.swap_remove(session);
                self.bench.scheduler.session(SessionCommand::Close { id: handle.id });
            }
            _ => {}
        }
        self.bench.check();
    }

    /// Waits for a session's forward and compares its results with a pass over all of its tokens.
    fn settle(&mut self, session: usize) {
        let Some((answer, output, first)) = self.sessions[session].pending.take() else { return };
        let results = loop {
            match answer.try_recv() {
                Ok(results) => break results.expect("no error"),
                Err(_) => assert_eq!(self.bench.step(), Next::Go, "the forward is never done"),
            }
        };
        let tokens = &self.sessions[session].tokens;
        let rows: Vec<Vec<u32>> =
            results.rows().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect();
        let want = |want: Want| whole_pass(self.model, tokens, want);
        let expected = match output {
            Output::Nothing => Vec::new(),
            Output::LastLogits => want(Want::LastLogits),
            Output::Logits => want(Want::Logits).split_off(first),
            Output::Hidden => want(Want::Hidden).split_off(first),
        };
        assert!(rows == expected, "{output:?} of {} tokens from {first}: {} rows", tokens.len(), rows.len());
    }

    /// Ends all requests and sessions and compares their results.
    fn end(mut self) {
        for session in 0..self.sessions.len() {
            self.settle(session);
        }
        self.bench.finish();
        for (prompt, wanted, chunks) in &self.requests {
            let (got, finish) = tokens(chunks);
            let most = self.bench.context - prompt.len();
            assert_eq!(got.len(), (*wanted).min(most));
            assert!(finish.is_some());
            let model = self.model;
            let alone = self.alone.entry(prompt.clone()).or_insert_with(|| greedy_alone(model, prompt, 24));
            assert_eq!(got[..], alone[..got.len()], "a prompt of {}", prompt.len());
        }
        for handle in &self.sessions {
            self.bench.scheduler.session(SessionCommand::Close { id: handle.id });
        }
        self.bench.check();
        let s = &mut self.bench.scheduler;
        assert!(s.running.is_empty() && s.resting.is_empty());
        assert_eq!(s.kv.available(), s.kv.total());
        s.kv.forget(|_| true);
        assert_eq!(s.kv.free(), s.kv.total());
        assert!(self.tenants.iter().all(|tenant| tenant.running() + tenant.waiting() == 0));
    }
}

/// Returns the bits of a pass over all tokens at once, with no other sequence in it.
fn whole_pass(model: &Model, tokens: &[u32], want: Want) -> Vec<Vec<u32>> {
    let groups = model.config().cache_layout().groups() as u32;
    let pages = tokens.len().div_ceil(PAGE_TOKENS) as u32;
    let mut runner = model.runner((groups * pages) as usize, CacheType::F32).expect("a runner");
    let tables: Vec<Vec<u32>> = (0..groups).map(|g| (g * pages..(g + 1) * pages).collect()).collect();
    let mut batch = Batch::default();
    batch.push(tokens, 0, &tables, want);
    runner.forward(&batch).expect("a pass");
    let (values, width) = match want {
        Want::Hidden => (runner.hidden(), model.config().hidden),
        _ => (runner.outputs().host(), model.config().vocab),
    };
    values.chunks_exact(width).map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
}

/// Returns the text of a request with a whole engine to itself, without cache and drafts.
fn greedy_alone(model: &Model, prompt: &[u32], tokens: usize) -> Vec<u32> {
    let config =
        EngineConfig { prefix_cache: false, speculation: Speculation::Off, ..EngineConfig::default() };
    let mut bench = Bench::new(model, 40, config);
    let chunks = bench.generate(&tenant(Limits::default()), prompt, tokens);
    bench.finish();
    super::tokens(&chunks).0
}

/// Plays events with too few pages for all requests.
fn live(
    model: &Model,
    alone: &mut HashMap<Vec<u32>, Vec<u32>>,
    pages: usize,
    speculation: Speculation,
    events: Vec<Event>,
) {
    let config = EngineConfig {
        prefill_chunk: 48,
        shared_prefill_chunk: 20,
        decode_rows: 3,
        max_running: 6,
        speculation,
        fixed_drafts: Some(4),
        // The draft model's cache, too small for all sequences.
        kv_tokens: Some(128),
        ..EngineConfig::default()
    };
    let bench = Bench::new(model, pages, config);
    let tenants = [
        Limits::default(),
        Limits { weight: 3.0, max_concurrent: Some(2), ..Limits::default() },
        Limits { kv_tokens: Some(bench.context), ..Limits::default() },
    ];
    let tenants = tenants.map(tenant).to_vec();
    let mut life = Life { model, bench, tenants, requests: Vec::new(), sessions: Vec::new(), alone };
    events.into_iter().for_each(|event| life.event(event));
    life.end();
}

fn lives(name: &str, cases: u32, speculation: Speculation) {
    let model = tiny(name);
    let mut alone = HashMap::new();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
    let alone = std::cell::RefCell::new(&mut alone);
    let result = runner.run(&events(60, 150), |events| {
        live(&model, &mut alone.borrow_mut(), 12, speculation, events);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn whatever_happens_text_is_the_same_and_nothing_is_left() {
    lives("llama-f32", 60, Speculation::Lookup);
}

#[test]
fn whatever_happens_with_windows_in_some_layers() {
    lives("gemma3-f16", 40, Speculation::Lookup);
}

#[test]
fn whatever_happens_with_windows_in_all_layers() {
    lives("mistral-window-f16", 40, Speculation::Off);
}

#[test]
fn whatever_happens_with_a_draft_model() {
    lives("llama-f32", 30, Speculation::Draft);
    lives("mistral-window-f16", 30, Speculation::Draft);
}

#[test]
fn whatever_happens_on_a_real_model() {
    let model = load(&smollm2(), 2);
    let mut alone = HashMap::new();
    let config = ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..ProptestConfig::with_cases(3)
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let alone = std::cell::RefCell::new(&mut alone);
    let result = runner.run(&events(40, 90), |events| {
        live(&model, &mut alone.borrow_mut(), 8, Speculation::Lookup, events);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
