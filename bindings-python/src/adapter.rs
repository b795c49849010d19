//! LoRA adapters.

use pyo3::prelude::*;

use crate::handle::{Handle, not_picklable};

/// A LoRA adapter on a model. It is unloaded when nobody holds it any more and the last request that uses it has ended.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Adapter {
    pub(crate) handle: Handle<realm::Adapter>,
}

#[pymethods]
impl Adapter {
    /// What it was loaded by, which tenants' limits name.
    #[getter]
    fn name(&self) -> PyResult<String> {
        Ok(self.handle.get()?.name().to_owned())
    }

    /// Its largest rank.
    #[getter]
    fn rank(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.rank())
    }

    /// Bytes that its matrices take.
    #[getter]
    fn bytes(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.bytes())
    }

    /// Gives it back.
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
