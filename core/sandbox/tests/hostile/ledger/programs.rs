//! Runs of programs, and data on its way to and from them.

use realm_engine::{MemoryKind, Prompt};

use super::engine::in_the_way;
use super::{Bench, Case, Held, TOUCH, WAIT, WORDS, repeat, until, waits};
use crate::guest::program;
use crate::host::{Host, request};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "requests of programs that wait",
        model: Host::tiny,
        times: [1_000, 10_000],
        take: programs_that_wait,
    },
    Case { name: "instances", model: Host::tiny, times: [1_000, 2_000], take: instances },
    Case { name: "linear memory", model: Host::tiny, times: [500, 2_000], take: linear_memory },
    Case { name: "tables", model: Host::tiny, times: [1_000, 2_000], take: tables },
    Case { name: "chunks that are not read", model: Host::tiny, times: [60, 1_000], take: unread },
    Case { name: "text that waits to be sent", model: Host::tiny, times: [12, 100], take: text_that_waits },
    Case { name: "arguments of tools", model: Host::tiny, times: [500, 2_000], take: arguments },
];

fn programs_that_wait(bench: &Bench, n: usize) -> Held {
    let first = in_the_way(bench);
    let program = bench.host.compile(&waits(""));
    let one = |_| {
        let messages: Vec<_> = (0..20)
            .map(|i| serde_json::json!({"role": "user", "content": "x".repeat(500), "n": i}))
            .collect();
        let conversation = realm_tokenizer::Conversation { messages, ..Default::default() };
        let input = serde_json::Value::Array((0..100).map(|i| serde_json::json!([i, {"a": i}])).collect());
        let request = realm_sandbox::Request { prompt: Prompt::Chat(conversation), input, ..request() };
        bench.host.ask(&program, &bench.who, request).unwrap()
    };
    Box::new((first, (0..n).map(one).collect::<Vec<_>>()))
}

fn instances(bench: &Bench, n: usize) -> Held {
    Box::new(bench.start(&waits(""), n))
}

/// Adds `pages` pages of memory.
fn grow(pages: usize) -> String {
    format!("(drop (memory.grow (i32.const {pages})))")
}

/// Writes to all of these pages.
fn fill(pages: usize) -> String {
    format!("(memory.fill (i32.const 131072) (i32.const 0) (i32.const {}))", pages * 65536)
}

fn linear_memory(bench: &Bench, n: usize) -> Held {
    let wasm = waits(&format!("{} {}", grow(6), fill(6)));
    Box::new(bench.start(&wasm, n))
}

fn tables(bench: &Bench, n: usize) -> Held {
    let fill = "(table.fill $many (i32.const 0) (ref.func $failed) (i32.const 20000))";
    let wasm = program(
        &format!("{TOUCH} {fill} {WAIT} (global.get $OK)"),
        &format!("{WORDS} (table $many 20000 funcref) (elem declare func $failed)"),
    );
    Box::new(bench.start(&wasm, n))
}

fn unread(bench: &Bench, n: usize) -> Held {
    let emit = repeat(
        "(call $emit (i32.const 70000) (i32.const 16000) (i32.const 70000) (i32.const 250) (global.get $R))",
        60,
    );
    Box::new(bench.start(&waits(&emit), n))
}

fn text_that_waits(bench: &Bench, n: usize) -> Held {
    let emit =
        "(call $emit (i32.const 70000) (i32.const 4000000) (i32.const 0) (i32.const 0) (global.get $R))";
    let program = bench.host.compile(&waits(&format!("{} {} {emit}", grow(64), fill(64))));
    let held: Vec<_> = (0..n).map(|_| bench.host.start(&program, &bench.who).unwrap()).collect();
    until("the texts wait", || bench.of(MemoryKind::Transfers) == n * 4_000_000);
    // The runs' output fills their channels.
    let mut results = 0;
    until("all channels are full", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::mem::replace(&mut results, bench.of(MemoryKind::Results)) == bench.of(MemoryKind::Results)
    });
    Box::new(held)
}

fn arguments(bench: &Bench, n: usize) -> Held {
    let call =
        "(call $call (i32.const 8192) (i32.const 4) (i32.const 70000) (i32.const 160000) (global.get $R))";
    let body = format!("{TOUCH} {} {} {call} (global.get $OK)", grow(2), fill(2));
    Box::new(bench.start(&program(&body, WORDS), n))
}
