//! Keyword arguments, given as a dict.

use std::str::FromStr;

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyString};

use crate::errors::{exception, invalid};

/// Returns the given arguments, each with its name from the `known` ones. An argument that is `None` counts
/// as missing.
///
/// # Errors
/// `TypeError` for an unknown argument.
pub(crate) fn given<'py>(
    arguments: Option<&Bound<'py, PyDict>>,
    known: &[&'static str],
) -> impl Iterator<Item = PyResult<(&'static str, Bound<'py, PyAny>)>> {
    arguments.into_iter().flatten().filter_map(|(key, value)| match name(&key, known) {
        Ok(_) if value.is_none() => None,
        Ok(name) => Some(Ok((name, value))),
        Err(error) => Some(Err(error)),
    })
}

fn name(key: &Bound<'_, PyAny>, known: &[&'static str]) -> PyResult<&'static str> {
    let key = key.cast::<PyString>()?.to_str()?;
    known.iter().copied().find(|&name| name == key).ok_or_else(|| unexpected(key))
}

/// Returns the error for an unknown argument.
pub(crate) fn unexpected(key: &str) -> PyErr {
    PyTypeError::new_err(format!("got an unexpected keyword argument '{key}'"))
}

/// Adds the argument's name to the error about its value.
pub(crate) fn named(py: Python<'_>, key: &str, error: PyErr) -> PyErr {
    if error.is_instance_of::<PyTypeError>(py) {
        return PyTypeError::new_err(format!("argument '{key}': {}", error.value(py)));
    }
    if error.is_instance_of::<PyOverflowError>(py) {
        return invalid(&format!("{key}: {}", error.value(py)));
    }
    error
}

/// Returns a whole number for the argument `name`; `None` for `None`.
///
/// # Errors
/// `TypeError` for any other type, bools and floats included; `invalid-argument`, which is a `ValueError`
/// too, for a number that is negative or too large.
pub(crate) fn count<T: TryFrom<u64> + Bounded>(
    name: &str,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<T>> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(None) };
    let wrong = || {
        let kind = value.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("{name} is a whole number, not a {kind}"))
    };
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyFloat>() {
        return Err(wrong());
    }
    let number = match value.extract::<u64>() {
        Ok(number) => T::try_from(number).ok(),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => None,
        Err(_) => return Err(wrong()),
    };
    number.map(Some).ok_or_else(|| invalid(&format!("{name} is {value}; it must be from 0 to {}", T::MOST)))
}

/// Returns the value of an enum, given by its name.
///
/// # Errors
/// `TypeError` for any other type, `invalid-argument` for an unknown name.
pub(crate) fn chosen<T: FromStr>(value: &Bound<'_, PyAny>) -> PyResult<T>
where
    realm::Error: From<T::Err>,
{
    value.extract::<&str>()?.parse().map_err(|error: T::Err| exception(&error.into()))
}

/// The largest number of a type.
pub(crate) trait Bounded {
    const MOST: u64;
}

impl Bounded for u32 {
    const MOST: u64 = u32::MAX as u64;
}

impl Bounded for u64 {
    const MOST: u64 = u64::MAX;
}

impl Bounded for usize {
    const MOST: u64 = usize::MAX as u64;
}

/// Token ids: any sequence of whole numbers. Other threads run between parts of a long one.
///
/// # Errors
/// `TypeError` for any other type, `invalid-argument` for a number that is not a token id.
pub(crate) struct Tokens(pub(crate) Vec<u32>);

impl<'a, 'py> FromPyObject<'a, 'py> for Tokens {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let wrong = || PyTypeError::new_err("token ids are a list of whole numbers");
        // Bytes are a sequence of numbers, too, but hardly token ids.
        if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
            return Err(wrong());
        }
        let mut tokens = Vec::new();
        for item in value.try_iter().map_err(|_| wrong())? {
            let item = item?;
            match item.extract::<u32>() {
                Ok(token) if !item.is_instance_of::<PyBool>() => tokens.push(token),
                Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
                    return Err(invalid(&format!("{item} is no token's id")));
                }
                _ => return Err(wrong()),
            }
            if tokens.len() % TURN == 0 {
                value.py().detach(|| {});
            }
        }
        Ok(Self(tokens))
    }
}

/// The number of list items that are read or created at once; then another thread may have the GIL.
pub(crate) const TURN: usize = 1 << 15;

/// Returns token ids as a list. Other threads run between parts of a long one.
pub(crate) fn token_list<'py>(py: Python<'py>, tokens: &[u32]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (i, part) in tokens.chunks(TURN).enumerate() {
        if i > 0 {
            py.detach(|| {});
        }
        list.call_method1("extend", (PyList::new(py, part)?,))?;
    }
    Ok(list)
}
