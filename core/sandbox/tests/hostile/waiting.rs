//! Programs that wait for ever, and programs that run each other.

use std::time::Duration;

use realm_sandbox::{ErrorKind, Grants};

use crate::ended;
use crate::guest::program;
use crate::host::{Host, anybody, finish, with};

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
    // A reader that never reads: the program waits at the 65th piece.
    let emits = program(
        "(loop $l (call $emit (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (global.get $R)) (br_if $l (i32.eqz (call $failed)))) (global.get $R)",
        "",
    );
    let reply = host.start(&host.compile(&emits), &hurried()).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    ended(finish(reply), ErrorKind::LimitExceeded, "request_timeout");
    // A tool that panics is the end of that request alone.
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
    // Wide instead of deep: all of them have one account.
    let wide = host.compile(&program(
        "(loop $l (call $run-program (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (br $l)) (global.get $R)",
        r#"(data (i32.const 8192) "idle") (data (i32.const 8200) "{}")"#,
    ));
    who.programs.set("idle", host.compile(&program("(global.get $OK)", "")));
    ended(finish(host.start(&wide, &who).unwrap()), ErrorKind::LimitExceeded, "cpu_time");
}

/// One tenant can't have every instance there is.
#[test]
fn a_tenant_that_starts_thousands_leaves_room_for_others() {
    let host = Host::tiny();
    let calls = host.compile(&program(
        "(call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (global.get $OK)",
        r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#,
    ));
    let who = anybody().granted(Grants::none().tool_async("wait", |_| std::future::pending()));
    let mut held = Vec::new();
    for _ in 0..2500 {
        // Until it has its instance, waits for one or was refused: as many may wait as `max_queued` says.
        held.extend(host.start(&calls, &who));
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(host.run(&crate::guest::greedy(5, 2), &anybody()).unwrap().tokens.len(), 2);
    let refused = held.iter().find_map(|reply| reply.chunks.try_recv().ok());
    assert_eq!(refused.unwrap().unwrap_err().kind(), ErrorKind::LimitExceeded);
    drop(held);
}
