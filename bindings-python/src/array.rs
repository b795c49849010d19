//! Numbers that NumPy and `memoryview` see without a copy.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// 32-bit floats in one or two dimensions, row by row: logits, hidden states, embeddings. It is a buffer:
/// `numpy.asarray(array)` and `memoryview(array)` see the same memory, and may write to it.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Array {
    /// Only ever read or written through buffers that Python code holds, as a `bytearray`'s are.
    values: UnsafeCell<Box<[f32]>>,
    /// `[length]` or `[rows, columns]`, and how many bytes apart neighbours are.
    shape: [ffi::Py_ssize_t; 2],
    strides: [ffi::Py_ssize_t; 2],
    dimensions: usize,
}

// SAFETY: after `new` nothing in Rust touches the values; Python code synchronizes as it does for any buffer.
unsafe impl Sync for Array {}

const FLOAT: usize = size_of::<f32>();

impl Array {
    /// One dimension.
    pub(crate) fn vector(values: Vec<f32>) -> Self {
        let length = values.len();
        Self::new(values, [length, 1], 1)
    }

    /// Two dimensions, `[rows, columns]`.
    pub(crate) fn matrix(values: Vec<f32>, columns: usize) -> Self {
        let rows = values.len().checked_div(columns).unwrap_or(0);
        Self::new(values, [rows, columns], 2)
    }

    fn new(values: Vec<f32>, shape: [usize; 2], dimensions: usize) -> Self {
        // A vector of floats has at most `isize::MAX` bytes.
        let signed = |n: usize| n as ffi::Py_ssize_t;
        let strides = if dimensions == 1 { [FLOAT, FLOAT] } else { [shape[1] * FLOAT, FLOAT] };
        Self {
            values: UnsafeCell::new(values.into_boxed_slice()),
            shape: shape.map(signed),
            strides: strides.map(signed),
            dimensions,
        }
    }
}

#[pymethods]
impl Array {
    /// `(length,)` or `(rows, columns)`.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
        pyo3::types::PyTuple::new(py, &self.shape[..self.dimensions])
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.shape[0]).unwrap_or(0)
    }

    /// A NumPy array of the same memory.
    fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static ASARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ASARRAY.import(slf.py(), "numpy", "asarray")?.call1((slf,))
    }

    /// For `torch.from_dlpack(array)` and others that take DLPack's tensors: the same memory. NumPy makes the tensor.
    #[pyo3(signature = (**options))]
    fn __dlpack__<'py>(
        slf: &Bound<'py, Self>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::numpy(slf)?.call_method("__dlpack__", (), options)
    }

    /// DLPack's name for the processor's memory.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }

    /// A list, or a list of lists.
    fn tolist<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        pyo3::types::PyMemoryView::from(slf)?.call_method0("tolist")
    }

    fn __repr__(&self) -> String {
        let shape: Vec<_> = self.shape[..self.dimensions].iter().map(ToString::to_string).collect();
        format!("Array({})", shape.join(" x "))
    }

    // SAFETY: CPython calls this with a view that it may fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no view to fill"));
        }
        let array = slf.get();
        let wants = |flag: c_int| flags & flag == flag;
        // SAFETY: the view is CPython's to fill; what it points to lives as long as the array, which the view holds. The shape and the
        // strides are never written: nobody may write to a view's.
        unsafe {
            let values = &mut *array.values.get();
            (*view).buf = values.as_mut_ptr().cast::<c_void>();
            (*view).len = (values.len() * FLOAT) as ffi::Py_ssize_t;
            (*view).readonly = 0;
            (*view).itemsize = FLOAT as ffi::Py_ssize_t;
            (*view).format =
                if wants(ffi::PyBUF_FORMAT) { c"f".as_ptr().cast_mut() } else { ptr::null_mut() };
            (*view).ndim = array.dimensions as c_int;
            let shape = array.shape.as_ptr().cast_mut();
            (*view).shape = if wants(ffi::PyBUF_ND) { shape } else { ptr::null_mut() };
            let strides = array.strides.as_ptr().cast_mut();
            (*view).strides = if wants(ffi::PyBUF_STRIDES) { strides } else { ptr::null_mut() };
            (*view).suboffsets = ptr::null_mut();
            (*view).internal = ptr::null_mut();
            (*view).obj = slf.into_any().into_ptr();
        }
        Ok(())
    }
}
