//! What a program's run reports: to whoever looks at metrics it is a request like any other.

use super::meter::{Meter, Outcome};

/// Counts for one request that a program answers. Dropped without an end, it was cancelled.
pub struct RunMeter {
    meter: Meter,
    ended: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// The program answered.
    Finished,
    /// It, or something it needed, failed.
    Failed,
    /// It took longer than it may.
    TimedOut,
}

impl RunMeter {
    pub(crate) fn new(meter: Meter) -> Self {
        Self { meter, ended: false }
    }

    /// It waits no more.
    pub fn started(&mut self) {
        self.meter.started(0);
    }

    /// It sent so many tokens.
    pub fn sent(&mut self, tokens: usize) {
        self.meter.advanced(0, 0, tokens);
    }

    /// It ended.
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
