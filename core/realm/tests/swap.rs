//! Programs that are exchanged while requests run.

use std::sync::atomic::{AtomicBool, Ordering};

use realm::{Limits, Model, Program, Realm, Request, Tenant};

/// Greedy decoding, forward by forward, with `mark` sent before the text.
fn program(realm: &Realm, mark: &str) -> Program {
    let module = format!(
        r#"(module
          (import "realm" "request_tokens" (func $request_tokens (param i32 i32) (result i64)))
          (import "realm" "request_max_tokens" (func $max_tokens (result i64)))
          (import "realm" "sequence_open" (func $open (result i64)))
          (import "realm" "sequence_append" (func $append (param i32 i32 i32) (result i64)))
          (import "realm" "sequence_forward" (func $forward (param i32) (result i64)))
          (import "realm" "logits_argmax" (func $argmax (param i32) (result i64)))
          (import "realm" "decode" (func $decode (param i32 i32 i32 i32) (result i64)))
          (import "realm" "emit" (func $emit (param i32 i32 i32 i32) (result i64)))
          (import "realm" "drop" (func $drop (param i32) (result i64)))
          (memory (export "memory") 1)
          (data (i32.const 50000) "{mark}")
          (func (export "realm_run") (result i32)
            (local $sequence i32) (local $logits i32) (local $left i64)
            (drop (call $emit (i32.const 50000) (i32.const {}) (i32.const 0) (i32.const 0)))
            (local.set $sequence (i32.wrap_i64 (call $open)))
            (drop (call $append (local.get $sequence) (i32.const 0)
              (i32.wrap_i64 (call $request_tokens (i32.const 0) (i32.const 4096)))))
            (local.set $left (call $max_tokens))
            (loop $next
              (local.set $logits (i32.wrap_i64 (call $forward (local.get $sequence))))
              (i32.store (i32.const 32768) (i32.wrap_i64 (call $argmax (local.get $logits))))
              (drop (call $drop (local.get $logits)))
              (drop (call $emit (i32.const 40000)
                (i32.wrap_i64 (call $decode (i32.const 32768) (i32.const 1) (i32.const 40000) (i32.const 100)))
                (i32.const 32768) (i32.const 1)))
              (drop (call $append (local.get $sequence) (i32.const 32768) (i32.const 1)))
              (local.set $left (i64.sub (local.get $left) (i64.const 1)))
              (br_if $next (i64.gt_s (local.get $left) (i64.const 0))))
            (i32.const 1)))"#,
        mark.len()
    );
    realm.compile_program(&wat::parse_str(&module).unwrap()).unwrap()
}

fn start() -> (Realm, Model, Tenant) {
    let realm = Realm::builder().threads(2).device("cpu").build().unwrap();
    let model = realm.load_model("smollm2-135m").unwrap();
    let tenant = realm.tenant("swapping", Limits::default()).unwrap();
    (realm, model, tenant)
}

fn request(tokens: usize) -> Request {
    let mut request = Request::text("Once upon a time").temperature(0.0).max_tokens(tokens);
    request.ignore_eos = true;
    request
}

#[test]
fn running_requests_end_on_the_old_program_and_new_ones_begin_on_the_new() {
    let (realm, model, tenant) = start();
    let plain = model.generate(request(24)).unwrap().text;
    let seen = tenant.model(&model).unwrap();
    tenant.set_program(Some(&program(&realm, "old: ")));
    let running: Vec<_> = (0..8)
        .map(|_| {
            let mut chunks = seen.stream(request(24)).unwrap().into_iter();
            // It has begun.
            assert_eq!(chunks.next().unwrap().unwrap().text, "old: ");
            chunks
        })
        .collect();
    tenant.set_program(Some(&program(&realm, "new: ")));
    // Though the old ones still run.
    assert_eq!(seen.generate(request(24)).unwrap().text, format!("new: {plain}"));
    for chunks in running {
        assert_eq!(chunks.map(|chunk| chunk.unwrap().text).collect::<String>(), plain);
    }
    tenant.set_program(None);
    assert_eq!(seen.generate(request(24)).unwrap().text, plain);
}

#[test]
fn no_request_is_lost_while_programs_are_exchanged_all_the_time() {
    let (realm, model, tenant) = start();
    let plain = model.generate(request(3)).unwrap().text;
    let programs = ["a: ", "b: ", "c: "].map(|mark| program(&realm, mark));
    tenant.set_program(Some(&programs[0]));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for program in programs.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                tenant.set_program(Some(program));
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        });
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let seen = tenant.model(&model).unwrap();
                let plain = &plain;
                scope.spawn(move || {
                    for _ in 0..40 {
                        let text = seen.generate(request(3)).unwrap().text;
                        let (mark, rest) = text.split_at(3);
                        assert!(["a: ", "b: ", "c: "].contains(&mark) && rest == plain, "{text:?}");
                    }
                })
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|client| client.unwrap());
    });
}
