//! Malicious programs: each ends with an error of its own tenant's, in bounded time, and other tenants are
//! not affected.

#[allow(unreachable_pub, reason = "of this test")]
#[path = "../../../../tests/hostile/src/guest.rs"]
mod guest;
#[allow(unreachable_pub, reason = "of this test")]
mod host;

mod capabilities;
mod compile;
mod computing;
mod handles;
mod layers;
mod ledger;
mod lists;
mod memory;
mod neighbours;
mod network;
mod policies;
mod random;
mod recycled;
mod soak;
mod timers;
mod waiting;

use realm_sandbox::{Error, ErrorKind};

use host::Said;

/// Checks the error kind that a run ended with, and its message.
#[track_caller]
fn ended(run: Result<Said, Error>, kind: ErrorKind, words: &str) {
    let error = run.expect_err("it should have failed");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(words), "{error}");
}
