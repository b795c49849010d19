//! Realm's errors as exceptions of `realm.errors`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// Returns an exception of the class that `realm.errors` has for the error's code.
pub(crate) fn exception(error: &realm::Error) -> PyErr {
    of_code(error.code().as_str(), error.message())
}

/// Returns an exception of the class for a code.
pub(crate) fn of_code(code: &str, message: &str) -> PyErr {
    Python::attach(|py| make(py, code, message).map_or_else(|error| error, PyErr::from_value))
}

fn make<'py>(py: Python<'py>, code: &str, message: &str) -> PyResult<Bound<'py, PyAny>> {
    static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let classes = CLASSES.get_or_try_init(py, || {
        let classes = py.import("realm.errors")?.getattr("BY_CODE")?;
        Ok::<_, PyErr>(classes.cast_into::<PyDict>()?.unbind())
    })?;
    match classes.bind(py).get_item(code)? {
        Some(class) => class.call1((message,)),
        // A code that this package does not know.
        None => py.import("realm.errors")?.getattr("RealmError")?.call1((message, code)),
    }
}

/// An error for `?`: converts a [`realm::Error`] to a Python exception.
pub(crate) struct Failed(PyErr);

impl From<realm::Error> for Failed {
    fn from(error: realm::Error) -> Self {
        Self(exception(&error))
    }
}

impl From<PyErr> for Failed {
    fn from(error: PyErr) -> Self {
        Self(error)
    }
}

impl From<Failed> for PyErr {
    fn from(error: Failed) -> Self {
        error.0
    }
}

/// The result type of methods.
pub(crate) type Result<T> = std::result::Result<T, Failed>;

/// Returns the exception for an invalid argument.
pub(crate) fn invalid(message: &str) -> PyErr {
    of_code("invalid-argument", message)
}
