//! How often values fell into ranges: one writer that never waits, readers that copy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often values fell into ranges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// For each range its upper bound, which belongs to it, and how many values fell into it; the last bound is
    /// infinite. Empty if nothing was ever measured.
    pub buckets: Vec<(f64, u64)>,
    /// Of all values.
    pub sum: f64,
}

impl Histogram {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Their mean; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// The value that a part `q` of all values, from 0 to 1, do not exceed, as far as the ranges tell: values are taken
    /// to be spread evenly over their range. `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let wanted = q.clamp(0.0, 1.0) * count as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for &(upper, count) in &self.buckets {
            let count = count as f64;
            if count > 0.0 && below + count >= wanted {
                // Of the last range nothing but its lower bound is known.
                let width = if upper.is_finite() { upper - lower } else { 0.0 };
                return Some(lower + width * (wanted - below) / count);
            }
            (below, lower) = (below + count, upper);
        }
        None
    }

    /// Adds what another histogram of the same kind counted.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            self.buckets.iter_mut().zip(&other.buckets).for_each(|(a, b)| a.1 += b.1);
        }
        self.sum += other.sum;
    }

    /// What was counted since an earlier reading of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut this = self.clone();
        this.buckets.iter_mut().zip(&earlier.buckets).for_each(|(a, b)| a.1 = a.1.saturating_sub(b.1));
        this.sum -= earlier.sum;
        this
    }
}

/// What a [`Histogram`] is read from.
#[derive(Debug)]
pub(super) struct Recorder {
    bounds: &'static [u64],
    /// One more than bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// What a reader divides by.
    scale: f64,
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// In nanoseconds: from a fast step to a minute in a queue, finest where people notice.
const TIMES: [u64; 22] = [
    200 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2 * MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    15 * MILLISECOND,
    20 * MILLISECOND,
    30 * MILLISECOND,
    50 * MILLISECOND,
    75 * MILLISECOND,
    100 * MILLISECOND,
    150 * MILLISECOND,
    200 * MILLISECOND,
    300 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
];

const SIZES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

impl Recorder {
    fn new(bounds: &'static [u64], scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0), scale }
    }

    /// For durations; read in seconds.
    pub(super) fn times() -> Self {
        Self::new(&TIMES, SECOND as f64)
    }

    /// For numbers of things.
    pub(super) fn sizes() -> Self {
        Self::new(&SIZES, 1.0)
    }

    pub(super) fn record(&self, value: u64, times: u64) {
        let range = self.bounds.partition_point(|&bound| bound < value);
        self.counts[range].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Ordering::Relaxed);
    }

    pub(super) fn record_time(&self, time: Duration, times: u64) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), times);
    }

    pub(super) fn read(&self) -> Histogram {
        let bounds = self.bounds.iter().map(|&bound| bound as f64 / self.scale).chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.scale;
        Histogram { buckets: bounds.zip(counts).collect(), sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_in_their_range_and_quantiles_lie_in_it() {
        let recorder = Recorder::times();
        assert_eq!(recorder.read().quantile(0.5), None);
        for ms in [1, 12, 12, 12, 12, 12, 12, 12, 12, 120_000] {
            recorder.record_time(Duration::from_millis(ms), 1);
        }
        let read = recorder.read();
        assert_eq!((read.count(), read.buckets.iter().find(|b| b.0 == 0.001).unwrap().1), (10, 1));
        assert!((read.mean().unwrap() - 12.0097).abs() < 1e-9, "{:?}", read.mean());
        let median = read.quantile(0.5).unwrap();
        assert!((0.01..=0.015).contains(&median), "{median}");
        // More than a minute: nobody knows how much more.
        assert_eq!(read.quantile(1.0), Some(60.0));
    }

    #[test]
    fn readings_add_up_and_subtract() {
        let recorder = Recorder::sizes();
        recorder.record(16, 3);
        let first = recorder.read();
        recorder.record(2000, 1);
        let second = recorder.read();
        let between = second.since(&first);
        assert_eq!((between.count(), between.sum), (1, 2000.0));
        let mut both = Histogram::default();
        both.add(&first);
        both.add(&between);
        assert_eq!(both, second);
    }
}
