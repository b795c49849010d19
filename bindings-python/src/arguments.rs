//! Keyword arguments that come as a dict.

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::errors::invalid;

/// The arguments that were given, each with its name among those that are `known`. Every argument may be `None`, which is as if it
/// weren't there.
///
/// # Errors
/// `TypeError` for an argument that there is not.
pub(crate) fn given<'py>(
    arguments: Option<&Bound<'py, PyDict>>,
    known: &[&'static str],
) -> impl Iterator<Item = PyResult<(&'static str, Bound<'py, PyAny>)>> {
    arguments.into_iter().flatten().filter_map(|(key, value)| match name(&key, known) {
        Ok(_) if value.is_none() => None,
        Ok(name) => Some(Ok((name, value))),
        Err(error) => Some(Err(error)),
    })
}

fn name(key: &Bound<'_, PyAny>, known: &[&'static str]) -> PyResult<&'static str> {
    let key = key.cast::<PyString>()?.to_str()?;
    known.iter().copied().find(|&name| name == key).ok_or_else(|| unexpected(key))
}

/// There is no such argument.
pub(crate) fn unexpected(key: &str) -> PyErr {
    PyTypeError::new_err(format!("got an unexpected keyword argument '{key}'"))
}

/// What was wrong with an argument's value, and which argument's.
pub(crate) fn named(py: Python<'_>, key: &str, error: PyErr) -> PyErr {
    if error.is_instance_of::<PyTypeError>(py) {
        return PyTypeError::new_err(format!("argument '{key}': {}", error.value(py)));
    }
    if error.is_instance_of::<PyOverflowError>(py) {
        return invalid(&format!("{key}: {}", error.value(py)));
    }
    error
}
