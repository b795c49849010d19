//! What a tenant causes is on its ledger: each way to take memory is taken many times, in a process of its own, and what the process
//! has grown by is compared with what the ledger says. `REALM_LONG` takes each as often as an attacker would.
#![cfg(target_os = "linux")]

use std::any::Any;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use realm_engine::{Grammar, MemoryKind, Request as Generate, Sampling};
use realm_sandbox::{ErrorKind, Grants, Prompt, Reply, Store};

use crate::ended;
use crate::guest::program;
use crate::host::{FOREVER, Host, Who, request, resident, with};

/// What is held while memory is read.
type Held = Box<dyn Any>;

/// A way to take memory.
struct Case {
    name: &'static str,
    /// How often in a test, and with `REALM_LONG`.
    times: [usize; 2],
    take: fn(&Bench, usize) -> Held,
}

const CASES: &[Case] = &[
    Case { name: "empty sequences", times: [60_000, 200_000], take: empty_sequences },
    Case { name: "long sequences", times: [4_000, 40_000], take: long_sequences },
    Case { name: "forks", times: [2_000, 20_000], take: forks },
    Case { name: "requests that wait", times: [1_000, 10_000], take: requests_that_wait },
    Case { name: "requests with grammars that wait", times: [200, 1_000], take: grammars_that_wait },
    Case { name: "requests of programs that wait", times: [300, 3_000], take: programs_that_wait },
    Case { name: "instances", times: [400, 1_000], take: instances },
    Case { name: "linear memory", times: [12, 60], take: linear_memory },
    Case { name: "chunks that are not read", times: [40, 400], take: unread },
    Case { name: "text that waits to be sent", times: [8, 60], take: text_that_waits },
    Case { name: "arguments of tools", times: [60, 600], take: arguments },
    Case { name: "logits", times: [300, 3_000], take: logits },
    Case { name: "samplers that observe", times: [200, 800], take: samplers },
    Case { name: "matchers", times: [200, 800], take: matchers },
    Case { name: "tensors", times: [60, 600], take: tensors },
    Case { name: "a store's entries", times: [200_000, 1_000_000], take: store },
    Case { name: "compiled code", times: [20, 200], take: code },
];

/// A host, a tenant that may take much, and how many of its programs wait.
struct Bench {
    host: Host,
    who: Who,
    waiting: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        let mut who = with(|limits| {
            limits.memory = 16 << 30;
            limits.max_queued = 1 << 20;
            limits.program.memory = 4 << 30;
            limits.program.handles = 1 << 20;
            limits.program.output = 1 << 30;
            limits.program.cpu_time = FOREVER;
        });
        let waiting = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&waiting);
        who = who.granted(Grants::none().tool_async("wait", move |arguments| {
            let count = Arc::clone(&count);
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
                Ok(arguments)
            }
        }));
        Self { host: Host::smollm2(), who, waiting }
    }

    fn held(&self) -> usize {
        self.who.tenant.memory().read().total()
    }

    /// Starts a program `n` times, each of which comes to wait.
    fn start(&self, wasm: &[u8], n: usize) -> Vec<Reply> {
        let before = self.waiting.load(Ordering::Relaxed);
        let program = self.host.compile(wasm);
        let replies: Vec<_> = (0..n).map(|_| self.host.start(&program, &self.who).expect("a run")).collect();
        until("the programs wait", || {
            if let Some(ended) = replies.iter().find_map(|reply| reply.chunks.try_recv().ok()) {
                panic!("a program ended early: {ended:?}");
            }
            self.waiting.load(Ordering::Relaxed) == before + n
        });
        replies
    }

    /// Runs until the engine has done what was asked for.
    fn catch_up(&self) {
        let sequence = self.host.model.engine.sequence(&self.who.tenant, None, 0).expect("a sequence");
        sequence.save().expect("an answer");
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < FOREVER, "not in a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

// What lies from 65536 on is the request; zeros, which are text and tokens, begin well before 70000.

/// The call of a tool that never answers, with nothing for it.
const WAIT: &str =
    "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R))";
const WORDS: &str = r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#;

/// A program that does something and waits.
fn waits(body: &str) -> Vec<u8> {
    program(&format!("{body} {WAIT} (global.get $OK)"), WORDS)
}

/// `step` so many times, as long as it does not fail.
fn repeat(step: &str, n: usize) -> String {
    format!(
        "(loop $again {step} (if (call $failed) (then unreachable))
           (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {n}))))"
    )
}

fn empty_sequences(bench: &Bench, n: usize) -> Held {
    let engine = &bench.host.model.engine;
    let held: Vec<_> = (0..n).map(|_| engine.sequence(&bench.who.tenant, None, 0).unwrap()).collect();
    bench.catch_up();
    Box::new(held)
}

fn long_sequences(bench: &Bench, n: usize) -> Held {
    let engine = &bench.host.model.engine;
    let tokens: Vec<u32> = (0..4_000).collect();
    let one = |_| {
        let mut sequence = engine.sequence(&bench.who.tenant, None, 0).unwrap();
        sequence.append(&tokens).unwrap();
        sequence
    };
    let held: Vec<_> = (0..n).map(one).collect();
    bench.catch_up();
    Box::new(held)
}

fn forks(bench: &Bench, n: usize) -> Held {
    let engine = &bench.host.model.engine;
    let mut first = engine.sequence(&bench.who.tenant, None, 0).unwrap();
    first.append(&(0..4_000).collect::<Vec<_>>()).unwrap();
    let held: Vec<_> = (0..n).map(|_| first.fork().unwrap()).collect();
    bench.catch_up();
    Box::new((first, held))
}

/// A request that keeps all others of the tenant waiting.
fn in_the_way(bench: &Bench) -> realm_engine::Generation {
    let tenant = &bench.who.tenant;
    tenant.set_limits(realm_engine::Limits { max_concurrent: Some(1), ..tenant.limits() }).unwrap();
    let request = Generate { prompt: vec![1, 2, 3], ignore_eos: true, ..Generate::default() };
    let running = bench.host.model.engine.generate(tenant, request).unwrap();
    until("it runs", || tenant.running() == 1);
    running
}

fn requests_that_wait(bench: &Bench, n: usize) -> Held {
    let first = in_the_way(bench);
    let one = |i: usize| {
        let logit_bias = (0..1000).map(|token| (token, 0.5)).collect();
        let request = Generate {
            prompt: vec![i as u32 % 1000; 6_000],
            stop: (0..100).map(|_| "x".repeat(150)).collect(),
            sampling: Sampling { logit_bias, ..Sampling::greedy() },
            ..Generate::default()
        };
        bench.host.model.engine.generate(&bench.who.tenant, request).unwrap()
    };
    Box::new((first, (0..n).map(one).collect::<Vec<_>>()))
}

fn grammars_that_wait(bench: &Bench, n: usize) -> Held {
    let first = in_the_way(bench);
    let one = |_| {
        let grammar = Some(Grammar::Regex("[a-z]{1,30}(, [a-z]{1,30}){3,9}".into()));
        let request = Generate { prompt: vec![1, 2], grammar, ..Generate::default() };
        bench.host.model.engine.generate(&bench.who.tenant, request).unwrap()
    };
    Box::new((first, (0..n).map(one).collect::<Vec<_>>()))
}

fn programs_that_wait(bench: &Bench, n: usize) -> Held {
    let first = in_the_way(bench);
    let program = bench.host.compile(&waits(""));
    let one = |_| {
        let messages: Vec<_> = (0..100)
            .map(|i| serde_json::json!({"role": "user", "content": "x".repeat(500), "n": i}))
            .collect();
        let conversation = realm_tokenizer::Conversation { messages, ..Default::default() };
        let input = serde_json::Value::Array((0..1000).map(|i| serde_json::json!([i, {"a": i}])).collect());
        let request = realm_sandbox::Request { prompt: Prompt::Chat(conversation), input, ..request() };
        bench.host.ask(&program, &bench.who, request).unwrap()
    };
    Box::new((first, (0..n).map(one).collect::<Vec<_>>()))
}

fn instances(bench: &Bench, n: usize) -> Held {
    Box::new(bench.start(&waits(""), n))
}

fn linear_memory(bench: &Bench, n: usize) -> Held {
    let grow = "(drop (memory.grow (i32.const 128))) (memory.fill (i32.const 131072) (i32.const 1) (i32.const 8388608))";
    Box::new(bench.start(&waits(grow), n))
}

fn unread(bench: &Bench, n: usize) -> Held {
    let emit = repeat(
        "(call $emit (i32.const 70000) (i32.const 16000) (i32.const 70000) (i32.const 250) (global.get $R))",
        60,
    );
    // Chunks come before the program waits, so nothing may be taken from the channel here.
    let program = bench.host.compile(&waits(&emit));
    let before = bench.waiting.load(Ordering::Relaxed);
    let held: Vec<_> = (0..n).map(|_| bench.host.start(&program, &bench.who).unwrap()).collect();
    until("the programs wait", || bench.waiting.load(Ordering::Relaxed) == before + n);
    Box::new(held)
}

fn text_that_waits(bench: &Bench, n: usize) -> Held {
    let emit = "(drop (memory.grow (i32.const 128)))
        (call $emit (i32.const 70000) (i32.const 8000000) (i32.const 0) (i32.const 0) (global.get $R))";
    let program = bench.host.compile(&waits(emit));
    let held: Vec<_> = (0..n).map(|_| bench.host.start(&program, &bench.who).unwrap()).collect();
    let transfers = || bench.who.tenant.memory().read().of(MemoryKind::Transfers);
    until("the texts wait", || transfers() == n * 8_000_000);
    Box::new(held)
}

fn arguments(bench: &Bench, n: usize) -> Held {
    let call = "(drop (memory.grow (i32.const 16)))
        (call $call (i32.const 8192) (i32.const 4) (i32.const 70000) (i32.const 1000000) (global.get $R))";
    Box::new(bench.start(&program(&format!("{call} (global.get $OK)"), WORDS), n))
}

/// Opens a sequence, computes one token's logits and goes on with their handle in `$t`.
const FORWARD: &str = "(local.set $model (call $model.current))
    (call $sequence.open (local.get $model) (global.get $R)) (local.set $h (call $got))
    (i32.store (i32.const 4096) (i32.const 5))
    (call $sequence.append (local.get $h) (i32.const 4096) (i32.const 1) (global.get $R))
    (call $sequence.forward (local.get $h) (global.get $R)) (local.set $t (call $got))";

fn logits(bench: &Bench, n: usize) -> Held {
    let copies = repeat("(call $logits.copy (local.get $t) (global.get $R))", n);
    Box::new(bench.start(&waits(&format!("{FORWARD} {copies}")), 1))
}

/// What `sampler.open` takes, from `9216` on: the model, and after padding, as a seed is of 8 bytes, `sampling`: temperature 1,
/// top-k 0, top-p 1, min-p 0, typical-p 1, and a penalty, over everything.
const SAMPLING: &str = "(i32.store (i32.const 9216) (local.get $model))
    (f32.store (i32.const 9224) (f32.const 1)) (i32.store (i32.const 9228) (i32.const 0))
    (f32.store (i32.const 9232) (f32.const 1)) (f32.store (i32.const 9236) (f32.const 0))
    (f32.store (i32.const 9240) (f32.const 1)) (f32.store (i32.const 9244) (f32.const 1.5))
    (i32.store (i32.const 9248) (i32.const -1)) (f32.store (i32.const 9252) (f32.const 0))
    (f32.store (i32.const 9256) (f32.const 0))";

fn samplers(bench: &Bench, n: usize) -> Held {
    let step = "(call $sampler.open (i32.const 9216) (global.get $R)) (local.set $s (call $got))
        (local.set $h (i32.const 0))
        (loop $observe (call $sampler.observe (local.get $s) (i32.rem_u (local.get $h) (i32.const 9000)))
          (br_if $observe (i32.lt_u (local.tee $h (i32.add (local.get $h) (i32.const 1))) (i32.const 30000))))";
    let body = format!("(local.set $model (call $model.current)) {SAMPLING} {}", repeat(step, n));
    Box::new(bench.start(&waits(&body), 1))
}

fn matchers(bench: &Bench, n: usize) -> Held {
    let step = "(call $matcher.open (local.get $model) (i32.const 2) (i32.const 8300) (i32.const 12) (global.get $R))";
    let body =
        format!("(local.set $model (call $model.current)) {} {WAIT} (global.get $OK)", repeat(step, n));
    let words = format!(r#"{WORDS} (data (i32.const 8300) "[a-z]{{1,3}}, x")"#);
    Box::new(bench.start(&program(&body, &words), 1))
}

fn tensors(bench: &Bench, n: usize) -> Held {
    let step = "(call $embed (local.get $model) (i32.const 70000) (i32.const 500) (global.get $R))";
    let body = format!("(local.set $model (call $model.current)) {}", repeat(step, n));
    let held = bench.start(&waits(&body), 1);
    bench.catch_up();
    Box::new(held)
}

fn store(bench: &Bench, n: usize) -> Held {
    let store = Store::in_memory(1 << 30);
    store.belongs_to(bench.who.tenant.memory());
    let who = Who {
        tenant: Arc::clone(&bench.who.tenant),
        grants: Arc::new(Grants::none().store(store)),
        programs: Arc::clone(&bench.who.programs),
    };
    let step = "(i32.store (i32.const 4096) (local.get $i))
        (i32.store (i32.const 4096) (i32.or (i32.const 0x20202020) (i32.and (local.get $i) (i32.const 0x0f0f0f0f))))
        (i32.store (i32.const 4100) (i32.or (i32.const 0x20202020) (i32.and (i32.shr_u (local.get $i) (i32.const 4)) (i32.const 0x0f0f0f0f))))
        (call $set (i32.const 4096) (i32.const 8) (i32.const 4096) (i32.const 1) (global.get $R))";
    let program = program(&format!("{} (global.get $OK)", repeat(step, n)), "");
    bench.host.run(&program, &who).unwrap();
    Box::new(who)
}

fn code(bench: &Bench, n: usize) -> Held {
    let one = |i: usize| {
        let adds = format!(
            "(local.set $i (i32.add (i32.rotl (local.get $i) (i32.const {})) (local.get $h)))",
            i % 31 + 1
        );
        let program = bench.host.compile(&program(&format!("{} (global.get $OK)", adds.repeat(20_000)), ""));
        let mut charge = bench.who.tenant.memory().open(MemoryKind::Code);
        charge.add(program.memory());
        (program, charge)
    };
    Box::new((0..n).map(one).collect::<Vec<_>>())
}

/// What [`what_a_tenant_causes_is_on_its_ledger`] has run, one case a process.
#[test]
#[ignore = "one case of another test, which starts it"]
fn one_case() {
    let Ok(name) = std::env::var("REALM_MEMORY_CASE") else { return };
    let case = CASES.iter().find(|case| case.name == name).expect("a case");
    let times = case.times[usize::from(std::env::var_os("REALM_LONG").is_some())];
    let bench = Bench::new();
    let nothing = bench.held();
    // What is allocated once, such as threads and tables, is there before.
    drop((case.take)(&bench, times.div_ceil(20)));
    until("all is given back", || bench.held() == nothing);
    bench.catch_up();
    let (before, limits) = (resident(), bench.who.tenant.limits());
    bench.who.tenant.set_limits(realm_engine::Limits { max_concurrent: None, ..limits }).unwrap();
    let held = (case.take)(&bench, times);
    let (grown, counted) = (resident().saturating_sub(before), bench.held() - nothing);
    let ledger = bench.who.tenant.memory().read();
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!("{name} × {times}: {:.1} MiB resident, {:.1} MiB counted: {ledger:?}", mib(grown), mib(counted));
    let allowed = counted.max(grown) / 5 + (16 << 20);
    assert!(grown.abs_diff(counted) <= allowed, "{name}: {grown} bytes resident and {counted} counted");
    drop(held);
    until("all is given back", || bench.held() == nothing);
}

#[test]
#[ignore = "matchers count for more than they take, and not all cases have been run: it fails"]
fn what_a_tenant_causes_is_on_its_ledger() {
    let failed: Vec<String> = CASES
        .iter()
        .filter_map(|case| {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["memory::one_case", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
                .env("REALM_MEMORY_CASE", case.name)
                .output()
                .expect("a process");
            let said = String::from_utf8_lossy(&child.stdout);
            let line = said.lines().find(|line| line.contains("resident,")).unwrap_or_default();
            println!("{line}");
            let why = String::from_utf8_lossy(&child.stderr).into_owned();
            (!child.status.success()).then(|| format!("{}: {line}\n{why}", case.name))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn beyond_its_memory_a_tenant_is_refused_and_others_are_not() {
    let host = Host::tiny();
    let poor = with(|limits| limits.memory = 1 << 20);
    let engine = &host.model.engine;
    let request =
        |tokens: usize| Generate { prompt: vec![1; tokens], max_tokens: Some(1), ..Generate::default() };
    let held: Vec<_> = (0..).map_while(|_| engine.sequence(&poor.tenant, None, 0).ok()).collect();
    let error = engine.sequence(&poor.tenant, None, 0).err().expect("a refusal").to_string();
    assert!(error.contains("`memory`") && error.contains("1048576") && held.len() > 100, "{error}");
    assert!(engine.generate(&poor.tenant, request(100)).is_err());
    let greedy = program("(global.get $OK)", "");
    ended(host.run(&greedy, &poor), ErrorKind::LimitExceeded, "`memory`");
    let other = with(|_| {});
    host.run(&greedy, &other).unwrap();
    assert!(engine.generate(&other.tenant, request(100)).unwrap().all(|chunk| chunk.is_ok()));
    drop(held);
    host.run(&greedy, &poor).unwrap();
    until("all is given back", || poor.tenant.memory().read().total() == 0);
}

#[test]
fn a_log_that_is_not_taken_makes_its_program_wait() {
    let host = Host::tiny();
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let who = with(|limits| limits.program.output = 1 << 30)
        .granted(Grants::none().log_lines(move |line| kept.lock().unwrap().push(line)));
    let log = "(loop $again (call $log (i32.const 0) (i32.const 70000) (i32.const 1000) (global.get $R))
        (if (call $failed) (then (return (global.get $R))))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))";
    let wasm = host.compile(&program(&format!("{log} (global.get $OK)"), ""));
    let reply = host.start(&wasm, &who).unwrap();
    let logs = || who.tenant.memory().read().of(MemoryKind::Logs);
    until("the log is full", || logs() > 1 << 20);
    std::thread::sleep(Duration::from_millis(100));
    assert!(logs() < (1 << 20) + 2000, "{} bytes of lines wait", logs());
    // Taken, they make room for the others.
    let mut taken = 0;
    until("all lines came", || {
        let came = std::mem::take(&mut *lines.lock().unwrap()).len();
        // Only this closure counts.
        COUNT.fetch_add(came, Ordering::Relaxed) + came == 5000
    });
    taken += COUNT.load(Ordering::Relaxed);
    assert_eq!((taken, logs()), (5000, 0));
    crate::host::finish(reply).unwrap();
    // Lines without a word count too.
    let empty = program(
        "(loop $again (call $log (i32.const 0) (i32.const 0) (i32.const 0) (global.get $R)) (br_if $again (i32.eqz (call $failed)))) (global.get $R)",
        "",
    );
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let who = with(|limits| limits.program.output = 64_000).granted(Grants::none().log_to(move |_, _, _| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    ended(host.run(&empty, &who), ErrorKind::LimitExceeded, "program.output");
    assert_eq!(written.load(Ordering::Relaxed), 1000);
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_sampler_observes_tokens_of_its_vocabulary_alone() {
    let host = Host::tiny();
    let observe = |token: &str| {
        program(
            &format!(
                "(local.set $model (call $model.current)) {SAMPLING}
                 (call $sampler.open (i32.const 9216) (global.get $R)) (if (call $failed) (then (return (global.get $R))))
                 (call $sampler.observe (call $got) (i32.const {token})) (global.get $OK)"
            ),
            "",
        )
    };
    host.run(&observe("5"), &with(|_| {})).unwrap();
    ended(host.run(&observe("1000000"), &with(|_| {})), ErrorKind::InvalidArgument, "vocabulary");
}

#[test]
fn json_that_grows_when_it_is_read_is_refused_before() {
    let host = Host::tiny();
    // `[{"a":0},{"a":0},…]` in the fields of a message takes 50 times its text.
    let body = "(local.set $i (i32.const 0)) (drop (memory.grow (i32.const 32)))
        (i64.store (i32.const 65536) (i64.const 0x5b3a226122207b20))
        (local.set $i (i32.const 65544))
        (loop $fill (i64.store (local.get $i) (i64.const 0x2c7d303a2261227b))
          (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 965536))))
        (i32.store (local.get $i) (i32.const 0x207d5d30))
        (i32.store (i32.const 4096) (i32.const 8192)) (i32.store (i32.const 4100) (i32.const 4))
        (i32.store (i32.const 4104) (i32.const 8192)) (i32.store (i32.const 4108) (i32.const 4))
        (i32.store (i32.const 4112) (i32.const 65536))
        (i32.store (i32.const 4116) (i32.sub (i32.add (local.get $i) (i32.const 4)) (i32.const 65536)))
        (call $model.tokenize (call $model.current) (i32.const 1) (i32.const 4096) (i32.const 1)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $R))
        (if (call $failed) (then (return (global.get $R)))) (global.get $OK)";
    let wasm = program(body, r#"(data (i32.const 8192) "user")"#);
    let modest = with(|limits| limits.program.memory = 32 << 20);
    ended(host.run(&wasm, &modest), ErrorKind::LimitExceeded, "program.memory");
}
