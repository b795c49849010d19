//! Objects that can be closed.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use crate::errors::invalid;
use crate::process::Process;

/// An object, until it is closed.
pub(crate) struct Handle<T: Send> {
    value: Mutex<Option<T>>,
    kind: &'static str,
    process: Process,
}

impl<T: Clone + Send> Handle<T> {
    pub(crate) fn new(kind: &'static str, value: T) -> Self {
        Self { value: Mutex::new(Some(value)), kind, process: Process::current() }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// `invalid-argument` after [`close`](Self::close), `RuntimeError` in a forked child.
    pub(crate) fn get(&self) -> PyResult<T> {
        self.process.check(self.kind)?;
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        value.clone().ok_or_else(|| invalid(&format!("this {} is closed", self.kind)))
    }
}

impl<T: Send> Handle<T> {
    /// Releases the value. Other handles of it stay valid.
    pub(crate) fn close(&self, py: Python<'_>) {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(value) = value {
            dispose(py, self.process, value);
        }
    }
}

impl<T: Send> Drop for Handle<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let process = self.process;
        let mut value = Some(value);
        Python::try_attach(|py| value.take().map(|value| dispose(py, process, value)));
        // At the interpreter's end, the operating system frees everything.
        std::mem::forget(value);
    }
}

/// Drops a value without the GIL, since the last handle of a model waits for the end of its engine's step. In
/// a forked child the value is not dropped at all, since the engine's thread does not exist there.
pub(crate) fn dispose<T: Send>(py: Python<'_>, process: Process, value: T) {
    if process.is_current() {
        py.detach(|| drop(value));
    } else {
        std::mem::forget(value);
    }
}

/// The error of `pickle` and `copy` for such objects.
pub(crate) fn not_picklable(kind: &str) -> PyErr {
    pyo3::exceptions::PyTypeError::new_err(format!(
        "cannot pickle a {kind}: it lives in this process. Load the model where it is needed; the pages of its file are shared"
    ))
}
