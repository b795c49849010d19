//! Measures the cost of sandboxes: calls of the host's functions, starting an instance, and waiting
//! instances.
//!
//! `cargo run --release -p realm-sandbox --example sandbox_cost`
#![allow(missing_docs, reason = "of this example")]

#[path = "../../../tests/hostile/src/guest.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod guest;
#[path = "../tests/hostile/host.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod host;

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use realm_sandbox::Grants;

use guest::{policy, program};
use host::{Host, Who, finish, resident, with};

/// The number of tenants with a waiting instance.
const IDLE: usize = 1000;

fn main() {
    let host = Host::tiny();
    println!("{:34} {:>12}", "", "each");
    // Compared with a loop that calls nothing.
    let calls = 2_000_000;
    let of = |call: &str, calls: u32| {
        let body = format!(
            "(local.set $model (call $model.current))
             (loop $l {call} (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {calls}))))
             (global.get $OK)"
        );
        let data = r#"(data (i32.const 8192) "tool") (data (i32.const 8200) "{}")"#;
        best(&host, &program(&body, data), calls)
    };
    let nothing = of("", calls);
    let sync = of("(drop (call $model.is-end (local.get $model) (i32.const 5)))", calls);
    print("a call", sync.saturating_sub(nothing));
    let call = "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R))
                (global.set $top (i32.const 65536))";
    print("a call of a tool that waits", of(call, 100_000));
    let run =
        "(call $run-program (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R))
               (global.set $top (i32.const 65536))";
    print("starting and ending an instance", of(run, 10_000));
    likeliest();
    sampling(&host);
    idle(&host);
}

/// The calls of a policy that samples from its top 40 at each token, with a real vocabulary.
fn likeliest() {
    let host = Host::smollm2();
    let of = |call: &str| {
        let body = format!(
            "(local.set $model (call $model.current)) (call $sequence.open (local.get $model) (global.get $R))
             (local.set $h (call $got)) (i32.store (i32.const 4096) (i32.const 5))
             (call $sequence.append (local.get $h) (i32.const 4096) (i32.const 1) (global.get $R))
             (call $sequence.forward (local.get $h) (global.get $R)) (local.set $t (call $got))
             (loop $l {call} (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))
             (global.get $OK)"
        );
        best(&host, &program(&body, ""), 5000)
    };
    let top = "(call $logits.top (local.get $t) (i32.const 40) (global.get $R)) (global.set $top (i32.const 65536))";
    print("the 40 likeliest of 49,152 logits", of(top).saturating_sub(of("")));
}

/// The time that a policy adds to each token of a built-in generation, if it is called before and after each
/// token and looks at the 40 likeliest; with a vocabulary so small that the logits themselves cost nothing.
fn sampling(host: &Host) {
    // `some` of the likeliest token.
    let sample = "(call $logits.top (local.get $logits) (i32.const 40) (global.get $R)) (global.set $top (i32.const 65536))
        (i32.store8 (i32.const 3072) (i32.const 0)) (i32.store8 (i32.const 3076) (i32.const 1))
        (call $logits.drop (local.get $logits))
        (i32.store (i32.const 3080) (i32.load (i32.load (i32.add (global.get $R) (i32.const 4))))) (i32.const 3072)";
    let asked = host.compile(&policy(sample, "(i32.store8 (i32.const 3072) (i32.const 0)) (global.get $OK)"));
    let tokens = 200;
    let mut plain = Duration::MAX;
    let mut under = Duration::MAX;
    for _ in 0..20 {
        let request = realm_engine::Request {
            prompt: vec![1, 2, 3],
            max_tokens: Some(tokens),
            sampling: realm_engine::Sampling::greedy(),
            ignore_eos: true,
            ..realm_engine::Request::default()
        };
        let began = Instant::now();
        let generation = host.model.engine.generate(&patient().tenant, request).expect("a generation");
        assert!(generation.count() > 0);
        plain = plain.min(began.elapsed());
        let request = realm_sandbox::Request { max_tokens: Some(tokens), ..host::request() };
        let began = Instant::now();
        let reply = host.ask(&asked, &patient(), request).expect("a run");
        let mut told = 0;
        while let Some(chunk) = reply.chunks.recv_blocking() {
            told += chunk.expect("no error").tokens.len();
        }
        under = under.min(began.elapsed());
        assert_eq!(told, tokens);
    }
    print("a token of a generation", plain / tokens as u32);
    print("more of it under a policy", under.saturating_sub(plain) / tokens as u32);
}

/// Returns the time of one of `calls` calls, in the best of five runs.
fn best(host: &Host, wasm: &[u8], calls: u32) -> Duration {
    let compiled = host.compile(wasm);
    let times = (0..5).map(|_| {
        let who = patient();
        // The program that `run-program` runs does nothing.
        who.programs.set("tool", host.compile(&program("(global.get $OK)", "")));
        let began = Instant::now();
        finish(host.start(&compiled, &who).expect("a run")).expect("an end");
        began.elapsed()
    });
    times.min().unwrap_or_default() / calls
}

/// A tenant with a long time limit, and with a tool that waits for one turn of its executor.
fn patient() -> Who {
    let tool = |_| async {
        let mut turns = 0;
        poll_fn(|context| {
            turns += 1;
            context.waker().wake_by_ref();
            if turns > 1 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(String::new())
    };
    with(|limits| limits.program.cpu_time = Duration::from_secs(600))
        .granted(Grants::none().tool_async("tool", tool))
}

fn idle(host: &Host) {
    let wasm = program(
        "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (global.get $OK)",
        r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#,
    );
    let compiled = host.compile(&wasm);
    let wait = || with(|_| {}).granted(Grants::none().tool_async("wait", |_| std::future::pending()));
    let first = (wait(), host.start(&compiled, &wait()));
    std::thread::sleep(Duration::from_millis(200));
    let before = resident();
    let held: Vec<_> = (0..IDLE)
        .map(|_| {
            let who = wait();
            let reply = host.start(&compiled, &who).expect("a run");
            (who, reply)
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let each = resident().saturating_sub(before) / IDLE;
    println!("{:34} {:>9} KiB", "a tenant with an idle instance", each >> 10);
    drop((first, held));
}

fn print(what: &str, time: Duration) {
    println!("{what:34} {:>9.3} µs", time.as_secs_f64() * 1e6);
}
