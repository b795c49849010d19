//! Text arguments.
//!
//! A Python `str` may have lone surrogates, halves of a character that was cut apart or that a JSON text
//! spells. No encoding has them. Each becomes U+FFFD, and two that belong together become their character.

use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PySequence, PyString, PyTuple};

/// A `str`, even with lone surrogates.
#[derive(Default)]
pub(crate) struct Text(pub(crate) String);

impl<'a, 'py> FromPyObject<'a, 'py> for Text {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let string = value.cast::<PyString>()?;
        Ok(Self(text(&string)?))
    }
}

/// Converts a `str` to a Rust string.
pub(crate) fn text(value: &Bound<'_, PyString>) -> PyResult<String> {
    match value.to_str() {
        Ok(text) => Ok(text.to_owned()),
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(value.py()) => {
            let encoded = value.call_method1("encode", ("utf-16-le", "surrogatepass"))?;
            let bytes = encoded.cast::<PyBytes>()?.as_bytes();
            let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            Ok(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
        }
        Err(error) => Err(error),
    }
}

/// Converts a list of texts.
pub(crate) fn texts(value: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    Ok(value.extract::<Vec<Text>>()?.into_iter().map(|text| text.0).collect())
}

/// The deepest nesting of values; deeper JSON is refused anyway.
const DEPTH: usize = 200;

/// Copies a value; its texts, including those of nested values, have no lone surrogates.
pub(crate) fn without_surrogates<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    clean(value, DEPTH)
}

fn clean<'py>(value: &Bound<'py, PyAny>, depth: usize) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    if let Ok(string) = value.cast::<PyString>() {
        return Ok(PyString::new(py, &text(string)?).into_any());
    }
    if depth == 0 || value.is_instance_of::<PyBytes>() {
        return Ok(value.clone());
    }
    if let Ok(mapping) = value.cast::<PyMapping>() {
        let copy = PyDict::new(py);
        for item in mapping.items()?.iter() {
            let (key, item): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            copy.set_item(clean(&key, depth - 1)?, clean(&item, depth - 1)?)?;
        }
        return Ok(copy.into_any());
    }
    if value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyTuple>()
        || value.cast::<PySequence>().is_ok()
    {
        let items = value.try_iter()?.map(|item| clean(&item?, depth - 1)).collect::<PyResult<Vec<_>>>()?;
        return Ok(PyList::new(py, items)?.into_any());
    }
    Ok(value.clone())
}
