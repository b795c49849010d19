//! Core modules as programs, with 32- and 64-bit memories, on a real model.

#[path = "../common/mod.rs"]
mod common;
mod compile;
mod swap;

use realm::{ErrorCode, Limits, Model, Realm, Request, Tenant};

fn start() -> (Realm, Model, Tenant) {
    let realm = Realm::builder().threads(2).device("cpu").build().unwrap();
    let model = realm.load_model("smollm2-135m").unwrap();
    let tenant = realm.tenant("modules", Limits::default()).unwrap();
    (realm, model, tenant)
}

fn request() -> Request {
    Request::text("The three primary colours are").temperature(0.0).max_tokens(12)
}

/// Greedy decoding with 32-bit addresses, as a C program without a component toolchain would do it.
const GREEDY: &str = r#"
(module
  (import "realm" "request_tokens" (func $request_tokens (param i32 i32) (result i64)))
  (import "realm" "request_max_tokens" (func $max_tokens (result i64)))
  (import "realm" "sequence_open" (func $open (result i64)))
  (import "realm" "sequence_append" (func $append (param i32 i32 i32) (result i64)))
  (import "realm" "sequence_forward" (func $forward (param i32) (result i64)))
  (import "realm" "logits_argmax" (func $argmax (param i32) (result i64)))
  (import "realm" "is_end" (func $is_end (param i32) (result i64)))
  (import "realm" "decode" (func $decode (param i32 i32 i32 i32) (result i64)))
  (import "realm" "emit" (func $emit (param i32 i32 i32 i32) (result i64)))
  (import "realm" "drop" (func $drop (param i32) (result i64)))
  (memory (export "memory") 1)
  (func (export "realm_run") (result i32)
    (local $sequence i32) (local $logits i32) (local $left i64) (local $token i32)
    (local.set $sequence (i32.wrap_i64 (call $open)))
    (drop (call $append (local.get $sequence) (i32.const 0)
      (i32.wrap_i64 (call $request_tokens (i32.const 0) (i32.const 4096)))))
    (local.set $left (call $max_tokens))
    (loop $next
      (local.set $logits (i32.wrap_i64 (call $forward (local.get $sequence))))
      (local.set $token (i32.wrap_i64 (call $argmax (local.get $logits))))
      (drop (call $drop (local.get $logits)))
      (i32.store (i32.const 32768) (local.get $token))
      (if (i32.wrap_i64 (call $is_end (local.get $token))) (then
        (drop (call $emit (i32.const 0) (i32.const 0) (i32.const 32768) (i32.const 1)))
        (return (i32.const 0))))
      (drop (call $emit (i32.const 40000)
        (i32.wrap_i64 (call $decode (i32.const 32768) (i32.const 1) (i32.const 40000) (i32.const 100)))
        (i32.const 32768) (i32.const 1)))
      (drop (call $append (local.get $sequence) (i32.const 32768) (i32.const 1)))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $next (i64.gt_s (local.get $left) (i64.const 0))))
    (i32.const 1)))
"#;

/// The forward pass from its layers with 64-bit addresses, compared with the model's own: sends `same`, or
/// traps if two logits differ by more than 1e-4.
const LAYERS: &str = r#"
(module
  (import "realm" "request_tokens" (func $request_tokens (param i64 i64) (result i64)))
  (import "realm" "embed" (func $embed (param i64 i64) (result i64)))
  (import "realm" "kv_cache_open" (func $kv_cache_open (param i32) (result i64)))
  (import "realm" "load_layer" (func $load_layer (param i32) (result i64)))
  (import "realm" "attention_forward" (func $attention (param i32 i32 i32) (result i64)))
  (import "realm" "feed_forward" (func $feed_forward (param i32 i32) (result i64)))
  (import "realm" "tensor_gather" (func $gather (param i32 i64 i64) (result i64)))
  (import "realm" "lm_head" (func $lm_head (param i32 i64 i64) (result i64)))
  (import "realm" "logits_read" (func $read (param i32 i64 i64) (result i64)))
  (import "realm" "sequence_open" (func $open (result i64)))
  (import "realm" "sequence_append" (func $append (param i32 i64 i64) (result i64)))
  (import "realm" "sequence_forward" (func $forward (param i32) (result i64)))
  (import "realm" "emit" (func $emit (param i64 i64 i64 i64) (result i64)))
  (memory (export "memory") i64 32)
  (data (i64.const 4096) "same")
  (func (export "realm_run") (result i32)
    (local $tokens i64) (local $x i32) (local $cache i32) (local $layer i64) (local $i i32) (local $count i64)
    (local $at i64) (local $sequence i32)
    (local.set $tokens (call $request_tokens (i64.const 0) (i64.const 512)))
    (local.set $x (i32.wrap_i64 (call $embed (i64.const 0) (local.get $tokens))))
    (local.set $cache (i32.wrap_i64 (call $kv_cache_open (i32.wrap_i64 (local.get $tokens)))))
    (block $done (loop $layers
      (local.set $layer (call $load_layer (local.get $i)))
      (br_if $done (i64.lt_s (local.get $layer) (i64.const 0)))
      (local.set $x (i32.wrap_i64
        (call $attention (i32.wrap_i64 (local.get $layer)) (local.get $x) (local.get $cache))))
      (local.set $x (i32.wrap_i64 (call $feed_forward (i32.wrap_i64 (local.get $layer)) (local.get $x))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $layers)))
    (i32.store (i64.const 8192) (i32.sub (i32.wrap_i64 (local.get $tokens)) (i32.const 1)))
    (local.set $x (i32.wrap_i64 (call $gather (local.get $x) (i64.const 8192) (i64.const 1))))
    (drop (call $lm_head (local.get $x) (i64.const 8192) (i64.const 1)))
    (local.set $count (call $read (i32.load (i64.const 8192)) (i64.const 65536) (i64.const 100000)))
    (local.set $sequence (i32.wrap_i64 (call $open)))
    (drop (call $append (local.get $sequence) (i64.const 0) (local.get $tokens)))
    (drop (call $read (i32.wrap_i64 (call $forward (local.get $sequence))) (i64.const 1048576) (i64.const 100000)))
    (if (i64.lt_s (local.get $count) (i64.const 1000)) (then unreachable))
    (loop $compare
      (if (f32.gt
            (f32.abs (f32.sub
              (f32.load (i64.add (i64.const 65536) (local.get $at)))
              (f32.load (i64.add (i64.const 1048576) (local.get $at)))))
            (f32.const 1e-4))
        (then unreachable))
      (local.set $at (i64.add (local.get $at) (i64.const 4)))
      (br_if $compare (i64.lt_u (local.get $at) (i64.shl (local.get $count) (i64.const 2)))))
    (drop (call $emit (i64.const 4096) (i64.const 4) (i64.const 0) (i64.const 0)))
    (i32.const 0)))
"#;

#[test]
fn a_module_with_32_bit_addresses_answers_as_the_built_in_generation() {
    let (realm, model, tenant) = start();
    let program = realm.compile_program(&wat::parse_str(GREEDY).unwrap()).unwrap();
    assert_eq!(program.info().contract, realm::Contract::Module);
    let plain = model.generate(request()).unwrap();
    tenant.set_program(Some(&program));
    let answer = tenant.model(&model).unwrap().generate(request()).unwrap();
    assert_eq!((answer.text, answer.finish_reason), (plain.text, plain.finish_reason));
    assert_eq!(answer.usage.generated_tokens, 12);
}

#[test]
fn layers_composed_by_a_module_with_64_bit_addresses_give_the_models_own_logits() {
    let (realm, model, tenant) = start();
    tenant.set_program(Some(&realm.compile_program(&wat::parse_str(LAYERS).unwrap()).unwrap()));
    assert_eq!(tenant.model(&model).unwrap().generate(request()).unwrap().text, "same");
}

#[test]
fn a_module_may_import_functions_by_the_founding_documents_names() {
    let (realm, model, tenant) = start();
    // Computes one layer's attention and one product of the first token, and emits the text if both exist.
    let answer = |matmul: &str, load_layer: &str| {
        let module = format!(
            r#"(module
              (import "realm" "request_tokens" (func $request_tokens (param i64 i64) (result i64)))
              (import "realm" "embed" (func $embed (param i64 i64) (result i64)))
              (import "realm" "kv_cache_open" (func $kv_cache_open (param i32) (result i64)))
              (import "realm" "tensor_rows" (func $rows (param i32) (result i64)))
              (import "realm" "emit" (func $emit (param i64 i64 i64 i64) (result i64)))
              (import "realm" "{matmul}" (func $matmul (param i32 i64 i64) (result i64)))
              (import "realm" "{load_layer}" (func $load_layer (param i32) (result i64)))
              (import "realm" "attention_forward" (func $attention (param i32 i32 i32) (result i64)))
              (memory (export "memory") i64 1)
              (data (i64.const 4096) "blk.0.attn_q.weight")
              (data (i64.const 8192) "computed")
              (func (export "realm_run") (result i32) (local $x i32)
                (drop (call $request_tokens (i64.const 0) (i64.const 1)))
                (local.set $x (i32.wrap_i64 (call $embed (i64.const 0) (i64.const 1))))
                (if (i64.ne (i64.const 2) (i64.add
                      (call $rows (i32.wrap_i64 (call $matmul (local.get $x) (i64.const 4096) (i64.const 19))))
                      (call $rows (i32.wrap_i64 (call $attention
                        (i32.wrap_i64 (call $load_layer (i32.const 0)))
                        (local.get $x)
                        (i32.wrap_i64 (call $kv_cache_open (i32.const 1))))))))
                  (then unreachable))
                (drop (call $emit (i64.const 8192) (i64.const 8) (i64.const 0) (i64.const 0)))
                (i32.const 0)))"#
        );
        tenant.set_program(Some(&realm.compile_program(&wat::parse_str(&module).unwrap()).unwrap()));
        tenant.model(&model).unwrap().generate(request()).unwrap().text
    };
    assert_eq!(answer("matmul", "load_layer"), "computed");
    assert_eq!(answer("candle_matmul", "memory64_load_layer"), "computed");
}

#[test]
fn a_module_that_is_no_program_is_refused_by_what_it_lacks() {
    let (realm, ..) = start();
    let run = r#"(func (export "realm_run") (result i32) (i32.const 0))"#;
    for (module, named) in [
        (format!("(module {run})"), "memory"),
        (r#"(module (memory (export "memory") 1))"#.into(), "realm_run"),
        (
            r#"(module (memory (export "memory") 1) (func (export "realm_run") (param i32)))"#.into(),
            "realm_run",
        ),
        (
            format!(r#"(module (import "realm" "open_file" (func)) (memory (export "memory") 1) {run})"#),
            "open_file",
        ),
        (
            // An address of the wrong width.
            format!(
                r#"(module (import "realm" "request_input" (func (param i64 i64) (result i64)))
                    (memory (export "memory") 1) {run})"#
            ),
            "request_input",
        ),
    ] {
        let error = realm.compile_program(&wat::parse_str(&module).unwrap()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidProgram);
        assert!(error.message().contains(named), "{error}");
    }
}

#[test]
fn what_a_module_does_wrong_is_a_number_that_it_can_see() {
    let (realm, model, tenant) = start();
    // Calls with an invalid handle and an invalid address, then fails with the number that it got.
    let calls = |call: &str| {
        let module = format!(
            r#"(module
              (import "realm" "sequence_forward" (func $forward (param i32) (result i64)))
              (import "realm" "request_tokens" (func $tokens (param i32 i32) (result i64)))
              (import "realm" "emit" (func $emit (param i32 i32 i32 i32) (result i64)))
              (memory (export "memory") 1)
              (func (export "realm_run") (result i32) (i32.wrap_i64 ({call}))))"#
        );
        tenant.set_program(Some(&realm.compile_program(&wat::parse_str(&module).unwrap()).unwrap()));
        tenant.model(&model).unwrap().generate(request()).unwrap_err()
    };
    for (call, named) in [
        ("call $forward (i32.const 12345)", "no such handle"),
        ("call $tokens (i32.const 65530) (i32.const 100)", "memory"),
        ("call $emit (i32.const -1) (i32.const -1) (i32.const 0) (i32.const 0)", "memory"),
    ] {
        let error = calls(call);
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
        assert!(error.message().contains(named), "{error}");
    }
}
