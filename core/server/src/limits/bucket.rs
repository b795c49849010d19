//! A bucket that fills continuously, in exact integers.

use std::time::{Duration, Instant};

/// Units of a token: those that a rate of one token a minute adds in that time, counted by the nanosecond. A
/// bucket in these units neither loses nor invents anything by rounding.
const UNITS: u128 = 60_000_000_000;

/// A bucket that holds a minute's worth and starts full.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_minute: u64,
    level: u128,
    at: Instant,
}

/// The reason why a bucket does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// There will be enough after this time.
    For(Duration),
    /// The bucket never holds that many.
    Ever,
}

impl Bucket {
    pub(crate) fn new(per_minute: u64, now: Instant) -> Self {
        Self { per_minute, level: u128::from(per_minute) * UNITS, at: now }
    }

    fn capacity(&self) -> u128 {
        u128::from(self.per_minute) * UNITS
    }

    fn fill(&mut self, now: Instant) {
        let added = u128::from(self.per_minute) * now.saturating_duration_since(self.at).as_nanos();
        self.level = (self.level + added).min(self.capacity());
        self.at = self.at.max(now);
    }

    /// Returns whether `amount` can be taken now.
    pub(crate) fn check(&mut self, amount: u64, now: Instant) -> Result<(), Lack> {
        self.fill(now);
        let wanted = u128::from(amount) * UNITS;
        if wanted > self.capacity() {
            return Err(Lack::Ever);
        }
        match wanted.checked_sub(self.level).filter(|&lacking| lacking > 0) {
            None => Ok(()),
            Some(lacking) => {
                let nanos = lacking.div_ceil(u128::from(self.per_minute));
                Err(Lack::For(Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))))
            }
        }
    }

    /// Takes what [`check`](Self::check) has just found there.
    pub(crate) fn take(&mut self, amount: u64) {
        self.level = self.level.saturating_sub(u128::from(amount) * UNITS);
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give(&mut self, amount: u64, now: Instant) {
        self.fill(now);
        self.level = (self.level + u128::from(amount) * UNITS).min(self.capacity());
    }

    pub(crate) fn per_minute(&self) -> u64 {
        self.per_minute
    }

    /// Returns what is left now, and the time until the bucket is full.
    pub(crate) fn left(&mut self, now: Instant) -> (u64, Duration) {
        self.fill(now);
        let nanos = (self.capacity() - self.level).div_ceil(u128::from(self.per_minute.max(1)));
        let left = u64::try_from(self.level / UNITS).unwrap_or(u64::MAX);
        (left, Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX)))
    }

    /// Changes the rate. What was used stays used.
    pub(crate) fn set_rate(&mut self, per_minute: u64, now: Instant) {
        self.fill(now);
        let used = self.capacity() - self.level;
        self.per_minute = per_minute;
        self.level = self.capacity().saturating_sub(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_gives_the_rate_and_not_a_token_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(7, start);
        let mut taken = 0;
        // Odd steps, so that every rounding would add up.
        for step in 0..600_000u64 {
            let now = start + Duration::from_nanos(step * 100_003);
            if bucket.check(1, now).is_ok() {
                bucket.take(1);
                taken += 1;
            }
        }
        // 60 s and a little: the full bucket, and what came in that time.
        assert_eq!(taken, 7 + 7);
    }

    #[test]
    fn what_is_lacking_is_there_after_the_time_that_is_said() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        assert_eq!(bucket.check(101, start), Err(Lack::Ever));
        assert_eq!(bucket.check(100, start), Ok(()));
        bucket.take(100);
        let Err(Lack::For(wait)) = bucket.check(10, start) else { panic!("there is nothing") };
        assert_eq!(wait, Duration::from_secs(6));
        assert!(bucket.check(10, start + wait - Duration::from_nanos(1)).is_err());
        assert_eq!(bucket.check(10, start + wait), Ok(()));
    }

    #[test]
    fn what_is_given_back_never_exceeds_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        bucket.take(50);
        bucket.give(30, start);
        assert_eq!(bucket.left(start).0, 80);
        bucket.give(1_000, start);
        assert_eq!(bucket.left(start), (100, Duration::ZERO));
        bucket.take(60);
        bucket.set_rate(50, start);
        assert_eq!(bucket.left(start).0, 0);
    }
}
