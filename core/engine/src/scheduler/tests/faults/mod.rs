//! Whatever fails, only the request at fault ends, and the results of all others stay the same.

mod backend;

use std::sync::Mutex;

use realm_compute::PAGE_TOKENS;

use super::*;
use crate::LayerwiseSession;
use crate::command::{Command, SessionCommand};
use crate::snapshot::Snapshot;
use crate::task::session::{Forwarded, Output, Results};
use backend::{Fault, Faulty, State, When};

/// A token that only the request at fault has.
const MARK: u32 = 95;
const TOKENS: usize = 12;
/// The index of the request at fault among the requests.
const CULPRIT: usize = 3;

/// All operations of a pass.
const OPERATIONS: [&str; 13] = [
    "pass",
    "embed",
    "rotations",
    "norm",
    "matmul",
    "rope_store",
    "attention",
    "add_norm",
    "gated_activation",
    "gather",
    "soft_cap",
    // On devices with memory of their own.
    "top_k",
    "read",
];

/// The result of a request.
#[derive(Debug, PartialEq)]
struct Came {
    tokens: Vec<u32>,
    error: Option<String>,
}

impl Came {
    fn of(chunks: &Chunks) -> Self {
        let mut came = Self { tokens: Vec::new(), error: None };
        while let Ok(chunk) = chunks.try_recv() {
            match chunk.into_inner() {
                Ok(chunk) => came.tokens.extend(chunk.tokens.iter().map(|token| token.id)),
                Err(error) => came.error = Some(error.to_string()),
            }
        }
        came
    }
}

/// A model with all the operations, on a backend that fails as `state` says.
struct Setup {
    model: Arc<Transformer<Faulty>>,
    state: Arc<Mutex<State>>,
}

fn prompt(seed: u32) -> Vec<u32> {
    (0..40).map(|i| (i * 13 + seed * 29) % 90).collect()
}

impl Setup {
    fn new(device: bool) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny/gemma2-f16.gguf");
        let gguf = Gguf::open(&path).expect("a GGUF file");
        let backend = Arc::new(Faulty::new(device, Arc::clone(&state)));
        let model = Transformer::load(backend, &gguf, &mut |_, _| {}).expect("a model");
        Self { model: Arc::new(model), state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn break_with(&self, fault: Option<Fault>) {
        let mut state = self.state();
        (state.fault, state.failed, state.company) = (fault, 0, 0);
    }

    fn bench(&self) -> Bench {
        Bench::new(&self.model, 40, EngineConfig { speculation: Speculation::Off, ..EngineConfig::default() })
    }

    /// Returns the results of three requests, of the request at fault, which has the mark in its prompt or,
    /// with `late`, among its generated tokens, and of a session's forward.
    fn company(&self, bench: &mut Bench, late: bool) -> Vec<Came> {
        let mut session = Handle::open(bench);
        session.forward(bench, &prompt(7), Output::Logits);
        let mut came = self.requests(bench, late);
        came.push(session.came());
        session.close(bench);
        assert!(bench.scheduler.running.is_empty());
        came
    }

    /// Returns the same results without the session.
    fn requests(&self, bench: &mut Bench, late: bool) -> Vec<Came> {
        let tenant = tenant(Limits::default());
        let honest = Sampling { banned_tokens: vec![MARK], ..Sampling::greedy() };
        let mut all: Vec<Chunks> =
            (0..3).map(|i| bench.sample(&tenant, &prompt(i), TOKENS, 0, honest.clone())).collect();
        let (mut culprit, sampling) = (prompt(9), Sampling::greedy());
        let sampling = if late {
            Sampling { logit_bias: [(MARK, 1e6)].into(), ..sampling }
        } else {
            culprit[20] = MARK;
            honest
        };
        all.push(bench.sample(&tenant, &culprit, TOKENS, 0, sampling));
        bench.finish();
        assert_eq!(tenant.running() + tenant.waiting(), 0);
        all.iter().map(Came::of).collect()
    }
}

/// The handle's side of a session.
struct Handle {
    id: u64,
    answer: Option<Receiver<Result<Forwarded, Error>>>,
}

impl Handle {
    fn open(bench: &mut Bench) -> Self {
        let (id, limit, tenant) = (bench.next_id(), bench.context, tenant(Limits::default()));
        let open = SessionCommand::Open { id, tenant, adapter: None, limit, shared_prefix: 0 };
        bench.scheduler.session(open);
        Self { id, answer: None }
    }

    fn forward(&mut self, bench: &mut Bench, tokens: &[u32], output: Output) {
        let (reply, answer) = realm_handover::channel(1);
        self.answer = Some(answer);
        let results = Results::Values(Forwarded::default(), reply);
        let forward = SessionCommand::Forward { id: self.id, tokens: tokens.to_vec(), output, results };
        bench.scheduler.session(forward);
    }

    fn fork(&self, bench: &mut Bench) -> Self {
        let to = bench.next_id();
        bench.scheduler.session(SessionCommand::Fork { id: self.id, to });
        Self { id: to, answer: None }
    }

    /// The bits of the results.
    fn came(&self) -> Came {
        match self.answer.as_ref().expect("a forward").try_recv().expect("an answer") {
            Ok(results) => Came { tokens: results.values.iter().map(|x| x.to_bits()).collect(), error: None },
            Err(error) => Came { tokens: Vec::new(), error: Some(error.to_string()) },
        }
    }

    fn close(self, bench: &mut Bench) {
        bench.scheduler.session(SessionCommand::Close { id: self.id });
        bench.check();
    }
}

/// Returns the results without faults.
fn well(setup: &Setup, late: bool) -> Vec<Came> {
    setup.break_with(None);
    let came = setup.company(&mut setup.bench(), late);
    assert!(came.iter().all(|came| came.error.is_none() && came.tokens.len() >= TOKENS), "{came:?}");
    came
}

#[test]
fn a_fault_in_any_operation_ends_the_culprit_alone() {
    for (device, operations) in [(false, &OPERATIONS[..11]), (true, &OPERATIONS[..])] {
        let setup = Setup::new(device);
        for late in [false, true] {
            let wanted = well(&setup, late);
            for (&operation, panics) in operations.iter().flat_map(|o| [(o, false), (o, true)]) {
                let fault = Fault { operation, when: When::With(MARK), panics };
                setup.break_with(Some(fault));
                let mut bench = setup.bench();
                // If a request needs all logits, the likeliest ones are not looked for.
                let came = match operation {
                    "top_k" if late => continue,
                    "top_k" => setup.requests(&mut bench, late),
                    _ => setup.company(&mut bench, late),
                };
                let others = |all: &[Came]| -> Vec<String> {
                    (0..came.len()).filter(|&i| i != CULPRIT).map(|i| format!("{:?}", all[i])).collect()
                };
                assert!(others(&came) == others(&wanted), "{fault:?}");
                let culprit = &came[CULPRIT];
                let error = culprit.error.as_ref().unwrap_or_else(|| panic!("{fault:?}"));
                assert!(error.contains(if panics { "a fault of Realm's" } else { operation }), "{error}");
                assert!(wanted[CULPRIT].tokens.starts_with(&culprit.tokens), "{fault:?}");
                // Its first token came before the mark was in a pass.
                assert_eq!(culprit.tokens.len(), usize::from(late), "{fault:?}");
                assert!(setup.state().company > 1, "it was alone: {fault:?}");
                // Later requests find everything in order.
                setup.break_with(None);
                assert_eq!(setup.company(&mut bench, late), wanted, "{fault:?}");
                assert!(bench.scheduler.resting.is_empty());
            }
        }
    }
}

#[test]
fn who_makes_passes_fail_owes_their_time_and_its_company_nothing() {
    let setup = Setup::new(false);
    // The counters of four tenants after their first pass, and the time of 40 rows.
    let counters = |fault| {
        setup.break_with(fault);
        let mut bench = setup.bench();
        let tenants: Vec<_> = (0..4).map(|_| tenant(Limits::default())).collect();
        let mut prompts: Vec<_> = (0..4).map(prompt).collect();
        prompts[CULPRIT][20] = MARK;
        let _open: Vec<_> = tenants
            .iter()
            .zip(&prompts)
            .map(|(tenant, prompt)| bench.generate(tenant, prompt, TOKENS))
            .collect();
        bench.step();
        let counters = tenants.iter().map(|tenant| bench.scheduler.accounts.counter(tenant.id()));
        (counters.collect::<Vec<f64>>(), bench.scheduler.prices.pass(0, 40, 0))
    };
    let (without, _) = counters(None);
    for panics in [false, true] {
        let (with, price) = counters(Some(Fault { operation: "matmul", when: When::With(MARK), panics }));
        let state = setup.state();
        assert_eq!((state.failed, state.company), (3, 4), "passes of four, of two and of the culprit");
        drop(state);
        assert!((with[CULPRIT] - 7.0 * price).abs() < 1e-9, "{} and not {}", with[CULPRIT], 7.0 * price);
        assert!(with[CULPRIT] > 4.0 * without[CULPRIT], "{with:?}, {without:?}");
        assert_eq!(with[..CULPRIT], without[..CULPRIT], "the others owe what they owe without it");
    }
}

/// Passes would queue up on the device otherwise, and whoever comes next would wait for all of them.
#[test]
fn the_engine_waits_for_a_pass_of_a_prompt_that_has_no_results() {
    let setup = Setup::new(true);
    let config = EngineConfig { prefill_chunk: 16, ..EngineConfig::default() };
    let mut bench = Bench::new(&setup.model, 40, config);
    setup.break_with(Some(Fault { operation: "wait", when: When::Once, panics: false }));
    let chunks = bench.generate(&tenant(Limits::default()), &prompt(1), 4);
    bench.finish();
    assert!(Came::of(&chunks).error.is_some_and(|error| error.contains("wait")));
    assert_eq!(setup.state().failed, 1);
}

#[test]
fn a_fault_that_passes_ends_no_request() {
    let setup = Setup::new(true);
    let wanted = well(&setup, false);
    for (operation, panics) in OPERATIONS.iter().flat_map(|&o| [(o, false), (o, true)]) {
        setup.break_with(Some(Fault { operation, when: When::Once, panics }));
        assert_eq!(setup.company(&mut setup.bench(), false), wanted, "{operation}");
        let state = setup.state();
        assert!(state.failed == 1 && state.company > 1, "{operation}");
    }
}

#[test]
fn a_lost_device_ends_everybody_with_its_error() {
    let setup = Setup::new(true);
    let wanted = well(&setup, false);
    for operation in OPERATIONS {
        setup.break_with(Some(Fault { operation, when: When::Always, panics: false }));
        let mut bench = setup.bench();
        for came in setup.requests(&mut bench, false) {
            assert!(came.error.is_some_and(|error| error.contains(operation)), "{operation}");
        }
        setup.break_with(None);
        assert_eq!(setup.company(&mut bench, false), wanted, "{operation}");
    }
}

#[test]
fn a_page_that_is_not_copied_ends_the_fork_that_needs_it() {
    let setup = Setup::new(false);
    for panics in [false, true] {
        setup.break_with(None);
        let mut bench = setup.bench();
        let mut first = Handle::open(&mut bench);
        first.forward(&mut bench, &prompt(1), Output::Nothing);
        bench.finish();
        let mut second = first.fork(&mut bench);
        let honest = bench.sample(&tenant(Limits::default()), &prompt(2), TOKENS, 0, Sampling::greedy());
        setup.break_with(Some(Fault { operation: "copy_page", when: When::Once, panics }));
        first.forward(&mut bench, &[3], Output::LastLogits);
        second.forward(&mut bench, &[4], Output::LastLogits);
        bench.finish();
        assert_eq!(setup.state().failed, 1);
        let came = [first.came(), second.came()];
        assert_eq!(came.iter().filter(|came| came.error.is_some()).count(), 1, "one of them needed a copy");
        assert_eq!(Came::of(&honest).error, None);
        // Both continue, the one without its page from the beginning.
        let mut alone = Handle::open(&mut bench);
        alone.forward(&mut bench, &[&prompt(1)[..], &[3, 5]].concat(), Output::LastLogits);
        first.forward(&mut bench, &[5], Output::LastLogits);
        second.forward(&mut bench, &[5], Output::LastLogits);
        bench.finish();
        assert_eq!(first.came(), alone.came());
        assert_eq!(second.came().error, None);
    }
}

#[test]
fn pages_that_cannot_be_read_or_filled_are_one_sequences_loss() {
    let setup = Setup::new(false);
    let mut bench = setup.bench();
    let mut session = Handle::open(&mut bench);
    session.forward(&mut bench, &prompt(1), Output::Nothing);
    bench.finish();
    let save = |bench: &mut Bench| {
        let (reply, answer) = realm_handover::channel(1);
        bench.scheduler.session(SessionCommand::Save { id: session.id, reply, begun: None });
        answer.try_recv().expect("an answer")
    };
    let fault = |operation| Some(Fault { operation, when: When::Always, panics: false });
    setup.break_with(fault("export_page"));
    assert!(save(&mut bench).is_err());
    setup.break_with(None);
    let snapshot = save(&mut bench).expect("a snapshot");
    setup.break_with(fault("import_page"));
    let mut restored = Handle::open(&mut bench);
    bench.scheduler.session(SessionCommand::Restore { id: restored.id, snapshot, foreign: false, done: 0 });
    bench.check();
    setup.break_with(None);
    // The sequence is computed again.
    let mut alone = Handle::open(&mut bench);
    alone.forward(&mut bench, &[&prompt(1)[..], &[3]].concat(), Output::LastLogits);
    restored.forward(&mut bench, &[3], Output::LastLogits);
    bench.finish();
    assert_eq!(restored.came(), alone.came());
}

#[test]
fn a_fault_in_a_layerwise_operation_is_an_error_of_its_program_alone() {
    let setup = Setup::new(false);
    let wanted = well(&setup, false);
    for panics in [false, true] {
        setup.break_with(None);
        let mut bench = setup.bench();
        let (owner, id) = (tenant(Limits::default()), bench.next_id());
        let layerwise = setup.model.layerwise(CacheType::F32).expect("a runner");
        let (send, commands) = std::sync::mpsc::channel();
        let session = LayerwiseSession::open(id, send, &owner, layerwise).expect("a session");
        let ask = |bench: &mut Bench| {
            let x = session.make(|layerwise, slice, to| layerwise.upload(slice, 2, &[1.0, 2.0], to));
            let x = x.expect("a tensor");
            let answer = session.read(move |layerwise, slice, out| layerwise.read(slice, x, out));
            session.start(move |layerwise, slice| layerwise.free(slice, x)).expect("an operation");
            while let Ok(Command::Layerwise(command)) = commands.try_recv() {
                bench.scheduler.layerwise(command);
            }
            answer.expect("an answer")
        };
        // No pass writes here.
        setup.break_with(Some(Fault { operation: "write", when: When::Always, panics }));
        let answer = ask(&mut bench);
        assert_eq!(setup.company(&mut bench, false), wanted);
        let error = answer.wait().expect_err("the upload failed").to_string();
        assert!(error.contains(if panics { "a fault of Realm's" } else { "write" }), "{error}");
        // Its later operations find everything in order.
        setup.break_with(None);
        let answer = ask(&mut bench);
        bench.finish();
        assert_eq!(answer.wait().expect("values"), [1.0, 2.0]);
        assert_eq!(session.queued(), 0);
    }
}

/// A sequence that passed all checks although no batch may have it.
#[test]
fn a_sequence_that_no_batch_may_have_ends_alone() {
    let setup = Setup::new(false);
    let wanted = well(&setup, false);
    let mut bench = setup.bench();
    let tenant = tenant(Limits::default());
    let unknown = bench.generate(&tenant, &[1, 2, u32::MAX], TOKENS);
    let mut pageless = Handle::open(&mut bench);
    let pages = 2 * setup.model.config().cache_layout().groups();
    let snapshot = Snapshot { tokens: prompt(1), cached: PAGE_TOKENS + 4, pages: vec![None; pages] };
    bench.scheduler.session(SessionCommand::Restore { id: pageless.id, snapshot, foreign: true, done: 0 });
    pageless.forward(&mut bench, &[5], Output::LastLogits);
    // In one batch with all the requests.
    let all = setup.company(&mut bench, false);
    assert_eq!(all, wanted);
    assert!(Came::of(&unknown).error.is_some_and(|error| error.contains("vocabulary")));
    assert!(pageless.came().error.is_some_and(|error| error.contains("page 4294967295 of")));
    pageless.close(&mut bench);
}

#[test]
fn a_model_that_cannot_be_brought_to_a_device_is_an_error() {
    let setup = Setup::new(true);
    let gguf = Gguf::open(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny/gemma2-f16.gguf"),
    )
    .expect("a GGUF file");
    for operation in ["matrix", "vector", "buffer", "cache"] {
        setup.break_with(Some(Fault { operation, when: When::Once, panics: false }));
        let backend = Arc::new(Faulty::new(true, Arc::clone(&setup.state)));
        let loaded = Transformer::load(backend, &gguf, &mut |_, _| {});
        let run = loaded.and_then(|model| Arc::new(model).runner(8, CacheType::F32));
        assert!(run.is_err_and(|error| error.to_string().contains(operation)), "{operation}");
    }
}
