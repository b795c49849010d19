//! Eight well-behaved tenants beside a dozen attackers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use realm_engine::Sampling;
use realm_sandbox::Grants;

use crate::guest::{greedy, policy, program};
use crate::host::{Host, Said, anybody, finish, with};

/// Four tenants with Realm's own generation and four with a program, at once.
fn eight(host: &Host, programs: &[realm_sandbox::Program]) -> Vec<Vec<u32>> {
    let generations: Vec<_> = (0..4u32)
        .map(|i| {
            let request = realm_engine::Request {
                prompt: vec![10 + i, 7, 10 + i],
                sampling: Sampling::greedy(),
                max_tokens: Some(24),
                ignore_eos: true,
                ..realm_engine::Request::default()
            };
            host.model.engine.generate(&anybody().tenant, request).unwrap()
        })
        .collect();
    let replies: Vec<_> = programs.iter().map(|program| host.start(program, &anybody()).unwrap()).collect();
    let told = replies.into_iter().map(|reply| finish(reply).unwrap()).map(|said: Said| said.tokens);
    let told: Vec<_> = told.collect();
    let generated = generations.into_iter().map(|generation| {
        generation.flat_map(|chunk| chunk.unwrap().tokens.into_iter().map(|token| token.id)).collect()
    });
    generated.chain(told).collect()
}

#[test]
fn eight_tenants_get_the_same_text_beside_attackers() {
    let host = Host::smollm2();
    let programs: Vec<_> = (0..4).map(|i| host.compile(&greedy(10 + i, 24))).collect();
    let alone = eight(&host, &programs);
    // A program's greedy text is the same as the built-in one.
    assert_eq!(alone[..4], alone[4..]);
    let attackers: Vec<_> = attacks().iter().map(|wasm| host.compile(wasm)).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for attacker in &attackers {
            let (host, over) = (&host, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let never = Grants::none().tool_async("wait", |_| std::future::pending());
                    let who = with(|limits| {
                        limits.program.cpu_time = Duration::from_millis(500);
                        limits.request_timeout = Some(Duration::from_secs(2));
                    });
                    let reply = host.start(attacker, &who.granted(never)).unwrap();
                    // Any end will do.
                    let _ = finish(reply);
                }
            });
        }
        let beside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..3 {
                assert_eq!(eight(&host, &programs), alone);
            }
        }));
        over.store(true, Ordering::Relaxed);
        beside.unwrap();
    });
}

/// One attacker of each kind.
pub(crate) fn attacks() -> Vec<Vec<u8>> {
    let data = r#"(data (i32.const 8192) "wait") (data (i32.const 8200) "{}") (data (i32.const 8208) "([a-z]+[0-9]*){1,40}x")"#;
    let bodies = [
        "(loop $l (br $l)) unreachable",
        "(call $run (local.get $request))",
        "(loop $l (call $model.drop (call $model.current)) (br $l)) unreachable",
        "(drop (memory.grow (i32.const 800))) (loop $l (memory.fill (i32.const 65536) (i32.const 1) (i32.const 50000000)) (br $l)) unreachable",
        "(loop $l (call $call (i32.const 8192) (i32.const 4) (i32.const 8200) (i32.const 2) (global.get $R)) (br $l)) unreachable",
        // Regular expressions, one after the other.
        "(local.set $model (call $model.current))
         (loop $l (call $token-set.matching (local.get $model) (i32.const 8208) (i32.const 21) (global.get $R)) (br $l)) unreachable",
        // Single tokens, one forward pass each.
        "(local.set $model (call $model.current)) (call $sequence.open (local.get $model) (global.get $R)) (local.set $h (call $got))
         (i32.store (i32.const 4096) (i32.const 1))
         (loop $l (call $sequence.append (local.get $h) (i32.const 4096) (i32.const 1) (global.get $R))
           (call $sequence.forward (local.get $h) (global.get $R)) (call $logits.drop (call $got)) (br $l)) unreachable",
        // Layers.
        "(local.set $model (call $model.current)) (i32.store (i32.const 4096) (i32.const 1))
         (call $embed (local.get $model) (i32.const 4096) (i32.const 1) (global.get $R)) (local.set $t (call $got))
         (call $load-layer (local.get $model) (i32.const 0) (global.get $R)) (local.set $h (call $got))
         (loop $l (call $layer.feed-forward (local.get $h) (local.get $t) (global.get $R)) (call $tensor.drop (call $got)) (br $l)) unreachable",
        "unreachable",
        "(loop $l (call $emit (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const 0) (global.get $R)) (br_if $l (i32.eqz (call $failed)))) (global.get $R)",
    ];
    let mut attacks: Vec<_> = bodies.iter().map(|body| program(body, data)).collect();
    attacks.push(policy("(loop $l (br $l)) unreachable", "unreachable"));
    attacks.push(policy("unreachable", "unreachable"));
    attacks
}
