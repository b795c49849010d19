//! Logits processors, and the Python objects that a running request needs.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use realm::LogitsProcessor;

use crate::array::Array;
use crate::callbacks::{Callback, Callbacks};
use crate::process::with_gil;

/// The Python objects that a running request needs.
#[derive(Default)]
pub(crate) struct Keep {
    /// The application's functions that it may call.
    pub(crate) callbacks: Vec<Py<Callbacks>>,
    /// The exception of one of these functions.
    pub(crate) raised: Raised,
}

/// The exception of one of the application's functions, raised on another thread than the waiting one.
#[derive(Clone, Default)]
pub(crate) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    /// Returns the exception, in place of the error that it caused.
    pub(crate) fn instead_of(&self, error: realm::Error) -> PyErr {
        let raised = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.unwrap_or_else(|| crate::errors::exception(&error))
    }
}

/// Converts a list of functions, or one function, to processors.
pub(crate) fn processors(value: &Bound<'_, PyAny>, keep: &mut Keep) -> PyResult<Vec<LogitsProcessor>> {
    let functions = match value.is_callable() {
        true => vec![value.clone()],
        false => value.try_iter()?.collect::<PyResult<Vec<_>>>()?,
    };
    if !functions.iter().all(Bound::is_callable) {
        return Err(PyTypeError::new_err("logits_processors are functions of token ids and logits"));
    }
    let functions = functions.into_iter().map(Bound::unbind).collect();
    let (owner, calls) = Callbacks::new(value.py(), functions)?;
    keep.callbacks.push(owner);
    Ok(calls.into_iter().map(|function| processor(function, keep.raised.clone())).collect())
}

fn processor(function: Callback, raised: Raised) -> LogitsProcessor {
    LogitsProcessor::new_async(move |tokens, logits| {
        let called = with_gil(|py| call(py, &function, &tokens, logits));
        std::future::ready(match called {
            Some(Ok(logits)) => Ok(logits),
            Some(Err(error)) => {
                let why = error.to_string();
                *raised.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(why)
            }
            None => Err("the application is ending".into()),
        })
    })
}

fn call(py: Python<'_>, function: &Callback, tokens: &[u32], logits: Vec<f32>) -> PyResult<Vec<f32>> {
    // The request was cancelled.
    let Some(function) = function.get(py) else { return Ok(logits) };
    let array = Bound::new(py, Array::vector(logits))?;
    let view = Array::numpy(&array).unwrap_or_else(|_| array.clone().into_any());
    let returned = function.call1((PyList::new(py, tokens)?, view))?;
    let changed = if returned.is_none() { array.into_any() } else { returned };
    match PyBuffer::<f32>::get(&changed) {
        Ok(buffer) => buffer.to_vec(py),
        Err(_) => changed.extract::<Vec<f32>>().map_err(|_| {
            PyTypeError::new_err("a logits processor returns None, or as many numbers as it got logits")
        }),
    }
}
