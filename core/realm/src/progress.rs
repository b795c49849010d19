//! The progress of loading: as calls of a trait, or as events for callers with one function for all of it.

use realm_hub::{Reason, Source};

/// Receives the progress of loading, on the thread that loads.
pub trait Progress: realm_hub::Progress {
    /// Reports that `done` of `total` bytes of weights are in place.
    fn loading(&mut self, done: u64, total: u64) {
        let _ = (done, total);
    }
}

impl Progress for () {}

/// The stage of a load or a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Another process fetches the file; this one waits for it.
    Waiting,
    /// Bytes of the file arrive.
    Fetching,
    /// A source failed to give the file; the next one is tried, if there is one.
    Failed,
    /// The file is in place.
    Fetched,
    /// Weights are loaded onto the device.
    Loading,
}

impl Stage {
    /// Returns the name in lower case, the same in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Failed => "failed",
            Self::Fetched => "fetched",
            Self::Loading => "loading",
        }
    }
}

/// One event of a load or a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressEvent {
    /// The current stage.
    pub stage: Stage,
    /// The file or the source. For [`Stage::Failed`] the source and the reason; empty while loading.
    pub what: String,
    /// The number of bytes that are fetched or loaded.
    pub done: u64,
    /// The total number of bytes; `None` if unknown.
    pub total: Option<u64>,
}

/// A [`Progress`] that passes every event to one function.
pub struct OnProgress<F>(pub F);

impl<F: FnMut(ProgressEvent)> OnProgress<F> {
    fn report(&mut self, stage: Stage, what: impl ToString, done: u64, total: Option<u64>) {
        (self.0)(ProgressEvent { stage, what: what.to_string(), done, total });
    }
}

impl<F: FnMut(ProgressEvent)> realm_hub::Progress for OnProgress<F> {
    fn waiting(&mut self, file: &str) {
        self.report(Stage::Waiting, file, 0, None);
    }

    fn started(&mut self, file: &str, _source: &Source) {
        self.report(Stage::Fetching, file, 0, None);
    }

    fn advanced(&mut self, source: &Source, done: u64, total: Option<u64>) {
        self.report(Stage::Fetching, source, done, total);
    }

    fn failed(&mut self, source: &Source, reason: &Reason) {
        self.report(Stage::Failed, format!("{source}: {reason}"), 0, None);
    }

    fn finished(&mut self, file: &str, bytes: u64) {
        self.report(Stage::Fetched, file, bytes, Some(bytes));
    }
}

impl<F: FnMut(ProgressEvent)> Progress for OnProgress<F> {
    fn loading(&mut self, done: u64, total: u64) {
        self.report(Stage::Loading, "", done, Some(total));
    }
}
