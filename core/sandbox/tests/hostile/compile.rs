//! Programs that are refused before they run, and programs that take long to compile.

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
        // The types of a component's functions are checked when it is instantiated.
        let compiled = host.sandbox.compile(&wasm);
        let run = compiled.and_then(|program| crate::host::finish(host.start(&program, &anybody())?));
        let error = run.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidProgram, "{what}: {error}");
    }
    let many = vec![0; (64 << 20) + 1];
    assert_eq!(host.sandbox.compile(&many).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

/// A function with `n` nested blocks, one with `n` branches, and components that contain each other twice.
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
    // Each component contains the one before twice: 2^40 instances if they were created.
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
            // It may trap or finish; it ends.
            let _ = crate::host::finish(host.start(&program, &anybody()).unwrap());
        }
    }
}

/// Modules that took a minute and gigabytes to compile: refused before anything is compiled, for modules of
/// every kind.
#[test]
fn modules_that_compile_long_are_refused_at_once() {
    let host = Host::tiny();
    let loops = "(loop ".repeat(5000) + &"(br_if 0 (i32.const 1))".repeat(2) + &")".repeat(5000);
    let results = "i32 ".repeat(1000);
    let many = format!("(func $many (result {results}) {})", "(i32.const 0) ".repeat(1000));
    let calls = format!("(call $many) {}", "drop ".repeat(1000)).repeat(700);
    for (what, functions, body, words) in [
        ("loops", String::new(), loops, "loops in each other"),
        ("results", many, calls, "would take too long to compile"),
    ] {
        let plain = format!(
            r#"(module {functions} (memory (export "memory") 1) (func (export "realm_run") (result i32) {body} (i32.const 0)))"#
        );
        let contract = format!(
            r#"(module {functions} (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
            (func (export "realm:tenant/program@0.1.0#run") (param i32) (result i32) {body} (i32.const 0)))"#
        );
        let nested = format!(r#"(component (component (core module {functions} (func {body}))))"#);
        for wasm in [
            wat::parse_str(&plain).unwrap(),
            component(&contract, "tenant-program"),
            wat::parse_str(&nested).unwrap(),
        ] {
            let error = host.sandbox.compile(&wasm).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidProgram, "{what}");
            assert!(error.message().contains(words), "{what}: {error}");
        }
    }
}

/// Others compile and run while one tenant has many programs compiled.
#[test]
fn a_tenant_with_many_programs_does_not_hold_up_another() {
    let host = Host::tiny();
    let module = |n: usize| {
        wat::parse_str(format!(
            r#"(module (memory (export "memory") 1) (func (export "realm_run") (result i32)
                {} (i32.const {n})))"#,
            "(drop (i32.load (i32.const 8)))".repeat(4000)
        ))
        .unwrap()
    };
    let many = anybody();
    let done = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..40 {
            let (host, many, done, module) = (&host, &many, &done, &module);
            scope.spawn(move || {
                host.sandbox.compile_for(&many.tenant, &module(n)).unwrap();
                done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
        while done.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        host.sandbox.compile_for(&anybody().tenant, &module(99)).unwrap();
        let before = done.load(std::sync::atomic::Ordering::SeqCst);
        assert!(before < 35, "{before} of the other's 40 came first");
    });
}
