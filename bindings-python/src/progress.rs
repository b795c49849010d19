//! Progress callbacks.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use realm::{OnProgress, Progress};

use crate::process::with_gil;
use crate::record::record;

record! {
    /// What a load or a pull is at.
    ProgressEvent {
        /// `"waiting"` (for another process that fetches the same), `"fetching"`, `"failed"` (a source; the next one is
        /// tried), `"fetched"` or `"loading"`.
        stage: &'static str,
        /// The file or the source; empty while loading.
        what: String,
        /// Bytes that are here, or in place.
        done: u64,
        /// Bytes there are; `None` where that is not known.
        total: Option<u64>,
    }
}

/// The application's function, and what it raised.
#[derive(Clone)]
pub(crate) struct Callback {
    function: Arc<Option<Py<PyAny>>>,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Callback {
    pub(crate) fn new(function: Option<Py<PyAny>>) -> Self {
        Self { function: Arc::new(function), raised: Arc::default() }
    }

    /// Calls the function for every event, on the thread that loads or pulls. If it raises, that thread unwinds: the exception
    /// ends what it reports of.
    pub(crate) fn progress(&self) -> impl Progress + 'static {
        let this = self.clone();
        OnProgress(move |event: realm::ProgressEvent| {
            let Some(function) = &*this.function else { return };
            let call = |py: Python<'_>| {
                let realm::ProgressEvent { stage, what, done, total } = event;
                function.call1(py, (ProgressEvent { stage: stage.as_str(), what, done, total },)).map(drop)
            };
            // `None`: the interpreter is about to end, and nobody looks any more.
            if let Some(Err(error)) = with_gil(call) {
                *this.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // Without the panic hook's message: this is no fault of Realm's.
                std::panic::resume_unwind(Box::new("a callback raised an exception"));
            }
        })
    }

    /// What the function raised, in place of the error that this led to.
    pub(crate) fn cause(&self, error: realm::Error) -> PyErr {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.unwrap_or_else(|| crate::errors::exception(&error))
    }
}
