//! Layerwise calls with tensors, layers and caches that do not fit each other.

use std::time::Duration;

use realm_sandbox::ErrorKind;

use crate::ended;
use crate::guest::program;
use crate::host::{Host, anybody, with};

/// A program with a model, four embedded tokens `$t` and layer 0 `$h`, that ends with the result of `call`.
fn with_tensor(call: &str) -> Vec<u8> {
    program(
        &format!(
            "(local.set $model (call $model.current))
             (i32.store (i32.const 4096) (i32.const 1)) (i32.store (i32.const 4100) (i32.const 2))
             (call $embed (local.get $model) (i32.const 4096) (i32.const 4) (global.get $R))
             (local.set $t (call $got))
             (call $load-layer (local.get $model) (i32.const 0) (global.get $R))
             (local.set $h (call $got))
             {call}
             (if (call $failed) (then (return (global.get $R)))) (global.get $OK)"
        ),
        r#"(data (i32.const 8192) "output.weight") (data (i32.const 8220) "no.such.weight") (data (i32.const 8240) "token_embd.weight")"#,
    )
}

#[test]
fn pieces_that_do_not_fit_are_refused() {
    let host = Host::tiny();
    let narrow = "(call $tensor.from-values (local.get $model) (i32.const 1) (i32.const 3) (i32.const 0) (i32.const 3) (global.get $R))";
    let cache = |tokens: &str| {
        format!("(call $kv-cache.open (local.get $model) (i32.const {tokens}) (global.get $R))")
    };
    use ErrorKind::{InvalidArgument, LimitExceeded, NotFound};
    let tries = [
        (InvalidArgument, format!("{narrow} (call $layer.feed-forward (local.get $h) (call $got) (global.get $R))")),
        (InvalidArgument, format!("{narrow} (call $lm-head (call $got) (global.get $R))")),
        (InvalidArgument, format!("{narrow} (call $tensor.add (local.get $t) (call $got) (f32.const 1) (global.get $R))")),
        (InvalidArgument, format!("{narrow} (call $matmul (call $got) (i32.const 8240) (i32.const 17) (global.get $R))")),
        (InvalidArgument, "(call $tensor.from-values (local.get $model) (i32.const 2) (i32.const 3) (i32.const 0) (i32.const 7) (global.get $R))".into()),
        (InvalidArgument, "(call $tensor.from-values (local.get $model) (i32.const 65536) (i32.const 65536) (i32.const 0) (i32.const 0) (global.get $R))".into()),
        (InvalidArgument, "(call $tensor.from-values (local.get $model) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $R))".into()),
        (InvalidArgument, "(i32.store (i32.const 4096) (i32.const 4)) (call $tensor.gather (local.get $t) (i32.const 4096) (i32.const 1) (global.get $R))".into()),
        (InvalidArgument, "(call $tensor.gather (local.get $t) (i32.const 4200) (i32.const 5000) (global.get $R))".into()),
        (InvalidArgument, "(i32.store (i32.const 4096) (i32.const -1)) (call $embed (local.get $model) (i32.const 4096) (i32.const 1) (global.get $R))".into()),
        (InvalidArgument, "(call $embed (local.get $model) (i32.const 4096) (i32.const 0) (global.get $R))".into()),
        (NotFound, "(call $matmul (local.get $t) (i32.const 8220) (i32.const 14) (global.get $R))".into()),
        (NotFound, "(call $load-layer (local.get $model) (i32.const 1000) (global.get $R))".into()),
        (LimitExceeded, cache("0")),
        (LimitExceeded, cache("-1")),
        // Four rows for a cache of three.
        (LimitExceeded, format!("{} (call $layer.attention-forward (local.get $h) (local.get $t) (call $got) (global.get $R))", cache("3"))),
    ];
    for (kind, call) in tries {
        let error = host.run(&with_tensor(&call), &anybody()).expect_err(&call);
        assert_eq!(error.kind(), kind, "{call}: {error}");
    }
    // A fitting call succeeds.
    let call = format!(
        "{} (call $layer.attention-forward (local.get $h) (local.get $t) (call $got) (global.get $R))",
        cache("4")
    );
    host.run(&with_tensor(&call), &anybody()).unwrap();
}

#[test]
fn operations_without_end_reach_a_limit() {
    let host = Host::tiny();
    // Kept tensors run out of memory or handles.
    let keeps = "(loop $l (call $layer.feed-forward (local.get $h) (local.get $t) (global.get $R)) (br_if $l (i32.eqz (call $failed))))";
    ended(host.run(&with_tensor(keeps), &anybody()), ErrorKind::LimitExceeded, "");
    // Dropped tensors allow thousands of operations, until the request's time is over.
    let drops = "(loop $l (call $layer.feed-forward (local.get $h) (local.get $t) (global.get $R)) (call $tensor.drop (call $got)) (br $l))";
    let who = with(|limits| {
        limits.request_timeout = Some(Duration::from_millis(500));
        limits.program.cpu_time = Duration::from_secs(60);
    });
    ended(host.run(&with_tensor(drops), &who), ErrorKind::LimitExceeded, "request_timeout");
    let adds = "(loop $l (call $tensor.add (local.get $t) (local.get $t) (f32.const 1) (global.get $R)) (br_if $l (i32.eqz (call $failed))))";
    let who = with(|limits| limits.request_timeout = Some(Duration::from_millis(500)));
    let error = host.run(&with_tensor(adds), &who).expect_err("it never ends itself");
    assert!(matches!(error.kind(), ErrorKind::LimitExceeded | ErrorKind::InvalidArgument), "{error}");
    // The engine still works.
    host.run(&crate::guest::greedy(5, 4), &anybody()).unwrap();
}
