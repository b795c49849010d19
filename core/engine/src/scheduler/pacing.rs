//! Bounds the rows of prompts in a pass by time: a sequence that generates waits for each pass to end, and a
//! new request waits for the pass that runs.
//!
//! A row takes longer the more tokens precede it, so a bound on rows alone does not bound time. The engine
//! learns the time of a row from earlier passes, in the unit of [`prices`](crate::prices), which counts what
//! a row sees.

use crate::PassTimes;
use crate::prices::Prices;

/// Rows of prompts in a pass before the first measurement.
const UNKNOWN: usize = 32;
/// The least work of prompts, in rows, whose time says something about a row.
const TELLING: f64 = 4.0;
/// The longest pass with prompts of other tenants, as a multiple of one without, whatever the tenants'
/// weights.
const LONGEST: f64 = 4.0;
/// The fewest rows of a pass without sequences of other tenants, however long they take. With fewer, reading
/// the weights takes longer than computing.
const LEAST: usize = 32;

/// The sequences that the prompts of a pass delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Beside {
    /// None but requests that may come.
    NoSequence,
    /// Sequences of the same tenant, or prompts of several tenants.
    Own,
    /// Sequences of other tenants. The number is the weight of the prompts' tenants over that of the others.
    Others(f64),
}

/// The measured times of passes.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// Seconds of a pass without rows of prompts.
    without: Option<f64>,
    /// Seconds of a row's work of prompts in a pass in which no sequence generates.
    row_alone: Option<f64>,
    /// Seconds that a row's work of prompts adds to a pass in which sequences generate. Such passes have
    /// fewer rows, and each takes longer.
    row_beside: Option<f64>,
}

/// The room that a pass has left for prompts.
pub(super) struct Room {
    /// Work, in rows.
    work: f64,
    /// Rows that fit in any case.
    least: usize,
}

impl Pacing {
    /// Learns from a pass of `seconds`: whether sequences generated in it, and its work of prompts, in rows.
    pub(super) fn observe(&mut self, generates: bool, prompts: f64, seconds: f64) {
        if prompts == 0.0 {
            approach(&mut self.without, seconds);
        } else if prompts >= TELLING {
            // On a GPU a few more rows take hardly any time; they count as half of the pass at least.
            let without = if generates { self.without.unwrap_or(0.0).min(seconds / 2.0) } else { 0.0 };
            let row = if generates { &mut self.row_beside } else { &mut self.row_alone };
            approach(row, (seconds - without) / prompts);
        }
    }

    /// Returns the room for prompts in the next pass; without `times` it is unlimited.
    pub(super) fn room(&self, times: Option<PassTimes>, beside: Beside, prices: &Prices) -> Room {
        let Some(times) = times else { return Room { work: f64::INFINITY, least: 0 } };
        let without = self.without.unwrap_or(0.0);
        let (seconds, least) = match beside {
            Beside::NoSequence => (times.alone.as_secs_f64(), LEAST),
            Beside::Own => (times.beside_own.as_secs_f64().max(without), LEAST),
            Beside::Others(weight) => (without * weight.clamp(1.0, LONGEST), prices.pace.least_prompt),
        };
        let (row, other) = match beside {
            Beside::NoSequence => (self.row_alone, self.row_beside),
            Beside::Own | Beside::Others(_) => (self.row_beside, self.row_alone),
        };
        Self::rows_of(seconds, row.or(other), least)
    }

    /// Returns the room for prompts of tenants who have had more than those that generate: the time of
    /// `passes` passes without prompts; without `times` it is unlimited.
    pub(super) fn room_ahead(&self, times: Option<PassTimes>, passes: f64, prices: &Prices) -> Room {
        if times.is_none() {
            return Room { work: f64::INFINITY, least: 0 };
        }
        let seconds = self.without.unwrap_or(0.0) * passes;
        Self::rows_of(seconds, self.row_beside.or(self.row_alone), prices.pace.least_prompt)
    }

    /// Returns the room for what takes `seconds`, where a row's work takes `row` seconds.
    fn rows_of(seconds: f64, row: Option<f64>, least: usize) -> Room {
        let known = row.filter(|_| seconds > 0.0);
        known.map_or(Room { work: 0.0, least: UNKNOWN }, |row| Room {
            work: seconds / row.max(f64::MIN_POSITIVE),
            least,
        })
    }
}

impl Room {
    /// Takes room for `rows` that begin at position `first`, or for as many of them as fit, and returns their
    /// number.
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

/// Moves a measurement towards the last one. A shorter time counts more: a longer one may include waiting for
/// a core that another process used.
fn approach(known: &mut Option<f64>, seen: f64) {
    *known = Some(match *known {
        Some(known) if seen < known => known.midpoint(seen),
        Some(known) => known + (seen.min(2.0 * known) - known) / 4.0,
        None => seen,
    });
}
