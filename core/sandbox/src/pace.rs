//! The recent computing times of a tenant's programs, over all its runs: a new request does not reset them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest computing time that may delay a step.
const QUICK: Duration = Duration::from_micros(250);

/// After a slow turn, the next `OFF` turns do not run on a step's threads; after another slow turn, twice as
/// many, up to `MOST_OFF`. Every eighth fast turn takes one off again. So one slow turn in a thousand, as a
/// busy machine causes, costs little, and a tenant that is slow as often as it may be delays fewer and fewer
/// steps.
const OFF: u32 = 16;
const MOST_OFF: u32 = 1 << 16;

/// The computing time of a tenant's programs on other threads than a step's, before they get only time that
/// no other thread wants: this much at once, and this part of the time. Starting and ending runs counts, so
/// that a tenant gains nothing by starting one run after another.
const BURST: Duration = Duration::from_millis(100);
const SHARE: u32 = 10;

/// The pace of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The number of further turns that do not run on a step's threads.
    off: AtomicU32,
    /// Eighths of the number of such turns after the next slow one.
    next: AtomicU32,
    /// The computing time beyond the tenant's share, and the time at which that was so.
    debt: Mutex<Option<(Duration, Instant)>>,
}

impl Pace {
    /// Records a turn between two forward passes that took this long.
    pub(crate) fn record_turn(&self, took: Duration) {
        if took > QUICK {
            let next = self.next.load(Ordering::Relaxed).max(8 * OFF);
            self.off.store(next / 8, Ordering::Relaxed);
            self.next.store((2 * next).min(8 * MOST_OFF), Ordering::Relaxed);
            return;
        }
        // Concurrent calls may lose a count, which does not matter.
        let less = |count: &AtomicU32| {
            let now = count.load(Ordering::Relaxed);
            if now > 0 {
                count.store(now - 1, Ordering::Relaxed);
            }
        };
        less(&self.off);
        less(&self.next);
    }

    /// Records computing time on other threads than a step's.
    pub(crate) fn record_time(&self, time: Duration) {
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        let left = debt.map_or(Duration::ZERO, |(debt, then)| debt.saturating_sub(then.elapsed() / SHARE));
        *debt = Some((left + time, Instant::now()));
    }

    /// Returns whether the tenant's programs may run on a step's threads.
    pub(crate) fn is_quick(&self) -> bool {
        self.off.load(Ordering::Relaxed) == 0
    }

    /// Returns whether the tenant has computed more than its share.
    pub(crate) fn is_over_share(&self) -> bool {
        let debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        debt.is_some_and(|(debt, then)| debt.saturating_sub(then.elapsed() / SHARE) > BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_stays_slow_is_off_for_longer_and_longer() {
        let pace = Pace::default();
        assert!(pace.is_quick());
        let mut waits = Vec::new();
        for _ in 0..6 {
            pace.record_turn(QUICK * 2);
            let mut quick = 0u32;
            while !pace.is_quick() {
                pace.record_turn(QUICK / 2);
                quick += 1;
            }
            waits.push(quick);
        }
        assert_eq!(waits[0], OFF);
        assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2), "{waits:?}");
        // One slow turn in two thousand is forgotten before the next.
        let pace = Pace::default();
        for _ in 0..10 {
            pace.record_turn(QUICK * 2);
            (0..2000).for_each(|_| pace.record_turn(QUICK / 2));
            assert!(pace.is_quick());
        }
    }

    #[test]
    fn what_one_request_computed_counts_for_the_next() {
        let pace = Pace::default();
        pace.record_time(BURST / 2);
        assert!(!pace.is_over_share());
        // The time adds up, however little each run computes.
        (0..1000).for_each(|_| pace.record_time(BURST / 1000));
        assert!(pace.is_over_share());
        assert!(pace.is_quick());
    }
}
