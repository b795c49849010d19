//! Memory that outlives programs, and lines that the application has not taken yet.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use realm_engine::MemoryKind;
use realm_sandbox::{Grants, LogQueue, Sandbox, SandboxConfig, Store};

use super::{Bench, Case, Held, repeat, until, waits};
use crate::guest::program;
use crate::host::{Host, finish};

pub(super) const CASES: &[Case] = &[
    Case { name: "a store's entries", model: Host::tiny, times: [340_000, 2_000_000], take: store },
    Case { name: "lines of logs", model: Host::tiny, times: [60, 600], take: logs },
    Case { name: "large programs' code", model: Host::tiny, times: [100, 400], take: large_code },
    Case { name: "small programs' code", model: Host::tiny, times: [300, 1_000], take: small_code },
    Case { name: "code that was just compiled", model: Host::tiny, times: [0, 200], take: fresh_code },
];

/// The number of stores that share the entries: one program that computes for long would get only time that
/// no other thread wants.
const STORES: usize = 20;

fn store(bench: &Bench, n: usize) -> Held {
    let step = "(i32.store (i32.const 4096) (i32.or (i32.const 0x20202020) (i32.and (local.get $i) (i32.const 0x0f0f0f0f))))
        (i32.store (i32.const 4100) (i32.or (i32.const 0x20202020) (i32.and (i32.shr_u (local.get $i) (i32.const 4)) (i32.const 0x0f0f0f0f))))
        (call $set (i32.const 4096) (i32.const 8) (i32.const 4096) (i32.const 1) (global.get $R))";
    let steps = repeat(step, n.div_ceil(STORES));
    let program = bench.host.compile(&program(&format!("{steps} (global.get $OK)"), ""));
    let filled = |_| {
        let store = Store::in_memory(8 << 30);
        store.belongs_to(bench.who.tenant.memory());
        let who = bench.again(Grants::none().store(store));
        finish(bench.host.start(&program, &who).unwrap()).unwrap();
        who
    };
    Box::new((0..STORES).map(filled).collect::<Vec<_>>())
}

/// Lines from as many sets of programs of the tenant, each of which has room for 1 MiB of lines.
fn logs(bench: &Bench, n: usize) -> Held {
    let (gate, closed) = mpsc::channel::<()>();
    let closed = Mutex::new(closed);
    let queue = LogQueue::new(move |_, _, _| _ = closed.lock().unwrap().recv());
    let grants = Arc::new(Grants::none().log_queue(queue));
    let line = repeat("(call $log (i32.const 0) (i32.const 70000) (i32.const 100) (global.get $R))", 1 << 20);
    let program = bench.host.compile(&waits(&line));
    let runs: Vec<_> = (0..n)
        .map(|_| {
            let mut who = bench.again(Grants::none());
            who.grants = Arc::clone(&grants);
            (bench.host.start(&program, &who).unwrap(), who)
        })
        .collect();
    until("all logs are full", || bench.of(MemoryKind::Logs) > n * ((1 << 20) - 1000));
    // Programs are dropped before the gate, so that no line of theirs follows it.
    Box::new((runs, gate, grants))
}

/// Loads one program for the tenant `n` times: compiling `n` programs would take longer.
fn code(bench: &Bench, wasm: &[u8], n: usize) -> Held {
    let folder = tempfile::tempdir().unwrap();
    let config = SandboxConfig { cache: Some(folder.path().join("programs")), ..SandboxConfig::default() };
    let sandbox = Sandbox::new(&config).unwrap();
    let one = |_| sandbox.compile_for(&bench.who.tenant, wasm).unwrap();
    Box::new(((0..n).map(one).collect::<Vec<_>>(), sandbox))
}

fn large_code(bench: &Bench, n: usize) -> Held {
    let add =
        "(local.set $i (i32.add (i32.rotl (local.get $i) (i32.const 3)) (local.get $h)))".repeat(12_000);
    // A value that the compiler cannot know.
    let first = "(local.set $h (i32.load (i32.const 4096)))";
    let keep = "(i32.store (i32.const 4096) (local.get $i))";
    code(bench, &program(&format!("{first} {add} {keep} (global.get $OK)"), ""), n)
}

fn small_code(bench: &Bench, n: usize) -> Held {
    code(bench, &program("(global.get $OK)", ""), n)
}

/// Programs that are compiled, and not loaded from the cache.
fn fresh_code(bench: &Bench, n: usize) -> Held {
    let wasm = |i: usize| program(&format!("(drop (i32.const {i})) {}", "(global.get $OK)"), "");
    let one = |i: usize| bench.host.sandbox.compile_for(&bench.who.tenant, &wasm(i)).unwrap();
    Box::new((0..n).map(one).collect::<Vec<_>>())
}
