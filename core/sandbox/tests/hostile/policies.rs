//! Policies that trap, lie or take too long.

use std::time::Duration;

use realm_engine::FinishReason;
use realm_sandbox::ErrorKind;

use crate::ended;
use crate::guest::policy;
use crate::host::{Host, anybody, with};

/// An `observe` that sends nothing, and a `sample` that leaves the choice to Realm: it drops the borrowed
/// handle.
const NOTHING: &str = "(global.get $OK)";
const LEAVES: &str = "(call $logits.drop (local.get $logits)) (global.get $OK)";

#[test]
fn a_trap_inside_a_hook_is_the_requests_own_end() {
    let host = Host::tiny();
    ended(host.run(&policy("unreachable", NOTHING), &anybody()), ErrorKind::Trap, "unreachable");
    ended(host.run(&policy(LEAVES, "unreachable"), &anybody()), ErrorKind::Trap, "unreachable");
    // A borrowed handle must be dropped.
    ended(host.run(&policy(NOTHING, NOTHING), &anybody()), ErrorKind::Trap, "borrow");
    // A token outside the vocabulary.
    let token = |token: &str| {
        policy(
            &format!(
                "(call $logits.drop (local.get $logits)) (i32.store8 (i32.const 3072) (i32.const 0)) (i32.store8 (i32.const 3076) (i32.const 1))
                 (i32.store (i32.const 3080) (i32.const {token})) (i32.const 3072)"
            ),
            NOTHING,
        )
    };
    for wrong in ["-1", "100000"] {
        ended(host.run(&token(wrong), &anybody()), ErrorKind::InvalidArgument, "chose token");
    }
    assert_eq!(host.run(&token("5"), &anybody()).unwrap().tokens, [5; 8]);
    // Logits that allow no token.
    let writes = "(local.set $i (i32.const 131072)) (drop (memory.grow (i32.const 8)))
        (loop $l (f32.store (local.get $i) (f32.const -inf))
          (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 640000))))
        (call $logits.read (local.get $logits) (i32.const 1024))
        (call $logits.write (local.get $logits) (i32.const 131072) (i32.load (i32.const 1028)) (global.get $R))
        (call $logits.drop (local.get $logits)) (global.get $OK)";
    // With no token left to choose, the built-in sampling still ends.
    let _ = host.run(&policy(writes, NOTHING), &anybody());
    // As many handles as possible: the next hook's logits take the place of this one's.
    let hoards = "(loop $l (call $logits.copy (local.get $logits) (global.get $R)) (br_if $l (i32.eqz (call $failed))))
        (call $logits.drop (local.get $logits)) (global.get $OK)";
    assert_eq!(host.run(&policy(hoards, NOTHING), &anybody()).unwrap().reason, FinishReason::Length);
}

#[test]
fn text_of_a_hook_counts_as_output() {
    let host = Host::tiny();
    let says = "(i32.store8 (i32.const 3072) (i32.const 0)) (i32.store (i32.const 3076) (i32.const 8192)) (i32.store (i32.const 3080) (i32.const 50000))
        (i32.store8 (i32.const 3084) (i32.const 0)) (i32.const 3072)";
    let chatty = policy(LEAVES, says);
    let who =
        with(|limits| (limits.program.output, limits.program.cpu_time) = (100_000, Duration::from_secs(5)));
    ended(host.run(&chatty, &who), ErrorKind::LimitExceeded, "program.output");
}
