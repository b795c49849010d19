//! Running requests.

use std::sync::Mutex;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use realm::SharedGeneration;

use crate::callbacks::Callbacks;
use crate::errors::Result;
use crate::handle::{Handle, not_picklable};
use crate::processors::{Keep, Raised};
use crate::results::{Chunk, Completion};
use crate::wait::{Awaitable, wait};

/// A running request: iterate over it with `for` or `async for`. Leaving its `with` block, `cancel()`, or
/// dropping it ends the request and frees its part of the KV cache at once. Each chunk goes to one reader;
/// `cancel` works from any thread.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Generation {
    handle: Handle<SharedGeneration>,
    /// The application's functions that the request may call.
    callbacks: Mutex<Vec<Py<Callbacks>>>,
    raised: Raised,
}

impl Generation {
    pub(crate) fn new(generation: realm::Generation, keep: Keep) -> Self {
        let Keep { callbacks, raised } = keep;
        Self {
            handle: Handle::new("Generation", generation.into()),
            callbacks: Mutex::new(callbacks),
            raised,
        }
    }

    fn stop(&self, py: Python<'_>) {
        // In a forked child there is no request to end.
        if let Ok(generation) = self.handle.get() {
            py.detach(|| generation.cancel());
        }
    }
}

#[pymethods]
impl Generation {
    /// Ends the request; no more chunks follow.
    fn cancel(&self, py: Python<'_>) {
        self.stop(py);
    }

    /// Same as `cancel`.
    fn close(&self, py: Python<'_>) {
        self.stop(py);
    }

    /// Same as `cancel`, for `contextlib.aclosing`.
    fn aclose(&self, py: Python<'_>) -> Awaitable {
        self.stop(py);
        done()
    }

    /// Waits for the end and joins the remaining chunks.
    pub(crate) fn finish(&self, py: Python<'_>) -> Result<Completion> {
        let generation = self.handle.get()?;
        let finished = wait(py, generation.finish_async());
        if finished.is_err() {
            // KeyboardInterrupt, for example.
            self.stop(py);
        }
        Ok(Completion(finished?.map_err(|error| self.raised.instead_of(error))?))
    }

    /// Same as `finish`, to be awaited.
    fn finish_async(&self) -> PyResult<Awaitable> {
        let (generation, raised) = (self.handle.get()?, self.raised.clone());
        let future = async move { generation.finish_async().await.map_err(|error| raised.instead_of(error)) };
        Ok(Awaitable::new(future, Completion::convert))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<Chunk>> {
        let generation = self.handle.get()?;
        let next = wait(py, generation.next_async());
        if next.is_err() {
            // KeyboardInterrupt, for example.
            self.stop(py);
        }
        Ok(next?.transpose().map_err(|error| self.raised.instead_of(error))?.map(Chunk))
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> PyResult<Awaitable> {
        let (generation, raised) = (self.handle.get()?, self.raised.clone());
        let next = async move {
            generation.next_async().await.transpose().map_err(|error| raised.instead_of(error))
        };
        Ok(Awaitable::new(next, |py, chunk| match chunk {
            Some(chunk) => Chunk(chunk).into_py_any(py),
            None => Err(PyStopAsyncIteration::new_err(())),
        }))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.stop(py);
    }

    fn __aenter__(slf: Py<Self>) -> Awaitable {
        Awaitable::new(async move { Ok::<_, PyErr>(slf) }, |_, slf| Ok(slf.into_any()))
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> Awaitable {
        self.stop(py);
        done()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // The functions clear themselves.
        let Ok(callbacks) = self.callbacks.try_lock() else { return Ok(()) };
        callbacks.iter().try_for_each(|each| visit.call(each))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Generation"))
    }
}

/// Returns an awaitable that is done already.
fn done() -> Awaitable {
    Awaitable::new(async { Ok::<_, PyErr>(()) }, |py, ()| Ok(py.None()))
}
