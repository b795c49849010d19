//! Calls of foreign code on a thread that serves all tenants.
#![allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no constants")]

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

crate::sync::thread_local! {
    /// The number of nested calls of [`call_out`] on this thread.
    static DEPTH: Cell<usize> = Cell::new(0);
}

/// Counts down when dropped, even if a panic unwinds.
struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Runs foreign code: a waker, a callback, or a destructor that may call one. Returns `None` if the code
/// panicked; the panic hook has then reported it. The caller must not hold a lock.
pub fn call_out<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let entered = Entered;
    let result = std::panic::catch_unwind(AssertUnwindSafe(foreign));
    drop(entered);
    match result {
        Ok(value) => Some(value),
        Err(payload) => {
            // The payload's destructor is foreign code, too, and could panic again.
            std::mem::forget(payload);
            None
        }
    }
}

/// Returns whether this thread runs foreign code inside [`call_out`]. The thread may then be the engine's, or
/// one that the engine waits for, so a destructor must not join threads.
pub fn is_calling_out() -> bool {
    DEPTH.with(|depth| depth.get() > 0)
}
