//! Programs that wait for ever, and programs that run each other.

use std::time::Duration;

use realm_sandbox::{ErrorKind, Grants};
use wit_component::ComponentEncoder;

use crate::ended;
use crate::guest::program;
use crate::host::{FOREVER, Host, anybody, finish, with};

fn hurried() -> crate::host::Who {
    with(|limits| limits.request_timeout = Some(Duration::from_millis(300)))
}

#[test]
fn what_waits_for_ever_is_ended_by_the_requests_time() {
    let host = Host::tiny();
    let calls = program(
        "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (global.get $OK)",
        r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#,
    );
    let never = || Grants::none().tool_async("wait", |_| std::future::pending());
    ended(host.run(&calls, &hurried().granted(never())), ErrorKind::LimitExceeded, "request_timeout");
    // A reader that never reads: the program waits at the 65th chunk.
    let emits = program(
        "(loop $l (call $emit (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (global.get $R)) (br_if $l (i32.eqz (call $failed)))) (global.get $R)",
        "",
    );
    let reply = host.start(&host.compile(&emits), &hurried()).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    ended(finish(reply), ErrorKind::LimitExceeded, "request_timeout");
    // A tool that panics ends only that request.
    let panics = Grants::none().tool("wait", |_| panic!("a tool of the application's has a fault"));
    let reply = host.start(&host.compile(&calls), &hurried().granted(panics)).unwrap();
    let ended_early = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| finish(reply)));
    assert!(!matches!(ended_early, Ok(Ok(_))));
    host.run(&crate::guest::greedy(5, 2), &anybody()).unwrap();
}

#[test]
fn programs_that_run_each_other_without_end_are_ended() {
    let host = Host::tiny();
    let who = anybody();
    let again = host.compile(&program(
        "(call $run-program (i32.const 8192) (i32.const 5) (i32.const 8200) (i32.const 2) (global.get $R)) (global.get $R)",
        r#"(data (i32.const 8192) "again") (data (i32.const 8200) "{}")"#,
    ));
    who.programs.set("again", again.clone());
    ended(finish(host.start(&again, &who).unwrap()), ErrorKind::LimitExceeded, "wait for one another");
    // Wide instead of deep: all of them share one account.
    let wide = host.compile(&program(
        "(loop $l (call $run-program (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (br $l)) (global.get $R)",
        r#"(data (i32.const 8192) "idle") (data (i32.const 8200) "{}")"#,
    ));
    who.programs.set("idle", host.compile(&program("(global.get $OK)", "")));
    ended(finish(host.start(&wide, &who).unwrap()), ErrorKind::LimitExceeded, "cpu_time");
}

/// One tenant cannot hold all instances.
#[test]
fn a_tenant_that_starts_thousands_leaves_room_for_others() {
    let host = Host::tiny();
    let calls = host.compile(&program(
        "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (global.get $OK)",
        r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#,
    ));
    let who = anybody().granted(Grants::none().tool_async("wait", |_| std::future::pending()));
    let (mut held, mut refused) = (Vec::new(), None);
    for _ in 0..3000 {
        // Until the run has its instance, waits for one or is refused: `max_queued` runs may wait.
        match host.start(&calls, &who) {
            Ok(reply) => held.push(reply),
            Err(error) => refused = Some(error),
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(host.run(&crate::guest::greedy(5, 2), &anybody()).unwrap().tokens.len(), 2);
    assert_eq!(refused.expect("as many wait as may").kind(), ErrorKind::LimitExceeded);
    assert!(held.iter().all(|reply| reply.chunks.try_recv().is_err()), "those that wait go on waiting");
    drop(held);
}

/// One tenant cannot hold all core modules, memories or tables either; one program may have many of them.
#[test]
fn a_tenant_whose_programs_are_made_of_many_parts_leaves_room_for_others() {
    let host = Host::tiny();
    let calls = crate::guest::program(
        "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (global.get $OK)",
        r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#,
    );
    let calls = ComponentEncoder::default().module(&calls).and_then(|mut encoder| encoder.encode()).unwrap();
    let waits = || Grants::none().tool_async("wait", |_| std::future::pending());
    for (module, more, runs) in
        [("(module)", 60, 160), ("(module (memory 0))", 3, 600), ("(module (table 0 funcref))", 14, 700)]
    {
        let large = host.compile(&with_instances(&calls, more, module));
        let who = anybody().granted(waits());
        let held: Vec<_> = (0..runs).map(|_| host.start(&large, &who).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(300));
        // Some of its runs start, the others wait their turn, and no other tenant waits.
        for _ in 0..3 {
            let other = with(|limits| limits.request_timeout = Some(FOREVER));
            assert_eq!(host.run(&crate::guest::greedy(5, 2), &other).unwrap().tokens.len(), 2, "{module}");
        }
        let large =
            host.start(&large, &anybody().granted(Grants::none().tool("wait", |_| Ok("{}".into())))).unwrap();
        finish(large).unwrap();
        assert!(held.iter().all(|reply| reply.chunks.try_recv().is_err()), "{module}");
    }
}

/// A component that creates `more` instances of a core module besides its own.
fn with_instances(component: &[u8], more: usize, module: &str) -> Vec<u8> {
    let mut modules = 0;
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        // Modules of nested components would count too, but no nested component has any.
        modules += usize::from(matches!(payload.unwrap(), wasmparser::Payload::ModuleSection { .. }));
    }
    let number = |mut n: usize, out: &mut Vec<u8>| {
        while n >= 128 {
            out.push((n & 127) as u8 | 128);
            n >>= 7;
        }
        out.push(n as u8);
    };
    let section = |id: u8, bytes: &[u8], out: &mut Vec<u8>| {
        out.push(id);
        number(bytes.len(), out);
        out.extend(bytes);
    };
    let mut out = component.to_vec();
    section(1, &wat::parse_str(module).unwrap(), &mut out);
    let mut instances = Vec::new();
    number(more, &mut instances);
    for _ in 0..more {
        instances.push(0);
        number(modules, &mut instances);
        number(0, &mut instances);
    }
    section(2, &instances, &mut out);
    out
}
