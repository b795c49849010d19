//! Distributions of measured values: one writer that never waits, and readers that copy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A distribution of measured values, counted by ranges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// For each range, its inclusive upper bound and the number of values in it. The last bound is infinite.
    /// Empty before the first measurement.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    /// The number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The mean of the values; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum / count as f64)
    }

    /// The value that a fraction `q` of all values, from 0 to 1, does not exceed. It is an estimate that
    /// takes values to be spread evenly over their range. `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let wanted = q.clamp(0.0, 1.0) * count as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for &(upper, count) in &self.buckets {
            let count = count as f64;
            if count > 0.0 && below + count >= wanted {
                // Only the lower bound of the last range is known.
                let width = if upper.is_finite() { upper - lower } else { 0.0 };
                return Some(lower + width * (wanted - below) / count);
            }
            (below, lower) = (below + count, upper);
        }
        None
    }

    /// Adds the counts of another histogram with the same ranges.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            self.buckets.iter_mut().zip(&other.buckets).for_each(|(a, b)| a.1 += b.1);
        }
        self.sum += other.sum;
    }

    /// Returns the counts since an earlier reading of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut this = self.clone();
        this.buckets.iter_mut().zip(&earlier.buckets).for_each(|(a, b)| a.1 = a.1.saturating_sub(b.1));
        this.sum -= earlier.sum;
        this
    }
}

/// The atomic counters that a [`Histogram`] is read from.
#[derive(Debug)]
pub(super) struct Recorder {
    bounds: &'static [u64],
    /// One more than `bounds`.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// The divisor from recorded to shown values.
    scale: f64,
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// In nanoseconds: from a fast step to a minute in a queue, finest in the range that people notice.
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

    /// Creates a recorder of durations, which readers see in seconds.
    pub(super) fn times() -> Self {
        Self::new(&TIMES, SECOND as f64)
    }

    /// Creates a recorder of counts.
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
        // Above a minute, only the lower bound is known.
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
