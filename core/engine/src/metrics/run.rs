//! The events that a program's run reports. In metrics it is a request like any other.

use super::meter::Meter;
use super::tally::Outcome;

/// The meter of one request that a program answers. Dropping it without an end counts as a cancelled request.
pub struct RunMeter {
    meter: Meter,
    ended: bool,
}

/// The way in which a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// The program answered.
    Finished,
    /// The program, or something that it needed, failed.
    Failed,
    /// The run exceeded its time limit.
    TimedOut,
}

impl RunMeter {
    pub(crate) fn new(meter: Meter) -> Self {
        Self { meter, ended: false }
    }

    /// Records that the run no longer waits.
    pub fn started(&mut self) {
        self.meter.started(0);
    }

    /// Records that the program sent `tokens` tokens.
    pub fn sent(&mut self, tokens: usize) {
        self.meter.advanced(0, 0, tokens);
    }

    /// Records the end of the run.
    pub fn ended(&mut self, end: RunEnd) {
        self.ended = true;
        self.meter.ended(match end {
            RunEnd::Finished => Outcome::Finished,
            RunEnd::Failed => Outcome::Failed,
            RunEnd::TimedOut => Outcome::TimedOut,
        });
    }
}

impl Drop for RunMeter {
    fn drop(&mut self) {
        if !self.ended {
            self.meter.ended(Outcome::Cancelled);
        }
    }
}
