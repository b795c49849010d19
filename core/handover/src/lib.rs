//! Passes results from a thread that serves all tenants to readers that may leave at any time.
//!
//! ```
//! let (send, receive) = realm_handover::channel(8); // items
//! std::thread::spawn(move || {
//!     for number in 0..3 {
//!         send.try_send(number).unwrap();
//!     }
//! });
//! let received: Vec<u32> = std::iter::from_fn(|| receive.recv_blocking()).collect();
//! assert_eq!(received, [0, 1, 2]);
//! ```
//!
//! The engine's thread sends. A reader may be anything: a blocked thread, a task of some executor, an event
//! loop of Python or Node. The wakers of readers are foreign code, and so are their destructors. Three rules
//! keep that code from stopping the sender:
//!
//! 1. **No lock is held while foreign code runs.** Wakers are taken out of their list first
//!    ([`Wakers::wake_all`]), and are cloned and dropped outside of every lock.
//! 2. **A waker does not own what it wakes.** A [`Shared`] generation gives its source a waker that holds
//!    only the list of waiting readers. Handles alone own the source, so dropping the last one ends it at
//!    once, on the thread that drops it.
//! 3. **Foreign code cannot end the sender.** [`call_out`] contains its panics, and [`is_calling_out`] tells
//!    destructors that this thread must not wait for a thread that may be waiting for it.
//!
//! - [`channel`]: a bounded channel with one sender, whose reader may be a thread or a task.
//! - [`Shared`]: a stream with several readers.
//! - [`block_on`]: waits for a future on this thread.
//!
//! `model/` compiles these files against loom's primitives, and checks every interleaving of small programs.
#![forbid(unsafe_code)]

mod block_on;
mod calling_out;
mod channel;
mod shared;
mod sync;
mod wakers;

pub use block_on::block_on;
pub use calling_out::{call_out, is_calling_out};
pub use channel::{Closed, Receiver, Sender, TryRecvError, TrySendError, channel, unbounded};
pub use shared::{Shared, Source};
pub use wakers::{Ticket, Until, Wakers};

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wake_during_a_call_that_blocks_is_not_lost() {
        let (send, receive) = channel(1);
        let ready = block_on(async move {
            let mut receive = pin!(receive.recv());
            let mut polls = 0;
            std::future::poll_fn(move |context| {
                let next = receive.as_mut().poll(context);
                polls += 1;
                // The first poll has no waker to be woken by.
                if next.is_pending() && polls == 2 {
                    send.try_send(7).unwrap();
                    // Uses up the thread's token, as any other blocking call does.
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                next
            })
            .await
        });
        assert_eq!(ready, Some(7));
    }

    #[test]
    fn a_panic_of_foreign_code_is_contained_and_the_thread_knows_when_it_is_outside() {
        assert!(!is_calling_out());
        assert_eq!(call_out(is_calling_out), Some(true));
        assert_eq!(call_out(|| call_out(|| panic!("expected by this test"))), Some(None::<()>));
        assert!(!is_calling_out());
    }
}
