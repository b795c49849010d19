//! Pages of the KV cache that other sequences used before.

use crate::guest::{greedy, program};
use crate::host::{Host, anybody, finish};

/// Sends the bits of attention's output over a new cache for four tokens, twice over, as if they were token
/// ids.
fn attends() -> Vec<u8> {
    let attend = "(call $embed (local.get $model) (i32.const 4096) (i32.const 4) (global.get $R)) (local.set $t (call $got))
         (call $layer.attention-forward (local.get $h) (local.get $t) (local.get $s) (global.get $R))
         (local.set $t (call $got))
         (call $tensor.read (local.get $t) (global.get $R))
         (call $emit (i32.const 0) (i32.const 0) (call $got) (i32.load offset=8 (global.get $R)) (global.get $R))";
    program(
        &format!(
            "(local.set $model (call $model.current))
             (i32.store (i32.const 4096) (i32.const 1)) (i32.store (i32.const 4100) (i32.const 2))
             (call $load-layer (local.get $model) (i32.const 0) (global.get $R)) (local.set $h (call $got))
             (call $kv-cache.open (local.get $model) (i32.const 300) (global.get $R)) (local.set $s (call $got))
             {attend} {attend} (global.get $OK)"
        ),
        "",
    )
}

/// Regardless of the pages' earlier contents, programs compute the same bits as on an unused host, and no
/// tenant's prompt shows in another tenant's answer.
#[test]
fn what_others_kept_in_pages_shows_nowhere() {
    let (attends, writes) = (attends(), greedy(3, 40));
    let fresh = Host::tiny();
    let expected = fresh.run(&attends, &anybody()).unwrap().tokens;
    let text = Host::tiny().run(&writes, &anybody()).unwrap().tokens;
    assert!(expected.len() > 100 && text.len() == 40);

    let host = Host::tiny();
    let (attends, writes) = (host.compile(&attends), host.compile(&writes));
    for round in 0..4 {
        // Other tenants' tokens fill pages and are freed; some runs are cancelled.
        let others: Vec<_> = (0..24).map(|i| host.compile(&greedy(10 + 7 * i + round, 200))).collect();
        let running: Vec<_> = others.iter().map(|other| host.start(other, &anybody()).unwrap()).collect();
        let mut running = running.into_iter();
        running.by_ref().take(12).for_each(|reply| drop(finish(reply)));
        drop(running);
        host.settle();
        assert_eq!(finish(host.start(&attends, &anybody()).unwrap()).unwrap().tokens, expected);
        assert_eq!(finish(host.start(&writes, &anybody()).unwrap()).unwrap().tokens, text);
    }
}
