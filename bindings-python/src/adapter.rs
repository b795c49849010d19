//! LoRA adapters.

use pyo3::prelude::*;

use crate::handle::{Handle, not_picklable};

/// A LoRA adapter of a model. It is unloaded when it is closed or dropped everywhere and the last request
/// that uses it has ended.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Adapter {
    pub(crate) handle: Handle<realm::Adapter>,
}

#[pymethods]
impl Adapter {
    /// The name that it was loaded by; tenants' limits use this name.
    #[getter]
    fn name(&self) -> PyResult<String> {
        Ok(self.handle.get()?.name().to_owned())
    }

    /// The largest rank of its matrices.
    #[getter]
    fn rank(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.rank())
    }

    /// The size of its matrices, in bytes.
    #[getter]
    fn bytes(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.bytes())
    }

    /// Releases the adapter.
    fn close(&self, py: Python<'_>) {
        self.handle.close(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.handle.close(py);
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Adapter"))
    }
}
