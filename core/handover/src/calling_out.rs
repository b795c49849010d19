//! Where code that is not Realm's runs on a thread that serves everyone.
#![allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no constants")]

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

crate::sync::thread_local! {
    /// How many calls of [`call_out`] this thread is in.
    static DEPTH: Cell<usize> = Cell::new(0);
}

/// Counts down, also where a panic unwinds.
struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Runs foreign code: a waker, a callback, or a destructor that may be either. Returns `None` if it panicked; the panic hook
/// has reported that. No lock may be held.
pub fn call_out<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let entered = Entered;
    let result = std::panic::catch_unwind(AssertUnwindSafe(foreign));
    drop(entered);
    match result {
        Ok(value) => Some(value),
        Err(payload) => {
            // Its destructor is foreign, too, and could panic again.
            std::mem::forget(payload);
            None
        }
    }
}

/// Whether this thread runs foreign code inside [`call_out`]. It may then be the engine's thread or one that the engine waits
/// for, so a destructor must not join threads.
pub fn is_calling_out() -> bool {
    DEPTH.with(|depth| depth.get() > 0)
}
