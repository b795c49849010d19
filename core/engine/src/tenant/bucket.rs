//! The tokens that a tenant may compute per minute.

use std::time::{Duration, Instant};

/// A token bucket that holds one minute's worth. It may go below zero, since the cost of a step is known only
/// when it is done.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) tokens: f64,
    pub(super) at: Instant,
}

impl Bucket {
    fn refill(&mut self, per_minute: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * per_minute / 60.0).min(per_minute);
        self.at = self.at.max(now);
    }

    pub(super) fn charge(&mut self, tokens: f64, per_minute: f64, now: Instant) {
        self.refill(per_minute, now);
        self.tokens -= tokens;
    }

    pub(super) fn wait(&mut self, per_minute: f64, now: Instant) -> Duration {
        self.refill(per_minute, now);
        if self.tokens >= 1.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.tokens) / per_minute * 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_saves_up_a_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut bucket = Bucket { tokens: 600.0, at: start };
        bucket.charge(700.0, 600.0, at(0));
        assert_eq!(bucket.wait(600.0, at(0)), Duration::from_secs_f64(10.1));
        assert_eq!(bucket.wait(600.0, at(11)), Duration::ZERO);
        bucket.charge(0.0, 600.0, at(1000));
        assert_eq!(bucket.tokens, 600.0);
    }
}
