//! The values behind programs' handles.

use realm_engine::{Grammar, MemoryKind};

use super::{Bench, Case, Held, RUNS, TOUCH, WAIT, WORDS, repeat, waits};
use crate::guest::program;
use crate::host::Host;

pub(super) const CASES: &[Case] = &[
    Case { name: "logits", model: Host::smollm2, times: [300, 3_000], take: logits },
    Case { name: "samplers that observe", model: Host::smollm2, times: [1_000, 10_000], take: samplers },
    Case { name: "matchers", model: Host::smollm2, times: [3_000, 30_000], take: matchers },
    Case {
        name: "matchers in the middle of a text",
        model: Host::smollm2,
        times: [100, 1_000],
        take: far_matchers,
    },
    Case { name: "sets of tokens", model: Host::smollm2, times: [10_000, 50_000], take: token_sets },
    Case { name: "text decoders", model: Host::smollm2, times: [1_000, 10_000], take: decoders },
    Case { name: "sequences of a program", model: Host::smollm2, times: [60_000, 200_000], take: sequences },
    Case { name: "tensors", model: Host::smollm2, times: [1_000, 10_000], take: tensors },
];

/// Opens a sequence, computes one token's logits and leaves their handle in `$t`.
const FORWARD: &str = "(local.set $model (call $model.current))
    (call $sequence.open (local.get $model) (global.get $R)) (local.set $h (call $got))
    (i32.store (i32.const 4096) (i32.const 5))
    (call $sequence.append (local.get $h) (i32.const 4096) (i32.const 1) (global.get $R))
    (call $sequence.forward (local.get $h) (global.get $R)) (local.set $t (call $got))";

/// The arguments of `sampler.open`, from `9216` on: the model and, after padding, since a seed has 8 bytes,
/// `sampling`: temperature 1, top-k 0, top-p 1, min-p 0, typical-p 1, and a penalty, over everything.
pub(crate) const SAMPLING: &str = "(i32.store (i32.const 9216) (local.get $model))
    (f32.store (i32.const 9224) (f32.const 1)) (i32.store (i32.const 9228) (i32.const 0))
    (f32.store (i32.const 9232) (f32.const 1)) (f32.store (i32.const 9236) (f32.const 0))
    (f32.store (i32.const 9240) (f32.const 1)) (f32.store (i32.const 9244) (f32.const 1.5))
    (i32.store (i32.const 9248) (i32.const -1)) (f32.store (i32.const 9252) (f32.const 0))
    (f32.store (i32.const 9256) (f32.const 0))";

/// Starts runs that do `step` `n` times together, each with its model in `$model`, and then `after`.
fn runs(bench: &Bench, before: &str, step: &str, after: &str, n: usize, data: &str) -> Held {
    let steps = repeat(step, n.div_ceil(RUNS));
    let model = "(local.set $model (call $model.current))";
    let body = format!("{TOUCH} {model} {before} {steps} {after} {WAIT} (global.get $OK)");
    let held = bench.start(&program(&body, &format!("{WORDS} {data}")), RUNS);
    bench.catch_up();
    Box::new(held)
}

fn logits(bench: &Bench, n: usize) -> Held {
    let copies = repeat("(call $logits.copy (local.get $t) (global.get $R))", n);
    Box::new(bench.start(&waits(&format!("{FORWARD} {copies}")), 1))
}

fn samplers(bench: &Bench, n: usize) -> Held {
    let step = "(call $sampler.open (i32.const 9216) (global.get $R)) (local.set $s (call $got))
        (local.set $h (i32.const 0))
        (loop $observe (call $sampler.observe (local.get $s) (local.get $h))
          (br_if $observe (i32.lt_u (local.tee $h (i32.add (local.get $h) (i32.const 1))) (i32.const 1000))))";
    runs(bench, SAMPLING, step, "", n, "")
}

const OPEN: &str =
    "(call $matcher.open (local.get $model) (i32.const 2) (i32.const 8300) (i32.const 12) (global.get $R))";

fn matchers(bench: &Bench, n: usize) -> Held {
    runs(bench, "", OPEN, "", n, r#"(data (i32.const 8300) "[a-z]{1,3}, x")"#)
}

/// Each matcher has read 2,500 tokens of JSON, each of which is a lexeme and has a place in the grammar.
/// Measured by the matcher's own count.
fn far_matchers(bench: &Bench, n: usize) -> Held {
    let text = format!("{{\"a\":[{}", "1, \"b\", null, ".repeat(1000));
    let tokens = bench.host.model.tokenizer.encode(&text, false, false);
    let one = |_| {
        let mut guide = bench.host.model.engine.guide(&bench.who.tenant, &Grammar::JsonObject).unwrap();
        tokens[..2500].iter().for_each(|&token| guide.accept(token).unwrap());
        let mut charge = bench.who.tenant.memory().open(MemoryKind::Handles);
        charge.add(guide.memory());
        (guide, charge)
    };
    Box::new((0..n).map(one).collect::<Vec<_>>())
}

fn token_sets(bench: &Bench, n: usize) -> Held {
    let step = "(call $token-set.of (local.get $model) (i32.const 70000) (i32.const 4) (global.get $R))";
    runs(bench, "", step, "", n, "")
}

/// Each decoder has a stop string of 1,500 bytes.
fn decoders(bench: &Bench, n: usize) -> Held {
    let step = "(drop (call $text-decoder.new (local.get $model) (i32.const 4096) (i32.const 1)))
        (i32.store8 (global.get $R) (i32.const 0))";
    let list = "(i32.store (i32.const 4096) (i32.const 70000)) (i32.store (i32.const 4100) (i32.const 1500))
        (memory.fill (i32.const 70000) (i32.const 97) (i32.const 1500))";
    runs(bench, list, step, "", n, "")
}

fn sequences(bench: &Bench, n: usize) -> Held {
    runs(bench, "", "(call $sequence.open (local.get $model) (global.get $R))", "", n, "")
}

fn tensors(bench: &Bench, n: usize) -> Held {
    let step = "(call $embed (local.get $model) (i32.const 70000) (i32.const 30) (global.get $R))";
    // They all exist once the last one can be read.
    runs(bench, "", step, "(call $tensor.read (call $got) (global.get $R))", n, "")
}
