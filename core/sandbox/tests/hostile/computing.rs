//! Time, stack and memory.

use std::time::Duration;

use realm_sandbox::ErrorKind;

use crate::ended;
use crate::guest::{greedy, policy, program};
use crate::host::{Host, anybody, with};

#[test]
fn what_computes_for_ever_is_ended() {
    let host = Host::tiny();
    let hurry = || with(|limits| limits.program.cpu_time = Duration::from_millis(200));
    let endless = program("(loop $l (br $l)) (unreachable)", "");
    ended(host.run(&endless, &hurry()), ErrorKind::LimitExceeded, "cpu_time");
    // In between calls of the host's functions, each of which is fast.
    let calling = program("(loop $l (call $model.drop (call $model.current)) (br $l)) (unreachable)", "");
    ended(host.run(&calling, &hurry()), ErrorKind::LimitExceeded, "cpu_time");
    // In the function that the host calls to allocate its result, in a start function, and in a hook.
    let start = program("(global.get $OK)", "(start $go) (func $go (loop $l (br $l)))");
    ended(host.run(&start, &hurry()), ErrorKind::LimitExceeded, "cpu_time");
    let hook = policy("(loop $l (br $l)) (unreachable)", "(global.get $OK)");
    ended(host.run(&hook, &hurry()), ErrorKind::LimitExceeded, "cpu_time");
    // One instruction that takes long: it fills all memory that there may be, over and over.
    let filling = program(
        "(drop (memory.grow (i32.const 800)))
         (loop $l (memory.fill (i32.const 65536) (i32.const 1) (i32.const 50000000)) (br $l)) (unreachable)",
        "",
    );
    ended(host.run(&filling, &hurry()), ErrorKind::LimitExceeded, "cpu_time");
    // The host still works.
    assert_eq!(host.run(&greedy(5, 4), &anybody()).unwrap().tokens.len(), 4);
}

#[test]
fn what_recurses_for_ever_is_ended() {
    let host = Host::tiny();
    let deep = program("(call $run (local.get $request))", "");
    ended(host.run(&deep, &anybody()), ErrorKind::LimitExceeded, "stack");
    // Through the host: the function that the host calls to allocate a result asks for a result itself.
    let through = r#"(module
        (import "realm:tenant/capabilities@0.1.0" "random" (func $random (param i32 i32)))
        (import "realm:tenant/models@0.1.0" "[static]model.current" (func $current (result i32)))
        (import "realm:tenant/models@0.1.0" "[method]model.encode" (func $encode (param i32 i32 i32 i32)))
        (memory (export "memory") 2)
        (func $again (result i32) (call $encode (call $current) (i32.const 64) (i32.const 1) (i32.const 1024)) (i32.const 0))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $again))
        (func (export "realm:tenant/program@0.1.0#run") (param i32) (result i32) (call $again)))"#;
    let through = crate::guest::component(through, "tenant-program");
    // The component model forbids calls from there.
    ended(host.run(&through, &anybody()), ErrorKind::Trap, "");
}

/// The host's work for a program whose stack is almost full must fit on the rest of the stack.
#[test]
fn the_host_has_stack_left_when_the_program_has_none() {
    let host = Host::tiny();
    let nested = "(".repeat(240) + "a" + &")".repeat(240);
    let json = "[".repeat(120) + &"]".repeat(120);
    let tries = [
        ("(call $token-set.matching (local.get $model) (i32.const 8192) (i32.const 481) (global.get $R))", nested),
        ("(call $matcher.open (local.get $model) (i32.const 0) (i32.const 8192) (i32.const 240) (global.get $R))", json.clone()),
        ("(call $run-program (i32.const 8192) (i32.const 1) (i32.const 8192) (i32.const 240) (global.get $R))", json.clone()),
        (
            "(call $model.tokenize (local.get $model) (i32.const 1) (i32.const 5000) (i32.const 1) (i32.const 8192)
               (i32.const 240) (i32.const 0) (i32.const 0) (global.get $R))",
            json,
        ),
        ("(call $matcher.open (local.get $model) (i32.const 2) (i32.const 8192) (i32.const 480) (global.get $R))", "(a|".repeat(120) + "b" + &")".repeat(120)),
    ];
    for (call, text) in tries {
        // Recurses `frames` deep, and calls the host in each of the last hundred frames.
        let digs = |frames: usize, call: &str| {
            let body = format!(
                "(local.set $model (call $model.current)) (call $dig (local.get $model) (i32.const {frames})) (global.get $OK)"
            );
            let rest = format!(
                r#"(data (i32.const 8192) "{text}")
                (func $dig (param $model i32) (param $left i32)
                  (if (i32.lt_u (local.get $left) (i32.const 100)) (then {call}))
                  (if (local.get $left) (then (call $dig (local.get $model) (i32.sub (local.get $left) (i32.const 1)))))
                  (global.set $top (i32.const 65536)))"#
            );
            let who = with(|limits| limits.program.cpu_time = Duration::from_secs(10));
            host.run(&program(&body, &rest), &who)
        };
        let (mut fits, mut too_deep) = (100, 1 << 20);
        while too_deep - fits > 1 {
            let middle = (fits + too_deep) / 2;
            match digs(middle, "(call $model.drop (call $model.current))") {
                Ok(_) => fits = middle,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
                    too_deep = middle;
                }
            }
        }
        for frames in [fits - 1, fits, too_deep] {
            // Only the end counts: an overflow would end the process.
            let _ = digs(frames, call);
        }
    }
}

#[test]
fn memory_has_a_limit_over_all_that_a_run_holds() {
    let host = Host::tiny();
    let who = || with(|limits| limits.program.memory = 1 << 20);
    // `memory.grow` returns -1, as WebAssembly specifies.
    let grows = program(
        "(loop $l (br_if $l (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))
         (if (i32.or (i32.lt_u (memory.size) (i32.const 14)) (i32.gt_u (memory.size) (i32.const 16))) (then (return (call $complain (i32.const 6)))))
         (global.get $OK)",
        "",
    );
    host.run(&grows, &who()).unwrap();
    // Tables count, and so does a component's initial memory.
    let tables = program(
        "(loop $l (br_if $l (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))
         (if (i32.ge_u (table.size $t) (i32.const 100000)) (then (return (call $complain (i32.const 6)))))
         (global.get $OK)",
        "(table $t 1 funcref)",
    );
    host.run(&tables, &anybody()).unwrap();
    let begins = with(|limits| limits.program.memory = 64 << 10);
    ended(host.run(&greedy(5, 1), &begins), ErrorKind::LimitExceeded, "program.memory");
    // Logits on the host's side count too.
    let hoards = program(
        "(local.set $model (call $model.current))
         (call $sequence.open (local.get $model) (global.get $R))
         (local.set $h (call $got))
         (i32.store (i32.const 4096) (i32.const 1))
         (call $sequence.append (local.get $h) (i32.const 4096) (i32.const 1) (global.get $R))
         (call $sequence.forward (local.get $h) (global.get $R))
         (local.set $h (call $got))
         (loop $l (call $logits.copy (local.get $h) (global.get $R)) (br_if $l (i32.eqz (call $failed))))
         (global.get $R)",
        "",
    );
    let who = || with(|limits| (limits.program.memory, limits.program.handles) = (1 << 20, 1 << 20));
    ended(host.run(&hoards, &who()), ErrorKind::LimitExceeded, "program.memory");
    // So does a grammar's matcher, however short the grammar.
    let opens = program(
        "(local.set $model (call $model.current))
         (loop $l (call $matcher.open (local.get $model) (i32.const 1) (i32.const 0) (i32.const 0) (global.get $R))
           (br_if $l (i32.eqz (call $failed))))
         (global.get $R)",
        "",
    );
    ended(host.run(&opens, &who()), ErrorKind::LimitExceeded, "program.memory");
}

/// Data that one instance wrote to its memory is gone when another gets that memory.
#[test]
fn nothing_of_one_instance_is_left_for_the_next() {
    let host = Host::tiny();
    let writes = program(
        "(drop (memory.grow (i32.const 100)))
         (memory.fill (i32.const 65536) (i32.const 165) (i32.const 6000000))
         (table.fill $t (i32.const 0) (ref.func $run) (i32.const 100))
         (global.set $g (i32.const 1))
         (global.get $OK)",
        "(table $t 100 funcref) (elem declare func $run) (global $g (mut i32) (i32.const 0))",
    );
    // The canary: every word of all memory it can get, the table and the global.
    let reads = program(
        "(drop (memory.grow (i32.const 100)))
         (local.set $i (i32.const 131072))
         (loop $l
           (if (i32.load (local.get $i)) (then (return (call $complain (i32.const 6)))))
           (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 6600000))))
         (local.set $i (i32.const 0))
         (loop $l
           (if (i32.eqz (ref.is_null (table.get $t (local.get $i)))) (then (return (call $complain (i32.const 6)))))
           (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))
         (if (global.get $g) (then (return (call $complain (i32.const 6)))))
         (global.get $OK)",
        "(table $t 100 funcref) (global $g (mut i32) (i32.const 0))",
    );
    let (writes, reads) = (host.compile(&writes), host.compile(&reads));
    for _ in 0..20 {
        crate::host::finish(host.start(&writes, &anybody()).unwrap()).unwrap();
        crate::host::finish(host.start(&reads, &anybody()).unwrap()).unwrap();
    }
}
