//! How many rows of prompts a pass has, so that no pass takes long: whoever generates waits for a pass to end, and so does a
//! request that comes while it runs.
//!
//! Rows take more time the more tokens are before them, so chunks are bounded by time and not by their rows alone. The time of a row
//! is learnt from the passes so far, in the unit of [`work`](super::work), which counts what a row sees.

use super::work::Prices;
use crate::PassTimes;

/// Rows of a pass for prompts while it is not known how long rows take.
const UNKNOWN: usize = 32;
/// Passes with fewer rows of prompts say little about the time of a row.
const TELLING: f64 = 4.0;
/// How many times as long as without them prompts of other tenants make a pass at most, however much more they weigh.
const LONGEST: f64 = 4.0;
/// Rows that a pass has at least, however long they take: with fewer, reading the weights would take longer than computing.
const LEAST_BESIDE_OTHERS: usize = 8;
const LEAST_BESIDE_OWN: usize = 32;
const LEAST_ALONE: usize = 64;

/// Whom the prompts of a pass hold up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Beside {
    /// Those who may come.
    Nobody,
    /// Sequences of the same tenant.
    Own,
    /// Sequences of other tenants. The prompts' tenants weigh so many times as much as they do.
    Others(f64),
}

/// How long passes took so far.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// Seconds of a pass without rows of prompts.
    without: Option<f64>,
    /// Seconds that a row's work of prompts adds to a pass.
    row: Option<f64>,
}

/// What is left of a pass for prompts.
pub(super) struct Room {
    /// In rows' work.
    work: f64,
    least: usize,
}

impl Pacing {
    /// A pass took so many seconds, with sequences that generate in it or without, and with prompts' work of so many rows.
    pub(super) fn observe(&mut self, generates: bool, prompts: f64, seconds: f64) {
        if prompts == 0.0 {
            approach(&mut self.without, seconds);
        } else if prompts >= TELLING {
            // A pass of a GPU takes hardly longer with a few rows more: those are not for nothing all the same.
            let without = if generates { self.without.unwrap_or(0.0).min(seconds / 2.0) } else { 0.0 };
            approach(&mut self.row, (seconds - without) / prompts);
        }
    }

    /// What the next pass has room for.
    pub(super) fn room(&self, times: Option<PassTimes>, beside: Beside) -> Room {
        let Some(times) = times else { return Room { work: f64::INFINITY, least: 0 } };
        let without = self.without.unwrap_or(0.0);
        let (seconds, least) = match beside {
            Beside::Nobody => (times.alone.as_secs_f64(), LEAST_ALONE),
            Beside::Own => (times.beside_own.as_secs_f64().max(without), LEAST_BESIDE_OWN),
            Beside::Others(weight) => (without * weight.clamp(1.0, LONGEST), LEAST_BESIDE_OTHERS),
        };
        match self.row {
            Some(row) => Room { work: seconds / row.max(f64::MIN_POSITIVE), least },
            None => Room { work: 0.0, least: UNKNOWN },
        }
    }
}

impl Room {
    /// How many of `rows` that begin at position `first` the pass has room for. They are taken.
    pub(super) fn take(&mut self, prices: &Prices, first: usize, rows: usize) -> usize {
        let fits = |rows: usize| prices.pass(first, rows, 0) <= self.work;
        let mut taken = rows;
        if !fits(rows) {
            let (mut low, mut high) = (0, rows);
            while high - low > 1 {
                let middle = low.midpoint(high);
                if fits(middle) { low = middle } else { high = middle }
            }
            taken = low.max(self.least.min(rows));
        }
        self.least = self.least.saturating_sub(taken);
        self.work = (self.work - prices.pass(first, taken, 0)).max(0.0);
        taken
    }
}

/// Comes nearer to what was seen last. A pass that took less is believed sooner: one that took longer may have waited for a
/// processor that others use.
fn approach(known: &mut Option<f64>, seen: f64) {
    *known = Some(match *known {
        Some(known) if seen < known => known.midpoint(seen),
        Some(known) => known + (seen.min(2.0 * known) - known) / 4.0,
        None => seen,
    });
}
