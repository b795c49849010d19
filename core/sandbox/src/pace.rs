//! How a tenant's programs have thought lately, over all its runs: a new request is no clean slate.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Thinking that may hold a step up.
const QUICK: Duration = Duration::from_micros(250);

/// After slow thinking so many times none on a step's threads; twice as many the next time, up to the most. Every eighth
/// quick one takes one off again, so that a hiccup in a thousand, as a busy machine has them, costs little, and whoever
/// is slow as often as they may be holds fewer and fewer steps up.
const OFF: u32 = 16;
const MOST_OFF: u32 = 1 << 16;

/// What a tenant's programs may compute on threads of their own before they get the time alone that nobody else wants: this
/// much at once, and this part of the time. Starting and ending runs counts, so that whoever starts one after the other has
/// no more of it.
const BURST: Duration = Duration::from_millis(100);
const SHARE: u32 = 10;

/// A tenant's pace.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many more times its programs do not think on a step's threads.
    off: AtomicU32,
    /// Eighths of how often they will not after they were slow once more.
    next: AtomicU32,
    /// What was computed beyond the tenant's part, as of then.
    debt: Mutex<Option<(Duration, Instant)>>,
}

impl Pace {
    /// Takes note of thinking between two forwards that took so long.
    pub(crate) fn thought(&self, took: Duration) {
        if took > QUICK {
            let next = self.next.load(Ordering::Relaxed).max(8 * OFF);
            self.off.store(next / 8, Ordering::Relaxed);
            self.next.store((2 * next).min(8 * MOST_OFF), Ordering::Relaxed);
            return;
        }
        // Several may do this at once; that none is lost does not matter.
        let less = |count: &AtomicU32| {
            let now = count.load(Ordering::Relaxed);
            if now > 0 {
                count.store(now - 1, Ordering::Relaxed);
            }
        };
        less(&self.off);
        less(&self.next);
    }

    /// Takes note of time that was computed on other threads than a step's.
    pub(crate) fn spent(&self, time: Duration) {
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        let left = debt.map_or(Duration::ZERO, |(debt, then)| debt.saturating_sub(then.elapsed() / SHARE));
        *debt = Some((left + time, Instant::now()));
    }

    /// Whether its programs may think on a step's threads.
    pub(crate) fn is_quick(&self) -> bool {
        self.off.load(Ordering::Relaxed) == 0
    }

    /// Whether it has computed more than its part.
    pub(crate) fn is_greedy(&self) -> bool {
        let debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        debt.is_some_and(|(debt, then)| debt.saturating_sub(then.elapsed() / SHARE) > BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_slow_again_and_again_is_off_for_longer_and_longer() {
        let pace = Pace::default();
        assert!(pace.is_quick());
        let mut waits = Vec::new();
        for _ in 0..6 {
            pace.thought(QUICK * 2);
            let mut quick = 0u32;
            while !pace.is_quick() {
                pace.thought(QUICK / 2);
                quick += 1;
            }
            waits.push(quick);
        }
        assert_eq!(waits[0], OFF);
        assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2), "{waits:?}");
        // A hiccup in two thousand is forgotten before the next.
        let pace = Pace::default();
        for _ in 0..10 {
            pace.thought(QUICK * 2);
            (0..2000).for_each(|_| pace.thought(QUICK / 2));
            assert!(pace.is_quick());
        }
    }

    #[test]
    fn what_one_request_computed_counts_for_the_next() {
        let pace = Pace::default();
        pace.spent(BURST / 2);
        assert!(!pace.is_greedy());
        // However little each run computes.
        (0..1000).for_each(|_| pace.spent(BURST / 1000));
        assert!(pace.is_greedy());
        assert!(pace.is_quick());
    }
}
