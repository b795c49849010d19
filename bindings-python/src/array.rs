//! Arrays of numbers that NumPy and `memoryview` read without a copy.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyIndexError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PySlice, PyTuple};

/// 32-bit floats in one or two dimensions, row by row: logits, hidden states, embeddings. It is a buffer:
/// `numpy.asarray(array)` and `memoryview(array)` share its memory, and may write to it. It is also a
/// sequence, of numbers or of its rows; indexing and slicing return copies.
///
/// `Array(values, shape=None)` takes a buffer of 32-bit floats or a sequence of numbers, and has one
/// dimension unless `shape` says otherwise.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Array {
    /// Read and written with the GIL, or through buffers that Python code holds, as with a `bytearray`.
    values: UnsafeCell<Box<[f32]>>,
    /// `[length]` or `[rows, columns]`, and the distances of neighbors in bytes.
    shape: [ffi::Py_ssize_t; 2],
    strides: [ffi::Py_ssize_t; 2],
    dimensions: usize,
}

// SAFETY: after `new`, Rust accesses the values only with the GIL; Python code synchronizes as for any
// buffer.
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

impl Array {
    /// Copies some values.
    fn read(&self, _py: Python<'_>, at: std::ops::Range<usize>) -> Vec<f32> {
        // SAFETY: with the GIL, no Rust code writes, and the reference ends before the GIL can be released.
        let values = unsafe { &*self.values.get() };
        values[at].to_vec()
    }

    fn columns(&self) -> usize {
        if self.dimensions == 2 { usize::try_from(self.shape[1]).unwrap_or(0) } else { 1 }
    }

    /// Returns the range of a row's values.
    fn row(&self, index: isize) -> PyResult<std::ops::Range<usize>> {
        let place = self.place(index)?;
        Ok(place * self.columns()..(place + 1) * self.columns())
    }

    /// Returns the place of an index from either end.
    fn place(&self, index: isize) -> PyResult<usize> {
        let length = self.shape[0];
        let place = if index < 0 { index + length } else { index };
        if (0..length).contains(&place) {
            return Ok(place.unsigned_abs());
        }
        Err(PyIndexError::new_err(format!("index {index} is out of range: the array has {length} items")))
    }

    /// Returns a number, or a row.
    fn item<'py>(&self, py: Python<'py>, place: usize) -> PyResult<Bound<'py, PyAny>> {
        let columns = self.columns();
        let values = self.read(py, place * columns..(place + 1) * columns);
        if self.dimensions == 2 {
            return Ok(Bound::new(py, Self::vector(values))?.into_any());
        }
        Ok(values[0].into_pyobject(py)?.into_any())
    }

    /// Returns all numbers, or all rows.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let items = (0..self.__len__()).map(|place| self.item(py, place)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, items)
    }
}

#[pymethods]
impl Array {
    #[new]
    #[pyo3(signature = (values, shape=None))]
    fn make(values: &Bound<'_, PyAny>, shape: Option<Vec<usize>>) -> PyResult<Self> {
        let numbers = match PyBuffer::<f32>::get(values) {
            Ok(buffer) => buffer.to_vec(values.py())?,
            Err(_) => values.extract::<Vec<f32>>().map_err(|_| {
                PyTypeError::new_err("values are a buffer of 32-bit floats or a sequence of numbers")
            })?,
        };
        let count = numbers.len();
        match shape.as_deref() {
            None => Ok(Self::vector(numbers)),
            Some(&[length]) if length == count => Ok(Self::vector(numbers)),
            Some(&[rows, columns]) if rows.checked_mul(columns) == Some(count) => {
                Ok(Self::new(numbers, [rows, columns], 2))
            }
            Some(_) => Err(crate::errors::invalid(&format!(
                "shape is (length,) or (rows, columns) of the {count} values together"
            ))),
        }
    }

    /// `array[2]`, `array[-1]`, `array[1:3]`; with two dimensions a row or rows, and `array[1, 2]` a number.
    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            let columns = self.columns();
            let range = slice.indices(self.shape[0])?;
            let mut values = Vec::new();
            for i in 0..range.slicelength {
                let place = (range.start + range.step * i as isize).unsigned_abs();
                values.extend(self.read(py, place * columns..(place + 1) * columns));
            }
            let shape = [range.slicelength, columns];
            return Ok(Bound::new(py, Self::new(values, shape, self.dimensions))?.into_any());
        }
        if let (Ok(places), 2) = (index.cast::<PyTuple>(), self.dimensions) {
            let (row, column): (isize, isize) = places.extract()?;
            let row = Bound::new(py, Self::vector(self.read(py, self.row(row)?)))?;
            return row.get().item(py, row.get().place(column)?);
        }
        let index = index.extract().map_err(|_| {
            PyTypeError::new_err("an index is an int or a slice, or for two dimensions a row and a column")
        })?;
        self.item(py, self.place(index)?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.items(py)?.try_iter()?.into_any())
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let items = self.items(py)?;
        items.reverse()?;
        Ok(items.try_iter()?.into_any())
    }

    fn __contains__(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.items(py)?.contains(value)
    }

    /// Returns the first index of a number, or of a row.
    ///
    /// Raises `ValueError` if it does not occur.
    fn index(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.items(py)?.index(value)
    }

    /// Returns how often a number, or a row, occurs.
    fn count(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.items(py)?.call_method1("count", (value,))?.extract()
    }

    /// Returns whether another `Array` has the same shape and numbers. Use NumPy for comparisons number by
    /// number.
    fn __eq__<'py>(&self, py: Python<'py>, other: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
        let Ok(other) = other.cast::<Self>() else { return py.NotImplemented().into_bound(py) };
        let other = other.get();
        let all = |array: &Self| array.read(py, 0..array.__len__() * array.columns());
        let equal =
            self.dimensions == other.dimensions && self.shape == other.shape && all(self) == all(other);
        pyo3::types::PyBool::new(py, equal).to_owned().into_any()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<crate::record::Reduced<'py>> {
        let py = slf.py();
        let values = py
            .import("array")?
            .getattr("array")?
            .call1(("f", pyo3::types::PyMemoryView::from(slf)?.call_method0("tobytes")?))?;
        Ok((slf.get_type().into_any(), (values, slf.get().shape(py)?).into_pyobject(py)?))
    }

    /// `(length,)` or `(rows, columns)`.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape[..self.dimensions])
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.shape[0]).unwrap_or(0)
    }

    /// Returns a NumPy array that shares the memory.
    pub(crate) fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static ASARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ASARRAY.import(slf.py(), "numpy", "asarray")?.call1((slf,))
    }

    /// For `torch.from_dlpack(array)` and other users of DLPack tensors: shares the memory. NumPy creates the
    /// tensor.
    #[pyo3(signature = (**options))]
    fn __dlpack__<'py>(
        slf: &Bound<'py, Self>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::numpy(slf)?.call_method("__dlpack__", (), options)
    }

    /// DLPack's device: the CPU's memory.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (1, 0)
    }

    /// Returns a list, or a list of lists.
    fn tolist<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        pyo3::types::PyMemoryView::from(slf)?.call_method0("tolist")
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let shape: Vec<_> = self.shape[..self.dimensions].iter().map(ToString::to_string).collect();
        let count = self.__len__() * self.columns();
        let mut values: Vec<_> = self.read(py, 0..count.min(4)).iter().map(ToString::to_string).collect();
        if count > values.len() {
            values.push("...".into());
        }
        format!("<realm.Array {}: {}>", shape.join(" x "), values.join(", "))
    }

    // SAFETY: CPython calls this with a view that it may fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no view to fill"));
        }
        let array = slf.get();
        let wants = |flag: c_int| flags & flag == flag;
        // SAFETY: CPython lets this function fill the view. Its pointers live as long as the array, which the
        // view holds. The shape and the strides are never written: users of a view must not write to them.
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
