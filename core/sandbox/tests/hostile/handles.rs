//! Invalid handles, dropped handles, handles of other instances, and too many handles.

use realm_sandbox::ErrorKind;

use crate::ended;
use crate::guest::program;
use crate::host::{Host, anybody};

#[test]
fn forged_and_closed_handles_end_the_program() {
    let host = Host::tiny();
    for forged in ["0", "1", "77", "-1", "2147483647"] {
        let wasm =
            program(&format!("(drop (call $logits.argmax (i32.const {forged}))) (global.get $OK)"), "");
        ended(host.run(&wasm, &anybody()), ErrorKind::Trap, "handle");
        let wasm = program(&format!("(call $sequence.drop (i32.const {forged})) (global.get $OK)"), "");
        ended(host.run(&wasm, &anybody()), ErrorKind::Trap, "handle");
    }
    // A handle of another kind.
    let kind = program("(drop (call $logits.argmax (call $model.current))) (global.get $OK)", "");
    ended(host.run(&kind, &anybody()), ErrorKind::Trap, "handle");
    // Dropped, then used; and dropped twice.
    for used in [
        "(call $model.encode (local.get $model) (i32.const 64) (i32.const 1) (global.get $R))",
        "(call $model.drop (local.get $model))",
    ] {
        let body = format!(
            "(local.set $model (call $model.current)) (call $model.drop (local.get $model)) {used} (global.get $OK)"
        );
        ended(host.run(&program(&body, ""), &anybody()), ErrorKind::Trap, "handle");
    }
}

/// Handles count from the same number in every instance, so a handle remembered from elsewhere is a forged
/// one: it names one of the instance's own objects, or nothing.
#[test]
fn a_handle_of_another_instance_is_none() {
    let host = Host::tiny();
    let open = program(
        "(local.set $model (call $model.current))
         (call $sequence.open (local.get $model) (global.get $R))
         (call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R))
         (global.get $OK)",
        r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}")"#,
    );
    let waits = realm_sandbox::Grants::none().tool_async("wait", |_| std::future::pending());
    let held = host.start(&host.compile(&open), &anybody().granted(waits)).unwrap();
    for handle in 1..8 {
        let wasm = program(
            &format!(
                "(call $sequence.append (i32.const {handle}) (i32.const 64) (i32.const 1) (global.get $R)) (global.get $R)"
            ),
            "",
        );
        ended(host.run(&wasm, &anybody()), ErrorKind::Trap, "handle");
    }
    drop(held);
}

#[test]
fn a_million_handles_are_too_many() {
    let host = Host::tiny();
    // A call with an error to return returns it; one without ends the program.
    let opens = |call: &str| {
        program(
            &format!(
                "(local.set $model (call $model.current)) (loop $l {call} (br_if $l (i32.eqz (call $failed)))) (global.get $R)"
            ),
            "",
        )
    };
    for call in [
        "(call $sequence.open (local.get $model) (global.get $R))",
        "(drop (call $model.current))",
        "(call $token-set.of (local.get $model) (i32.const 0) (i32.const 0) (global.get $R))",
        "(call $load-layer (local.get $model) (i32.const 0) (global.get $R))",
        "(drop (call $text-decoder.new (local.get $model) (i32.const 0) (i32.const 0)))",
        "(call $embed (local.get $model) (i32.const 4096) (i32.const 1) (global.get $R))",
        "(call $matcher.open (local.get $model) (i32.const 1) (i32.const 0) (i32.const 0) (global.get $R))",
    ] {
        let run = host.run(&opens(call), &anybody());
        ended(run, ErrorKind::LimitExceeded, "");
    }
    // Forks, each of the one before.
    let forks = program(
        "(local.set $model (call $model.current))
         (call $sequence.open (local.get $model) (global.get $R))
         (loop $l (call $sequence.fork (call $got) (global.get $R)) (br_if $l (i32.eqz (call $failed))))
         (global.get $R)",
        "",
    );
    ended(host.run(&forks, &anybody()), ErrorKind::LimitExceeded, "handles");
    // All handles went with their programs.
    host.settle();
}
