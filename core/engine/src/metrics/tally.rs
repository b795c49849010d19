//! The counters of one tenant, or of all together.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::histogram::Recorder;
use super::{Requests, Served, Tokens};

/// The way in which a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    Cancelled,
    TimedOut,
    Refused,
    Failed,
}

impl Outcome {
    /// The number of outcomes.
    pub(super) const ALL: usize = 5;

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed-out",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The counters of one tenant, or of all together.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(super) prompt: AtomicU64,
    pub(super) cached: AtomicU64,
    pub(super) generated: AtomicU64,
    pub(super) recomputed: AtomicU64,
    pub(super) drafted: AtomicU64,
    pub(super) accepted: AtomicU64,
    /// Counts by [`Outcome`].
    outcomes: [AtomicU64; Outcome::ALL],
    pub(super) preemptions: AtomicU64,
    pub(super) queue: Recorder,
    pub(super) first_token: Recorder,
    pub(super) inter_token: Recorder,
    running: AtomicUsize,
    waiting: AtomicUsize,
    kv_pages: AtomicUsize,
}

/// The current load of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) kv_pages: usize,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            prompt: AtomicU64::default(),
            cached: AtomicU64::default(),
            generated: AtomicU64::default(),
            recomputed: AtomicU64::default(),
            drafted: AtomicU64::default(),
            accepted: AtomicU64::default(),
            outcomes: Default::default(),
            preemptions: AtomicU64::default(),
            queue: Recorder::times(),
            first_token: Recorder::times(),
            inter_token: Recorder::times(),
            running: AtomicUsize::default(),
            waiting: AtomicUsize::default(),
            kv_pages: AtomicUsize::default(),
        }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_load(&self, load: Load) {
        self.running.store(load.running, Ordering::Relaxed);
        self.waiting.store(load.waiting, Ordering::Relaxed);
        self.kv_pages.store(load.kv_pages, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Served {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let outcome = |outcome: Outcome| count(&self.outcomes[outcome as usize]);
        Served {
            tokens: Tokens {
                prompt: count(&self.prompt),
                cached: count(&self.cached),
                generated: count(&self.generated),
                recomputed: count(&self.recomputed),
                drafted: count(&self.drafted),
                accepted: count(&self.accepted),
            },
            requests: Requests {
                finished: outcome(Outcome::Finished),
                cancelled: outcome(Outcome::Cancelled),
                timed_out: outcome(Outcome::TimedOut),
                refused: outcome(Outcome::Refused),
                failed: outcome(Outcome::Failed),
            },
            preemptions: count(&self.preemptions),
            queue_seconds: self.queue.read(),
            first_token_seconds: self.first_token.read(),
            inter_token_seconds: self.inter_token.read(),
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            kv_pages: self.kv_pages.load(Ordering::Relaxed),
        }
    }
}
