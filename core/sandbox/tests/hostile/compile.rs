//! What is refused before it runs, and what takes long to compile.

use std::time::Instant;

use realm_sandbox::ErrorKind;

use crate::guest::component;
use crate::host::{FOREVER, Host, anybody};

#[test]
fn what_is_no_program_of_this_contract_is_refused() {
    let host = Host::tiny();
    let text = |text: &str| wat::parse_str(text).unwrap();
    let tries: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "empty"),
        (b"\0asm".to_vec(), "half a header"),
        (b"#!/bin/sh".to_vec(), "a script"),
        (text("(component)"), "an empty component"),
        (text("(module)"), "an empty module"),
        (
            text(
                r#"(component (core module $m (func (export "f") (result i32) i32.const 0)) (core instance $i (instantiate $m))
                (func $run (result u32) (canon lift (core func $i "f")))
                (instance $program (export "run" (func $run)))
                (export "realm:tenant/program@0.1.0" (instance $program)))"#,
            ),
            "wrong types",
        ),
        (
            text(r#"(module (memory (export "memory") 1) (func (export "realm_run") (param i32)))"#),
            "wrong types of a module",
        ),
        (
            text(
                r#"(module (import "realm" "no_such" (func)) (memory (export "memory") 1) (func (export "realm_run") (result i32) i32.const 0))"#,
            ),
            "unknown function",
        ),
    ];
    for (wasm, what) in tries {
        // What the types of a component's functions are is looked at when it is made.
        let compiled = host.sandbox.compile(&wasm);
        let run = compiled.and_then(|program| crate::host::finish(host.start(&program, &anybody())?));
        let error = run.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidProgram, "{what}: {error}");
    }
    let many = vec![0; (64 << 20) + 1];
    assert_eq!(host.sandbox.compile(&many).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

/// A function of `n` nested blocks, of `n` branches, and components that hold each other twice.
#[test]
fn compile_bombs_are_refused_or_compiled_in_bounded_time() {
    let host = Host::tiny();
    let module = |body: &str| {
        component(
            &format!(
                r#"(module (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
                (func (export "realm:tenant/program@0.1.0#run") (param i32) (result i32) (local i32 i64) {body} (i32.const 0)))"#
            ),
            "tenant-program",
        )
    };
    let nest = |n: usize| module(&("(block ".repeat(n) + &")".repeat(n)));
    let adds = |n: usize| module(&"(local.set 1 (i32.add (local.get 1) (i32.load (local.get 0))))".repeat(n));
    let mut bombs = vec![("nested", nest(900)), ("straight", adds(20_000))];
    // Twice the one before, and so on: 2^40 instances if they were made.
    let mut doubling =
        String::from("(component $c0 (core module $m (func)) (core instance (instantiate $m)))");
    for i in 1..=40 {
        let before = i - 1;
        doubling = format!(
            "(component $c{i} {doubling} (instance (instantiate $c{before})) (instance (instantiate $c{before})))"
        );
    }
    bombs.push((
        "doubling",
        wat::parse_str(format!("(component {doubling} (instance (instantiate $c40)))")).unwrap(),
    ));
    for (what, wasm) in bombs {
        let began = Instant::now();
        let compiled = host.sandbox.compile(&wasm);
        assert!(began.elapsed() < FOREVER, "{what}");
        if let Ok(program) = compiled {
            // It may trap or end well; it ends.
            let _ = crate::host::finish(host.start(&program, &anybody()).unwrap());
        }
    }
}
