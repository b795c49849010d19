//! The time that a program without a clock can measure.

use realm_sandbox::{ErrorKind, Grants};

use crate::guest::component_with;
use crate::host::{FOREVER, Host, Who, with};

const WASI: [&str; 2] = [
    "package wasi:io@0.2.6; interface poll { resource pollable { ready: func() -> bool; block: func(); } }",
    "package wasi:clocks@0.2.6; interface monotonic-clock { use wasi:io/poll@0.2.6.{pollable};
       now: func() -> u64; subscribe-duration: func(when: u64) -> pollable; subscribe-instant: func(when: u64) -> pollable; }",
];

/// A program that starts 400 timers, the nth of n half milliseconds, runs `what`, and then says how many are
/// over, and the clock's time in milliseconds.
fn program(what: &str, start: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "realm:tenant/output@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32)))
          (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $now (result i64)))
          (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $duration (param i64) (result i32)))
          (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-instant" (func $instant (param i64) (result i32)))
          (import "wasi:io/poll@0.2.6" "[method]pollable.ready" (func $ready (param i32) (result i32)))
          (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
          (memory (export "memory") 4)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
          (func $timer (param $i i32) (result i32)
            (i32.load (i32.add (i32.const 140000) (i32.mul (local.get $i) (i32.const 4)))))
          (func $burn (local $i i32)
            (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000000)))))
          (func (export "realm:tenant/program@0.1.0#run") (param $request i32) (result i32) (local $i i32) (local $over i32)
            (loop $start
              (i32.store (i32.add (i32.const 140000) (i32.mul (local.get $i) (i32.const 4)))
                (call ${start} (i64.mul (i64.extend_i32_u (i32.add (local.get $i) (i32.const 1))) (i64.const 500000))))
              (br_if $start (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 400))))
            {what}
            (local.set $i (i32.const 0))
            (loop $count
              (local.set $over (i32.add (local.get $over) (call $ready (call $timer (local.get $i)))))
              (br_if $count (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 400))))
            (i32.store (i32.const 4096) (local.get $over))
            (i32.store (i32.const 4100) (i32.wrap_i64 (i64.div_u (call $now) (i64.const 1000000))))
            (call $emit (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 2) (i32.const 256))
            (i32.const 2048)))"#
    );
    component_with(&text, &WASI, "import wasi:clocks/monotonic-clock@0.2.6; import wasi:io/poll@0.2.6;")
}

/// A tenant whose programs have the computing time that a busy machine needs.
fn patient() -> Who {
    with(|limits| limits.program.cpu_time = FOREVER)
}

#[test]
fn timers_tell_a_program_without_a_clock_nothing() {
    let host = Host::tiny();
    for start in ["duration", "instant"] {
        let burns = program("(call $burn)", start);
        let said = host.run(&burns, &patient()).unwrap();
        assert_eq!(said.tokens, [0, 0], "none is over that was not waited for");
        // After a timer of 10 ms, all shorter ones are over, however long it really took.
        let waits = program("(call $block (call $timer (i32.const 19))) (call $burn)", start);
        assert_eq!(host.run(&waits, &patient()).unwrap().tokens, [20, 0]);
    }
    // With the grant a program can measure time, once the thread that ends its timers has been woken: so it
    // checks more than once.
    let looks = |times: u32| {
        let look = format!(
            "(local.set $i (i32.const 0))
             (loop $again (call $burn)
               (br_if $again (i32.and (i32.eqz (call $ready (call $timer (i32.const 0))))
                 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {times})))))"
        );
        program(&look, "duration")
    };
    assert_eq!(host.run(&looks(50), &patient()).unwrap().tokens, [0, 0], "however often it looks");
    let granted = patient().granted(Grants::none().clock());
    assert!(host.run(&looks(2000), &granted).unwrap().tokens[0] > 0);
}

/// A thread that counts would be a clock: there are no threads, and no memory that two instances could share.
#[test]
fn there_is_no_shared_memory_to_count_in() {
    let host = Host::tiny();
    for text in [
        r#"(module (memory (export "memory") 1 1 shared) (func (export "realm_run") (result i32) i32.const 0))"#,
        r#"(module (import "env" "memory" (memory 1 1 shared)) (func (export "realm_run") (result i32) i32.const 0))"#,
        r#"(module (import "wasi" "thread-spawn" (func (param i32) (result i32))) (memory (export "memory") 1)
             (func (export "realm_run") (result i32) i32.const 0))"#,
    ] {
        let compiled = host.sandbox.compile(&wat::parse_str(text).unwrap());
        assert_eq!(compiled.unwrap_err().kind(), ErrorKind::InvalidProgram, "{text}");
    }
}
