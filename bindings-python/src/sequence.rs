//! Token sequences that the caller drives.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use realm::Output;

use crate::arguments::{Tokens, count};
use crate::array::Array;
use crate::errors::{Result, invalid};
use crate::handle::{dispose, not_picklable};
use crate::process::Process;
use crate::record::record;
use crate::wait::{Awaitable, wait};

record! {
    /// The results of a forward pass.
    Forwarded {
        /// `[vocabulary]` for `"last_logits"`, `[new tokens, vocabulary]` for `"logits"`, `[new tokens,
        /// hidden]` for `"hidden"`, empty for `"nothing"`.
        values: Py<Array>,
        /// The number of the sequence's tokens that were found in the prefix cache for this forward pass.
        cached: usize,
    }
}

/// A token sequence with its KV cache, to append to, run forward, fork and truncate. Dropping it frees its
/// part of the cache. One thread or task may use it at a time.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Sequence {
    slot: Arc<Mutex<Slot>>,
    process: Process,
}

enum Slot {
    Here(Box<realm::Sequence>),
    /// A forward pass holds the sequence.
    Busy,
    Closed,
}

/// A borrowed sequence; it goes back on drop, unless the handle was closed meanwhile.
struct Borrowed {
    sequence: Option<Box<realm::Sequence>>,
    slot: Arc<Mutex<Slot>>,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Slot::Busy, Some(sequence)) = (&*slot, self.sequence.take()) {
            *slot = Slot::Here(sequence);
        }
    }
}

impl Borrowed {
    fn get(&mut self) -> PyResult<&mut realm::Sequence> {
        self.sequence.as_deref_mut().ok_or_else(|| invalid("this Sequence is closed"))
    }

    async fn forward(
        mut self,
        output: Output,
    ) -> std::result::Result<(realm::Forwarded, Output), realm::Error> {
        match self.sequence.as_deref_mut() {
            Some(sequence) => Ok((sequence.forward_async(output).await?, output)),
            // `borrow` has checked this.
            None => Ok((realm::Forwarded { values: Vec::new(), width: 0, cached: 0 }, Output::Nothing)),
        }
    }
}

impl Sequence {
    pub(crate) fn new(sequence: realm::Sequence) -> Self {
        Self { slot: Arc::new(Mutex::new(Slot::Here(Box::new(sequence)))), process: Process::current() }
    }

    fn borrow(&self) -> PyResult<Borrowed> {
        self.process.check("Sequence")?;
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Busy) {
            Slot::Here(sequence) => Ok(Borrowed { sequence: Some(sequence), slot: Arc::clone(&self.slot) }),
            Slot::Busy => Err(PyRuntimeError::new_err("a forward of this Sequence is running")),
            Slot::Closed => {
                *slot = Slot::Closed;
                Err(invalid("this Sequence is closed"))
            }
        }
    }

    fn end(&self, py: Python<'_>) {
        if !self.process.is_current() {
            return;
        }
        let old =
            std::mem::replace(&mut *self.slot.lock().unwrap_or_else(PoisonError::into_inner), Slot::Closed);
        dispose(py, self.process, old);
    }
}

fn output(name: &str) -> PyResult<Output> {
    match name {
        "nothing" => Ok(Output::Nothing),
        "last_logits" => Ok(Output::LastLogits),
        "logits" => Ok(Output::Logits),
        "hidden" => Ok(Output::Hidden),
        other => {
            Err(invalid(&format!("output is 'last_logits', 'logits', 'hidden' or 'nothing', not '{other}'")))
        }
    }
}

fn forwarded(py: Python<'_>, (forwarded, output): (realm::Forwarded, Output)) -> PyResult<Forwarded> {
    let realm::Forwarded { values, width, cached } = forwarded;
    let array = match output {
        Output::Logits | Output::Hidden => Array::matrix(values, width),
        Output::LastLogits | Output::Nothing => Array::vector(values),
    };
    Ok(Forwarded { values: Py::new(py, array)?, cached })
}

#[pymethods]
impl Sequence {
    /// The tokens of the sequence.
    #[getter]
    fn tokens(&self) -> PyResult<Vec<u32>> {
        Ok(self.borrow()?.get()?.tokens().to_vec())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.borrow()?.get()?.len())
    }

    /// The longest length that the sequence may have, in tokens.
    #[getter]
    fn context_length(&self) -> PyResult<usize> {
        Ok(self.borrow()?.get()?.context_length())
    }

    /// Adds tokens at the end; the next forward pass computes them.
    fn append(&self, tokens: Tokens) -> Result<()> {
        Ok(self.borrow()?.get()?.append(&tokens.0)?)
    }

    /// Computes the tokens appended since the last forward pass, or the last token again if there are none.
    #[pyo3(signature = (output="last_logits"))]
    fn forward(&self, py: Python<'_>, output: &str) -> Result<Forwarded> {
        let output = self::output(output)?;
        let result = wait(py, self.borrow()?.forward(output))??;
        Ok(forwarded(py, result)?)
    }

    /// Same as `forward`, to be awaited. Cancelling it cancels the forward pass; the tokens stay appended.
    #[pyo3(signature = (output="last_logits"))]
    fn forward_async(&self, output: &str) -> PyResult<Awaitable> {
        let output = self::output(output)?;
        let future = self.borrow()?.forward(output);
        Ok(Awaitable::new(future, |py, result| forwarded(py, result)?.into_py_any(py)))
    }

    /// Creates another sequence with the same tokens. Both share the computed part until they differ.
    fn fork(&self, py: Python<'_>) -> Result<Self> {
        let mut borrowed = self.borrow()?;
        let sequence = borrowed.get()?;
        Ok(Self::new(py.detach(|| sequence.fork())?))
    }

    /// Drops the tokens from index `length` on.
    fn truncate(&self, length: &Bound<'_, PyAny>) -> Result<()> {
        let Some(len) = count("length", Some(length))? else {
            return Err(PyTypeError::new_err("length is a number of tokens").into());
        };
        let mut borrowed = self.borrow()?;
        let sequence = borrowed.get()?;
        Ok(length.py().detach(|| sequence.truncate(len))?)
    }

    /// Returns tokens, keys and values as bytes, for `Model.restore_sequence`.
    fn save<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyBytes>> {
        let mut borrowed = self.borrow()?;
        let sequence = borrowed.get()?;
        Ok(PyBytes::new(py, &py.detach(|| sequence.save())?))
    }

    /// Releases the sequence.
    fn close(&self, py: Python<'_>) {
        self.end(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.end(py);
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Sequence"))
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        if self.process.is_current() {
            Python::try_attach(|py| self.end(py));
        } else {
            std::mem::forget(Arc::clone(&self.slot));
        }
    }
}
