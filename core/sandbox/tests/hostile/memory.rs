//! Limits of a tenant's memory: beyond them the tenant is refused, waits or is ended, and other tenants are
//! not affected.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use realm_engine::{MemoryKind, Request as Generate};
use realm_sandbox::{ErrorKind, Grants, LogQueue};

use crate::ended;
use crate::guest::program;
use crate::host::{Host, with};
use crate::ledger::{SAMPLING, until};

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
    let (lines, (gate, closed)) = (Arc::<AtomicUsize>::default(), mpsc::channel::<()>());
    let (count, closed) = (Arc::clone(&lines), Mutex::new(closed));
    let queue = LogQueue::new(move |_, _, _| {
        // Until the gate is dropped.
        _ = closed.lock().unwrap().recv();
        count.fetch_add(1, Ordering::Relaxed);
    });
    let who = with(|limits| limits.program.output = 1 << 30).granted(Grants::none().log_queue(queue));
    let log = "(loop $again (call $log (i32.const 0) (i32.const 70000) (i32.const 1000) (global.get $R))
        (if (call $failed) (then (return (global.get $R))))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))";
    let wasm = host.compile(&program(&format!("{log} (global.get $OK)"), ""));
    let reply = host.start(&wasm, &who).unwrap();
    let logs = || who.tenant.memory().read().of(MemoryKind::Logs);
    until("the log is full", || logs() > (1 << 20) - 2000);
    std::thread::sleep(Duration::from_millis(100));
    assert!(logs() <= 1 << 20, "{} bytes of lines wait", logs());
    // Lines of another tenant have room of their own.
    assert_eq!(lines.load(Ordering::Relaxed), 0);
    let other = with(|_| {}).granted(Grants::clone(&who.grants));
    let once =
        "(call $log (i32.const 0) (i32.const 70000) (i32.const 1000) (global.get $R)) (global.get $OK)";
    host.run(&program(once, ""), &other).unwrap();
    // Once taken, lines make room for the others, and none is dropped.
    drop(gate);
    crate::host::finish(reply).unwrap();
    until("all lines came", || lines.load(Ordering::Relaxed) == 5001);
    until("all is given back", || logs() == 0);
    // Empty lines count too.
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
