//! Measures how much later the tokens of eight well-behaved tenants arrive while attackers run: one kind at a
//! time, and all at once.
//!
//! `cargo run --release -p realm-sandbox --example neighbours [-- ROUNDS]`
#![allow(missing_docs, reason = "of this example")]

#[path = "../tests/hostile/neighbours.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod attacks;
#[path = "../../../tests/hostile/src/guest.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod guest;
#[path = "../tests/hostile/host.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod host;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use realm_sandbox::{Grants, Program};

use guest::greedy;
use host::{Host, anybody, with};

/// The tokens that each of the eight tenants asks for.
const TOKENS: u32 = 96;

fn main() {
    let rounds = std::env::args().nth(1).map_or(3, |rounds| rounds.parse().expect("a number of rounds"));
    let host = Host::smollm2();
    let programs: Vec<Program> = (0..8).map(|i| host.compile(&greedy(10 + i, TOKENS))).collect();
    let attackers: Vec<Program> = attacks::attacks().iter().map(|wasm| host.compile(wasm)).collect();
    // Once, to fill the caches.
    eight(&host, &programs);
    println!(
        "milliseconds between tokens    alone: median, p99    beside: median, p99    p99 beside / alone"
    );
    for (i, attacker) in attackers.iter().enumerate() {
        compare(&format!("attacker {i}"), rounds, &host, &programs, std::slice::from_ref(attacker));
    }
    compare("all at once", rounds, &host, &programs, &attackers);
}

/// Measures both in turns, since a machine's speed changes from minute to minute.
fn compare(what: &str, rounds: usize, host: &Host, programs: &[Program], attackers: &[Program]) {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.extend(eight(host, programs));
        beside.extend(attacked(host, attackers, || eight(host, programs)));
    }
    let mut at = |part: f64| {
        [&mut alone, &mut beside].map(|gaps| {
            gaps.sort_unstable();
            gaps[((gaps.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
        })
    };
    let ([alone, beside], [alone_99, beside_99]) = (at(0.5), at(0.99));
    println!(
        "{what:30} {alone:13.1} {alone_99:8.1} {beside:16.1} {beside_99:8.1} {:21.2}",
        beside_99 / alone_99
    );
}

/// Returns the times between tokens of eight tenants at once.
fn eight(host: &Host, programs: &[Program]) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = programs
            .iter()
            .map(|program| {
                let reply = host.start(program, &anybody()).expect("a run");
                scope.spawn(move || {
                    // The whole reply must move here: without its other half the run ends.
                    let reply = reply;
                    let (mut last, mut gaps) = (None, Vec::new());
                    loop {
                        let chunk = reply.chunks.recv_blocking().expect("an end").expect("no error");
                        if chunk.finish.is_some() {
                            return gaps;
                        }
                        let now = Instant::now();
                        gaps.extend(last.replace(now).map(|last| now - last));
                    }
                })
            })
            .collect();
        readers.into_iter().flat_map(|reader| reader.join().expect("a reader")).collect()
    })
}

/// Does `work` while every attacker runs again and again.
fn attacked<T>(host: &Host, attackers: &[Program], work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for attacker in attackers {
            let over = &over;
            scope.spawn(move || {
                let never = Grants::none().tool_async("wait", |_| std::future::pending());
                let who = with(|limits| {
                    limits.program.cpu_time = Duration::from_millis(500);
                    limits.request_timeout = Some(Duration::from_secs(2));
                })
                .granted(never);
                while !over.load(Ordering::Relaxed) {
                    // Any end will do.
                    let Ok(reply) = host.start(attacker, &who) else { continue };
                    while let Some(Ok(_)) = reply.chunks.recv_blocking() {}
                }
            });
        }
        std::thread::sleep(Duration::from_millis(500));
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}
