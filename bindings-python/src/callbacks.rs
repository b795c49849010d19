//! The application's functions, where Python's garbage collector sees them.
//!
//! A tool may be a method of an object that owns the tenant: a cycle, which only the collector can free. It counts what refers
//! to what among Python's objects, and a reference that Rust's code holds looks to it like a use from outside. So the functions
//! belong to a [`Callbacks`] object, Python's objects that need them refer to that, and Rust's code has a weak reference.
//! Whatever runs holds the `Callbacks` it was started with: a function is there as long as something may call it. Every cycle goes
//! through a `Callbacks`, which therefore is the only one of these objects that the collector has to clear.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

/// Functions that belong together, and what they are called with.
#[pyclass(frozen, weakref, module = "realm")]
pub(crate) struct Callbacks(Mutex<Vec<Py<PyAny>>>);

impl Callbacks {
    /// Owns `functions`; the `Callback`s are for Rust's code, in their order.
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
        // The collector must not wait. What it does not see it takes for used.
        let Ok(functions) = self.0.try_lock() else { return Ok(()) };
        functions.iter().try_for_each(|function| visit.call(function))
    }

    fn __clear__(&self) {
        let functions = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // Dropping one may run any code, this object's included.
        drop(functions);
    }
}

/// One of the functions, as Rust's code has it.
#[derive(Clone)]
pub(crate) struct Callback {
    owner: Arc<Py<PyWeakrefReference>>,
    at: usize,
}

impl Callback {
    /// The function; `None` if what owned it is gone, so that nothing waits for the call.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let owner = self.owner.bind(py).upgrade_as::<Callbacks>().ok()??;
        let functions = owner.get().0.lock().unwrap_or_else(PoisonError::into_inner);
        functions.get(self.at).map(|function| function.bind(py).clone())
    }
}

/// What owns the functions that a tenant was granted now: its `Tenant` and the models that it sees refer to one `Granted`.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Granted(Mutex<Option<Py<Callbacks>>>);

impl Granted {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Py<Self>> {
        Py::new(py, Self(Mutex::default()))
    }

    /// Returns what was there before: dropping it may run any code.
    pub(crate) fn set(&self, callbacks: Option<Py<Callbacks>>) -> Option<Py<Callbacks>> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), callbacks)
    }

    /// For what is about to start.
    pub(crate) fn now(&self, py: Python<'_>) -> Option<Py<Callbacks>> {
        let callbacks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        callbacks.as_ref().map(|callbacks| callbacks.clone_ref(py))
    }
}

#[pymethods]
impl Granted {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What is in there clears itself.
        let Ok(callbacks) = self.0.try_lock() else { return Ok(()) };
        visit.call(&*callbacks)
    }
}
