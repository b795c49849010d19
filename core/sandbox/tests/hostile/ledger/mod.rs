//! Everything that a tenant causes is on its ledger: each way to take memory is used many times, in a process
//! of its own, and the growth of the process is compared with the ledger. With `REALM_LONG`, each is used as
//! often as an attacker would.
//!
//! Before memory is measured, the allocator is asked to return what it keeps for later use, since the next
//! allocation reuses that. Memory that it cannot return, because another allocation lies on the same page,
//! counts as growth.

mod engine;
mod handles;
mod network;
mod programs;
mod stored;

pub(crate) use handles::SAMPLING;

use std::any::Any;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use realm_engine::{Limits, MemoryKind, Output};
use realm_sandbox::{Grants, Reply};

use crate::guest::program;
use crate::host::{FOREVER, Host, Who, resident, with};

/// Values held while memory is measured.
type Held = Box<dyn Any>;

/// A way to take memory.
struct Case {
    name: &'static str,
    /// The model: a real one, if its vocabulary matters.
    model: fn() -> Host,
    /// The number of repetitions in a test, or 0 to skip the case, and with `REALM_LONG`.
    times: [usize; 2],
    take: fn(&Bench, usize) -> Held,
}

/// All cases, with the number of repetitions that this test has time for.
fn cases() -> impl Iterator<Item = (&'static Case, usize)> {
    let long = usize::from(std::env::var_os("REALM_LONG").is_some());
    let all =
        [engine::CASES, programs::CASES, handles::CASES, stored::CASES, network::CASES].into_iter().flatten();
    all.map(move |case| (case, case.times[long])).filter(|(_, times)| *times > 0)
}

/// The least bytes that a case must take for its comparison to mean something: the tolerance is 16 MiB.
const LEAST: usize = 40 << 20;

/// A host, a tenant with high limits, and the number of its waiting programs.
struct Bench {
    host: Host,
    who: Who,
    waiting: Arc<AtomicUsize>,
}

impl Bench {
    fn new(host: Host) -> Self {
        let who = with(|limits| {
            limits.memory = 64 << 30;
            limits.max_queued = 1 << 20;
            limits.program.memory = 16 << 30;
            limits.program.handles = 1 << 20;
            limits.program.output = 1 << 30;
            limits.program.cpu_time = FOREVER;
        });
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut bench = Self { host, who, waiting };
        bench.who.grants = Arc::new(bench.grants());
        bench
    }

    /// Grants with a tool that never answers.
    fn grants(&self) -> Grants {
        let count = Arc::clone(&self.waiting);
        Grants::none().tool_async("wait", move |arguments| {
            let count = Arc::clone(&count);
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
                Ok(arguments)
            }
        })
    }

    /// The same tenant with other grants, and other programs.
    fn again(&self, grants: Grants) -> Who {
        Who { tenant: Arc::clone(&self.who.tenant), grants: Arc::new(grants), programs: Arc::default() }
    }

    fn held(&self) -> usize {
        self.who.tenant.memory().read().total()
    }

    fn of(&self, kind: MemoryKind) -> usize {
        self.who.tenant.memory().read().of(kind)
    }

    /// Starts a program `n` times, and waits until each run waits.
    fn start(&self, wasm: &[u8], n: usize) -> Vec<Reply> {
        self.start_as(wasm, &self.who, n)
    }

    fn start_as(&self, wasm: &[u8], who: &Who, n: usize) -> Vec<Reply> {
        let before = self.waiting.load(Ordering::Relaxed);
        let program = self.host.compile(wasm);
        let replies: Vec<_> = (0..n).map(|_| self.host.start(&program, who).expect("a run")).collect();
        until("the programs wait", || {
            // Output of a run stays unread here; it is read only to find out why a run failed.
            let waiting = self.waiting.load(Ordering::Relaxed) - before;
            waiting == n
        });
        replies
    }

    /// Runs until the engine has done all queued work.
    fn catch_up(&self) {
        let mut sequence = self.host.model.engine.sequence(&self.who.tenant, None, 0).expect("a sequence");
        sequence.append(&[1]).expect("a token");
        sequence.forward(Output::Nothing).expect("an answer");
    }

    /// Waits until no more memory is given back.
    fn settle(&self) {
        let mut held = self.held();
        let mut since = Instant::now();
        until("memory is given back", || {
            let now = self.held();
            if std::mem::replace(&mut held, now) != now {
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(100)
        });
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < FOREVER, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

// The request lies from 65536 on; zeros, which serve as text and tokens, begin well before 70000.

/// The call of a tool that never answers, with empty input.
const WAIT: &str =
    "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R))";
const WORDS: &str = r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#;

/// Writes to all pages of a program's memory that it may overwrite. Memory is charged in full, but untouched
/// pages take none.
const TOUCH: &str = "(memory.fill (i32.const 16384) (i32.const 0) (i32.const 49152))
    (memory.fill (i32.const 70000) (i32.const 0) (i32.const 61072))";

/// A program that runs `body` and then waits.
fn waits(body: &str) -> Vec<u8> {
    program(&format!("{TOUCH} {body} {WAIT} (global.get $OK)"), WORDS)
}

/// Repeats `step` `n` times, while it succeeds.
fn repeat(step: &str, n: usize) -> String {
    format!(
        "(loop $again {step} (if (call $failed) (then unreachable))
           (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {n}))))"
    )
}

/// The number of runs that share the work of a case: one that computes for long would get only time that no
/// other thread wants.
const RUNS: usize = 20;

/// Returns the memory of this process, without the memory that the allocator keeps.
fn trimmed() -> usize {
    realm_compute::trim_memory();
    resident()
}

/// One case in a process of its own, started by [`what_a_tenant_causes_is_on_its_ledger`].
#[test]
#[ignore = "one case of another test, which starts it"]
fn one_case() {
    let Ok(name) = std::env::var("REALM_MEMORY_CASE") else { return };
    let (case, times) = cases().find(|(case, _)| case.name == name).expect("a case");
    let bench = Bench::new((case.model)());
    // Memory that is allocated once, such as threads and tables, is allocated before the measurement.
    drop((case.take)(&bench, times.div_ceil(20)));
    let limits = bench.who.tenant.limits();
    bench.who.tenant.set_limits(Limits { max_concurrent: None, ..limits }).unwrap();
    bench.catch_up();
    bench.settle();
    let (nothing, before) = (bench.held(), trimmed());
    let held = (case.take)(&bench, times);
    let (untrimmed, counted) = (resident().saturating_sub(before), bench.held() - nothing);
    let ledger = bench.who.tenant.memory().read();
    let grown = trimmed().saturating_sub(before);
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!(
        "{name} × {times}: {:.1} MiB resident ({:.1} untrimmed), {:.1} MiB counted: {ledger:?}",
        mib(grown),
        mib(untrimmed),
        mib(counted)
    );
    assert!(grown.max(counted) >= LEAST, "{name}: too little to tell");
    let allowed = counted / 5 + (16 << 20);
    assert!(grown.abs_diff(counted) <= allowed, "{name}: {grown} bytes resident and {counted} counted");
    drop(held);
    bench.catch_up();
    // Compiled grammars may be kept.
    let kept = || bench.held().saturating_sub(nothing);
    let began = Instant::now();
    while kept() > bench.of(MemoryKind::Code) {
        let left = bench.who.tenant.memory();
        assert!(began.elapsed() < FOREVER, "{name}: {} bytes were not given back: {left:?}", kept());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a case in a process of its own; returns its measurement, or the reason why it failed.
fn run(case: &Case) -> Result<String, String> {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["ledger::one_case", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("REALM_MEMORY_CASE", case.name)
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&child.stdout);
    let line = said.lines().find(|line| line.contains("resident (")).unwrap_or_default().to_owned();
    if child.status.success() && !line.is_empty() {
        return Ok(line);
    }
    Err(format!("{}: {line}\n{}", case.name, String::from_utf8_lossy(&child.stderr)))
}

#[test]
fn what_a_tenant_causes_is_on_its_ledger() {
    let (waiting, failed) = (Mutex::new(cases()), Mutex::new(Vec::new()));
    let only = std::env::var("REALM_MEMORY_ONLY").unwrap_or_default();
    std::thread::scope(|scope| {
        // Each case mostly computes on one core.
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((case, _)) =
                    { waiting.lock().unwrap().find(|(case, _)| case.name.contains(&only)) }
                {
                    let began = Instant::now();
                    match run(case) {
                        Ok(line) => println!("{line} ({:.1} s)", began.elapsed().as_secs_f64()),
                        Err(why) => failed.lock().unwrap().push(why),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
