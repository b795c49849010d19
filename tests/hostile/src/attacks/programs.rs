//! Attacks by programs.

use realm::{Grants, Limits, Request, Store};

use super::instances::with_instances;
use crate::guest::program;
use crate::{Ground, Running};

/// Sets `$t` to the embeddings of `rows` rows and `$h` to the first layer.
fn embedded(rows: usize) -> String {
    format!(
        "(local.set $model (call $model.current))
         (call $embed (local.get $model) (i32.const 9000) (i32.const {rows}) (global.get $R))
         (if (call $failed) (then (return (global.get $R)))) (local.set $t (call $got))
         (call $load-layer (local.get $model) (i32.const 0) (global.get $R)) (local.set $h (call $got))"
    )
}

const DATA: &str = r#"(data (i32.const 8192) "token_embd.weight")"#;
const FAILED: &str = "(if (call $failed) (then (return (global.get $R))))";

fn request() -> Request {
    Request { ignore_eos: true, ..Request::tokens(vec![1u32, 2, 3]).temperature(0.0).max_tokens(8) }
}

/// Runs a program of one tenant `runs` times at once, and starts each run again when it ends.
fn repeat(ground: &Ground, wasm: &[u8], runs: usize, limits: Limits, grants: Grants) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant_with("attacker", limits);
    tenant.set_grants(grants);
    tenant.set_program(Some(&ground.realm.compile_program(wasm).expect("a program")));
    for _ in 0..runs {
        let model = ground.model_of(&tenant);
        running.repeat(move |signal| signal.read(model.stream(request())));
    }
    running.tenants.push(tenant);
    running
}

fn alone(ground: &Ground, body: &str, data: &str) -> Running {
    repeat(ground, &program(body, data), 1, Limits::default(), Grants::none())
}

/// Starts runs of a program of one tenant, holds them and does not read them.
fn hold(ground: &Ground, wasm: &[u8], runs: u32) -> Running {
    let mut running = Running::default();
    let tenant = ground.tenant("attacker");
    tenant.set_program(Some(&ground.realm.compile_program(wasm).expect("a program")));
    let model = ground.model_of(&tenant);
    running.hold(runs, move |_| model.stream(request()));
    running.tenants.push(tenant);
    running
}

const EMITS: &str =
    "(loop $l (call $emit (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (global.get $R))
    (br_if $l (i32.eqz (call $failed)))) (global.get $R)";

pub(super) fn pool_modules(ground: &Ground) -> Running {
    hold(ground, &with_instances(&program(EMITS, ""), 60, "(module)"), 130)
}

pub(super) fn pool_memories(ground: &Ground) -> Running {
    hold(ground, &with_instances(&program(EMITS, ""), 3, "(module (memory 0))"), 512)
}

pub(super) fn unread(ground: &Ground) -> Running {
    // Emits pieces of 64 KiB.
    let body = EMITS.replace("(i32.const 0) (i32.const 1)", "(i32.const 0) (i32.const 65536)");
    hold(ground, &program(&body, ""), 8)
}

pub(super) fn add(ground: &Ground) -> Running {
    let body = format!(
        "{} (call $matmul (local.get $t) (i32.const 8192) (i32.const 17) (global.get $R)) {FAILED} (local.set $t (call $got))
         (loop $l (call $tensor.add (local.get $t) (local.get $t) (f32.const 0.5) (global.get $R))
           (br_if $l (i32.eqz (call $failed)))) (global.get $R)",
        embedded(60)
    );
    alone(ground, &body, DATA)
}

pub(super) fn output(ground: &Ground) -> Running {
    let body = format!(
        "{} (loop $l (call $matmul (local.get $t) (i32.const 8192) (i32.const 17) (global.get $R)) {FAILED}
           (call $tensor.drop (call $got)) (br $l)) unreachable",
        embedded(60)
    );
    alone(ground, &body, DATA)
}

pub(super) fn layers(ground: &Ground) -> Running {
    let body = format!(
        "{} (loop $l (call $layer.feed-forward (local.get $h) (local.get $t) (global.get $R)) {FAILED}
           (call $tensor.drop (call $got)) (br $l)) unreachable",
        embedded(512)
    );
    alone(ground, &body, DATA)
}

pub(super) fn lm_head(ground: &Ground) -> Running {
    let body = format!(
        "{} (loop $l (global.set $top (i32.const 65536)) (call $lm-head (local.get $t) (global.get $R)) {FAILED}
           (local.set $u (call $got)) (local.set $v (i32.load offset=8 (global.get $R)))
           (loop $d (call $logits.drop (i32.load (local.get $u))) (local.set $u (i32.add (local.get $u) (i32.const 4)))
             (br_if $d (local.tee $v (i32.sub (local.get $v) (i32.const 1)))))
           (br $l)) unreachable",
        embedded(60)
    );
    alone(ground, &body, DATA)
}

pub(super) fn fork(ground: &Ground) -> Running {
    let body = format!(
        "(local.set $model (call $model.current)) (drop (memory.grow (i32.const 20)))
         (local.set $i (i32.const 131072))
         (loop $f (i32.store (local.get $i) (i32.const 300))
           (br_if $f (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 160000))))
         (call $sequence.open (local.get $model) (global.get $R)) (local.set $h (call $got))
         (call $sequence.append (local.get $h) (i32.const 131072) (i32.const 4000) (global.get $R)) {FAILED}
         (call $sequence.forward (local.get $h) (global.get $R))
         (loop $l (call $sequence.fork (local.get $h) (global.get $R)) {FAILED} (call $sequence.drop (call $got)) (br $l))
         unreachable"
    );
    alone(ground, &body, "")
}

pub(super) fn open(ground: &Ground) -> Running {
    let body = format!(
        "(local.set $model (call $model.current))
         (loop $l (call $sequence.open (local.get $model) (global.get $R)) {FAILED} (call $sequence.drop (call $got)) (br $l))
         unreachable"
    );
    alone(ground, &body, "")
}

pub(super) fn truncate(ground: &Ground) -> Running {
    let body = format!(
        "{} (call $kv-cache.open (local.get $model) (i32.const 1) (global.get $R)) (local.set $s (call $got))
         (loop $w (call $layer.feed-forward (local.get $h) (local.get $t) (global.get $R))
           (br_if $w (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20))))
         (loop $l (call $kv-cache.truncate (local.get $s) (i32.const 0)) (br $l)) unreachable",
        embedded(512)
    );
    let limits = Limits { tokens_per_minute: Some(1000), ..Limits::default() };
    repeat(ground, &program(&body, ""), 1, limits, Grants::none())
}

pub(super) fn observe(ground: &Ground) -> Running {
    let body = format!(
        "(local.set $model (call $model.current)) (i32.store (i32.const 8192) (local.get $model))
         (f32.store (i32.const 8208) (f32.const 1)) (f32.store (i32.const 8216) (f32.const 1))
         (f32.store (i32.const 8220) (f32.const 1.1)) (i32.store (i32.const 8224) (i32.const -1))
         (call $sampler.open (i32.const 8192) (global.get $R)) {FAILED} (local.set $s (call $got))
         (loop $l (call $sampler.observe (local.get $s) (local.get $i))
           (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l)) unreachable"
    );
    alone(ground, &body, "")
}

pub(super) fn log(ground: &Ground) -> Running {
    let body = "(loop $l (call $log (i32.const 0) (i32.const 0) (i32.const 0) (global.get $R))
        (br_if $l (i32.eqz (call $failed)))) (global.get $R)";
    repeat(ground, &program(body, ""), 1, Limits::default(), Grants::none().log_to(|_, _, _| {}))
}

pub(super) fn store(ground: &Ground) -> Running {
    let body = "(loop $l
        (i32.store8 (i32.const 8192) (i32.add (i32.const 33) (i32.rem_u (local.get $i) (i32.const 90))))
        (i32.store8 (i32.const 8193) (i32.add (i32.const 33) (i32.rem_u (i32.div_u (local.get $i) (i32.const 90)) (i32.const 90))))
        (i32.store8 (i32.const 8194) (i32.add (i32.const 33) (i32.rem_u (i32.div_u (local.get $i) (i32.const 8100)) (i32.const 90))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (call $set (i32.const 8192) (i32.const 3) (i32.const 8192) (i32.const 1) (global.get $R))
        (br_if $l (i32.eqz (call $failed)))) (global.get $R)";
    let grants = Grants::none().store(Store::in_memory(1_000_000));
    repeat(ground, &program(body, ""), 1, Limits::default(), grants)
}

pub(super) fn spin(ground: &Ground) -> Running {
    alone(ground, "(loop $l (br $l)) unreachable", "")
}

pub(super) fn calls(ground: &Ground) -> Running {
    let body = "(local.set $model (call $model.current))
        (loop $l (drop (call $model.is-end (local.get $model) (i32.const 5))) (br $l)) unreachable";
    alone(ground, body, "")
}

pub(super) fn encode(ground: &Ground) -> Running {
    let body = format!(
        "(local.set $model (call $model.current)) (drop (memory.grow (i32.const 700)))
         (memory.fill (i32.const 1200000) (i32.const 97) (i32.const 1048576))
         (loop $l (global.set $top (i32.const 4000000))
           (call $model.encode (local.get $model) (i32.const 1200000) (i32.const 1048576) (global.get $R)) {FAILED} (br $l))
         unreachable"
    );
    alone(ground, &body, "")
}
