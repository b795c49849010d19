//! Waits for a future on a thread.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::{AtomicBool, Thread, current, park};

/// Wakes a thread, and records that it did.
struct Unpark {
    thread: Thread,
    /// A flag besides the thread's own token, which any blocking call within the future may use up.
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        // Equivalent to a store, except that loom orders it with the other swap.
        self.woken.swap(true, Ordering::AcqRel);
        self.thread.unpark();
    }
}

/// Waits for a future, which may itself block this thread while it is polled. Blocks this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    // A value that is ready needs no waker.
    if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return value;
    }
    let unpark = std::sync::Arc::new(Unpark { thread: current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(std::sync::Arc::clone(&unpark));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => {
                while !unpark.woken.swap(false, Ordering::AcqRel) {
                    park();
                }
            }
        }
    }
}
