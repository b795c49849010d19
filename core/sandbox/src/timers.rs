//! Timers of programs that were not granted a clock.
//!
//! Such a program may wait, but must not measure how long anything else took: among many timers with
//! different ends, those that are over when a call returns would show it to the microsecond. Therefore the
//! program has a time of its own, which passes only while it waits for a timer, and by exactly the length of
//! that wait. A timer that the program does not wait for never ends, however long ago it was started, and
//! `now` stands still.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::Pollable;

/// The time of one program.
#[derive(Clone, Default)]
pub(crate) struct Timers(Arc<Mutex<Time>>);

#[derive(Default)]
struct Time {
    /// The nanoseconds that the program has waited for timers.
    waited: u64,
    /// Timers being waited for, in the order in which the waits began: their ends, and a number for each
    /// wait.
    waiting: Vec<(u64, u64)>,
    waits: u64,
}

impl Timers {
    fn time(&self) -> MutexGuard<'_, Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a timer that ends this many nanoseconds from now.
    pub(crate) fn start(&self, nanoseconds: u64) -> Timer {
        let end = self.time().waited.saturating_add(nanoseconds);
        Timer { timers: self.clone(), end, looked: nanoseconds > 0 }
    }
}

/// A timer.
pub(crate) struct Timer {
    timers: Timers,
    end: u64,
    /// True if a timer of length 0 has let sockets be checked once, as wasi-libc's `poll` needs it.
    looked: bool,
}

/// A wait for a timer.
struct Wait<'a> {
    timers: &'a Timers,
    number: u64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.timers.time().waiting.retain(|(_, number)| *number != self.number);
    }
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        let (wait, left) = {
            let mut time = self.timers.time();
            let left = self.end.saturating_sub(time.waited);
            if left == 0 && self.looked {
                return;
            }
            time.waits += 1;
            let number = time.waits;
            if left > 0 {
                time.waiting.push((self.end, number));
            }
            (Wait { timers: &self.timers, number }, left)
        };
        self.looked = true;
        // The answer to a single check must not depend on time.
        tokio::task::yield_now().await;
        if left == 0 {
            return;
        }
        let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::from_nanos(left)));
        std::future::poll_fn(|context| {
            let slept = sleep.as_mut().poll(context).is_ready();
            let mut time = wait.timers.time();
            // Of several timers, the one that ends first decides, and of equal ones the one that was waited
            // for first. So the set of timers that are over depends on their lengths alone, not on when this
            // thread was woken.
            let first = time.waiting.iter().copied().min();
            if slept && first == Some((self.end, wait.number)) {
                time.waited = time.waited.max(self.end);
            }
            if time.waited >= self.end {
                return std::task::Poll::Ready(());
            }
            if slept {
                // The timer that ends first is woken at least as early, and polled in the same round.
                context.waker().wake_by_ref();
            }
            std::task::Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn asks(timer: &mut Timer) -> bool {
        let ready = pin!(timer.ready());
        matches!(ready.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
    }

    #[tokio::test]
    async fn time_passes_only_while_a_timer_is_waited_for() {
        let timers = Timers::default();
        let mut some: Vec<Timer> = (1..=50).map(|i| timers.start(i * 100_000)).collect();
        std::thread::sleep(Duration::from_millis(20));
        assert!(some.iter_mut().all(|timer| !asks(timer)), "nothing waited");
        // A timer of length 0 is over at the second check.
        let mut none = timers.start(0);
        assert!(!asks(&mut none) && asks(&mut none));
        // A timer of 3 ms: those up to 3 ms are over, however long it really took.
        some[29].ready().await;
        std::thread::sleep(Duration::from_millis(20));
        let over = some.iter_mut().filter_map(|timer| asks(timer).then_some(())).count();
        assert_eq!(over, 30);
    }

    #[tokio::test]
    async fn of_several_those_that_end_first_are_over_however_late_it_is_noticed() {
        let timers = Timers::default();
        let lengths = [5_000_000, 2_000_000, 2_000_001, 2_000_000, 1 << 40];
        let mut some: Vec<Timer> = lengths.map(|length| timers.start(length)).into();
        let mut waits: Vec<_> = some.iter_mut().map(|timer| timer.ready()).collect();
        // As in `poll`, with pauses in which all but one have ended.
        let over = std::future::poll_fn(|context| {
            std::thread::sleep(Duration::from_millis(4));
            let over: Vec<bool> =
                waits.iter_mut().map(|wait| wait.as_mut().poll(context).is_ready()).collect();
            if over.contains(&true) { Poll::Ready(over) } else { Poll::Pending }
        })
        .await;
        assert_eq!(over, [false, true, false, true, false]);
    }
}
