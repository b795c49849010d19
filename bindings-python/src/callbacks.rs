//! The application's functions, visible to Python's garbage collector.
//!
//! A tool may be a method of an object that owns the tenant: a cycle, which only the collector can free. The
//! collector counts references among Python's objects, and a reference that Rust code holds looks to it like
//! a use from outside. Therefore the functions belong to a [`Callbacks`] object, Python's objects that need
//! them refer to it, and Rust code has a weak reference. Every running request holds the `Callbacks` it was
//! started with, so a function exists as long as it may be called. Every cycle goes through a `Callbacks`, so
//! the collector has to clear no other objects.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

/// Functions of one owner, and their further arguments.
#[pyclass(frozen, weakref, module = "realm")]
pub(crate) struct Callbacks(Mutex<Vec<Py<PyAny>>>);

impl Callbacks {
    /// Owns `functions`; the returned `Callback`s are for Rust code, in the same order.
    pub(crate) fn new(py: Python<'_>, functions: Vec<Py<PyAny>>) -> PyResult<(Py<Self>, Vec<Callback>)> {
        let count = functions.len();
        let this = Bound::new(py, Self(Mutex::new(functions)))?;
        let weak = Arc::new(PyWeakrefReference::new(&this)?.unbind());
        let callbacks = (0..count).map(|at| Callback { owner: Arc::clone(&weak), at }).collect();
        Ok((this.unbind(), callbacks))
    }
}

#[pymethods]
impl Callbacks {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector must not wait. It treats objects that it does not see as used.
        let Ok(functions) = self.0.try_lock() else { return Ok(()) };
        functions.iter().try_for_each(|function| visit.call(function))
    }

    fn __clear__(&self) {
        let functions = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Dropping one may run any code, including this object's.
        drop(functions);
    }
}

/// A weak reference to one of the functions, for Rust code.
#[derive(Clone)]
pub(crate) struct Callback {
    owner: Arc<Py<PyWeakrefReference>>,
    at: usize,
}

impl Callback {
    /// Returns the function; `None` if its owner is gone, so the call's result is not needed.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let owner = self.owner.bind(py).upgrade_as::<Callbacks>().ok()??;
        let functions = owner.get().0.lock().unwrap_or_else(PoisonError::into_inner);
        functions.get(self.at).map(|function| function.bind(py).clone())
    }
}

/// Owns the functions that a tenant is granted now: its `Tenant` and the models that it sees refer to one
/// `Granted`.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Granted(Mutex<Option<Py<Callbacks>>>);

impl Granted {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Py<Self>> {
        Py::new(py, Self(Mutex::default()))
    }

    /// Returns the earlier value: dropping it may run any code.
    pub(crate) fn set(&self, callbacks: Option<Py<Callbacks>>) -> Option<Py<Callbacks>> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), callbacks)
    }

    /// Returns the functions for a request that starts now.
    pub(crate) fn now(&self, py: Python<'_>) -> Option<Py<Callbacks>> {
        let callbacks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        callbacks.as_ref().map(|callbacks| callbacks.clone_ref(py))
    }
}

#[pymethods]
impl Granted {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The functions clear themselves.
        let Ok(callbacks) = self.0.try_lock() else { return Ok(()) };
        visit.call(&*callbacks)
    }
}
