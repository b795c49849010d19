//! Calls without a grant.

use realm_sandbox::{ErrorKind, Grants, Random, Store};

use crate::ended;
use crate::guest::{component_with, program};
use crate::host::{Host, anybody, with};

/// A program that makes one call and ends with its result.
fn asks(call: &str) -> Vec<u8> {
    program(
        &format!("{call} (if (call $failed) (then (return (global.get $R)))) (global.get $OK)"),
        r#"(data (i32.const 8192) "key")"#,
    )
}

#[test]
fn what_was_not_granted_is_denied_and_what_was_is_not() {
    let host = Host::tiny();
    let tries = [
        ("a log", "(call $log (i32.const 2) (i32.const 8192) (i32.const 3) (global.get $R))"),
        (
            "a clock",
            "(call $now (global.get $R)) (memory.copy (i32.const 1028) (i32.const 1032) (i32.const 12))",
        ),
        ("random numbers", "(call $random (i32.const 8) (global.get $R))"),
        (
            "a tool `key`",
            "(call $call (i32.const 8192) (i32.const 3) (i32.const 0) (i32.const 0) (global.get $R))",
        ),
        ("a key-value store", "(call $get (i32.const 8192) (i32.const 3) (global.get $R))"),
        (
            "a key-value store",
            "(call $set (i32.const 8192) (i32.const 3) (i32.const 8192) (i32.const 3) (global.get $R))",
        ),
        ("a key-value store", "(call $keys (i32.const 8192) (i32.const 0) (global.get $R))"),
    ];
    for (what, call) in tries {
        let wasm = asks(call);
        ended(host.run(&wasm, &anybody()), ErrorKind::Denied, what);
        let all = Grants::none()
            .log()
            .clock()
            .random(Random::Seed(1))
            .store(Store::in_memory(1000))
            .tool("key", Ok);
        host.run(&wasm, &anybody().granted(all)).unwrap();
        // All other grants do not help.
        let others = Grants::none().tool("another", Ok).http("example.com");
        ended(host.run(&wasm, &anybody().granted(others)), ErrorKind::Denied, what);
    }
}

/// The interfaces of WASI, limited to the functions that these tests call.
const WASI: [&str; 5] = [
    "package wasi:io@0.2.6; interface poll { resource pollable { block: func(); } }",
    "package wasi:cli@0.2.6; interface environment {
        get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; }",
    "package wasi:filesystem@0.2.6; interface types { resource descriptor; }
        interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }",
    "package wasi:clocks@0.2.6; interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
        interface monotonic-clock { use wasi:io/poll@0.2.6.{pollable}; now: func() -> u64; subscribe-duration: func(when: u64) -> pollable; }
        ",
    "package wasi:random@0.2.6; interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }",
];

/// A program in WASI's world; it ends with `Ok` unless `body` ends it.
fn in_wasi(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "wasi:cli/environment@0.2.6" "get-environment" (func $environment (param i32)))
          (import "wasi:cli/environment@0.2.6" "get-arguments" (func $arguments (param i32)))
          (import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $directories (param i32)))
          (import "wasi:clocks/wall-clock@0.2.6" "now" (func $wall (param i32)))
          (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $monotonic (result i64)))
          (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $sleep (param i64) (result i32)))
          (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
          (import "wasi:random/random@0.2.6" "get-random-bytes" (func $bytes (param i64 i32)))
          (import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))
          (memory (export "memory") 2)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
          (func (export "realm:tenant/program@0.1.0#run") (param i32) (result i32) {body} (i32.const 2048)))"#
    );
    component_with(
        &text,
        &WASI,
        "import wasi:cli/environment@0.2.6; import wasi:filesystem/preopens@0.2.6; import wasi:clocks/wall-clock@0.2.6;
         import wasi:clocks/monotonic-clock@0.2.6; import wasi:random/random@0.2.6; import wasi:io/poll@0.2.6;",
    )
}

#[test]
fn wasi_gives_nothing_that_was_not_granted() {
    let host = Host::tiny();
    // Traps at the first directory, variable or other thing that exists.
    let looks = in_wasi(
        "(call $directories (i32.const 0)) (if (i32.load (i32.const 4)) (then unreachable))
         (call $environment (i32.const 0)) (if (i32.load (i32.const 4)) (then unreachable))
         (call $arguments (i32.const 0)) (if (i32.load (i32.const 4)) (then unreachable))
         (call $wall (i32.const 0)) (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable))
         (if (i64.ne (call $monotonic) (i64.const 0)) (then unreachable))",
    );
    host.run(&looks, &anybody()).unwrap();
    let clock = anybody().granted(Grants::none().clock());
    ended(host.run(&looks, &clock), ErrorKind::Trap, "unreachable");
    // Random numbers and a sleep work without a grant, but tell nothing.
    let draws = in_wasi(
        "(if (i64.ne (call $random) (call $random)) (then (call $block (call $sleep (i64.const 0)))))",
    );
    host.run(&draws, &anybody()).unwrap();
    // More than any host has.
    for len in ["1099511627776", "-1", "1000000000"] {
        let wasm = in_wasi(&format!("(call $bytes (i64.const {len}) (i32.const 0))"));
        host.run(&wasm, &anybody()).expect_err("so many bytes");
    }
    // For ever, or nearly.
    let sleeps = in_wasi("(call $block (call $sleep (i64.const -1)))");
    let who = with(|limits| limits.request_timeout = Some(std::time::Duration::from_millis(300)));
    ended(host.run(&sleeps, &who), ErrorKind::LimitExceeded, "request_timeout");
}

#[test]
fn interfaces_that_are_not_of_the_contract_are_refused() {
    let host = Host::tiny();
    for import in ["wasi:nn/inference@0.2.0", "realm:tenant/secrets@0.1.0", "wasi:cli/exit-now@0.2.0"] {
        let text = format!("(component (import \"{import}\" (instance (export \"f\" (func)))))");
        let error = host.sandbox.compile(&wat::parse_str(&text).unwrap()).expect_err(import);
        assert_eq!(error.kind(), ErrorKind::InvalidProgram, "{error}");
    }
}
