//! Progress callbacks.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use realm::{OnProgress, Progress};

use crate::callbacks::{Callback, Callbacks};
use crate::process::with_gil;
use crate::record::record;

record! {
    /// An event of a load or a pull.
    ProgressEvent {
        /// `"waiting"` (for another process that fetches the same file), `"fetching"`, `"failed"` (a source;
        /// the next one is tried), `"fetched"` or `"loading"`.
        stage: String,
        /// The file or the source; empty while loading.
        what: String,
        /// The number of bytes that are fetched or loaded.
        done: u64,
        /// The total number of bytes; `None` if unknown.
        total: Option<u64>,
    }
}

/// The application's function, and its exception.
#[derive(Clone)]
pub(crate) struct Reports {
    function: Option<Callback>,
    raised: Arc<Mutex<Option<PyErr>>>,
}

impl Reports {
    /// The returned owner of the function must live until the end of the load.
    pub(crate) fn new(
        py: Python<'_>,
        function: Option<Py<PyAny>>,
    ) -> PyResult<(Option<Py<Callbacks>>, Self)> {
        let Some(function) = function else {
            return Ok((None, Self { function: None, raised: Arc::default() }));
        };
        if !function.bind(py).is_callable() {
            return Err(PyTypeError::new_err("progress is a function of a ProgressEvent"));
        }
        let (owner, calls) = Callbacks::new(py, vec![function])?;
        Ok((Some(owner), Self { function: calls.into_iter().next(), raised: Arc::default() }))
    }

    /// Calls the function for every event, on the thread that loads or pulls. If it raises, that thread
    /// unwinds: the exception ends the load or the pull.
    pub(crate) fn progress(&self) -> impl Progress + 'static {
        let this = self.clone();
        OnProgress(move |event: realm::ProgressEvent| {
            let Some(function) = &this.function else { return };
            let call = |py: Python<'_>| {
                let realm::ProgressEvent { stage, what, done, total } = event;
                // The caller of the load is gone, and with it the function.
                let Some(function) = function.get(py) else { return Ok(()) };
                function.call1((ProgressEvent { stage: stage.as_str().into(), what, done, total },)).map(drop)
            };
            // `None`: the interpreter is about to end, so the result is not needed.
            if let Some(Err(error)) = with_gil(call) {
                *this.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // Without the panic hook's message: an exception of the application is not a fault of
                // Realm's.
                std::panic::resume_unwind(Box::new("a callback raised an exception"));
            }
        })
    }

    /// Returns the function's exception, in place of the error that it caused.
    pub(crate) fn cause(&self, error: realm::Error) -> PyErr {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.unwrap_or_else(|| crate::errors::exception(&error))
    }
}
