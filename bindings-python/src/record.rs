//! Plain results: objects with attributes, equal if their attributes are, that can be copied and pickled.

use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

/// Defines a Python class of read-only attributes, created from them by position or by name, with a `repr`, a
/// comparison and a hash, for `match`, `copy` and `pickle`.
macro_rules! record {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[pyo3::pyclass(frozen, get_all, module = "realm", skip_from_py_object)]
        pub(crate) struct $name {
            $($(#[$field_about])* pub(crate) $field: $type,)*
        }

        impl $crate::record::Fields for $name {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        $crate::record::with_methods! { $name {
            #[new]
            #[allow(clippy::too_many_arguments)]
            fn make($($field: $type),*) -> Self {
                Self { $($field),* }
            }

            fn __repr__(slf: &pyo3::Bound<'_, Self>) -> pyo3::PyResult<String> {
                $crate::record::repr(slf)
            }
        } }
    };
}

/// Defines the methods of a class, and those of all classes with [`Fields`]: a comparison and a hash, for
/// `match`, `copy` and `pickle`.
macro_rules! with_methods {
    ($name:ident { $($own:tt)* }) => {
        #[pyo3::pymethods]
        impl $name {
            $($own)*

            #[classattr]
            fn __match_args__(py: pyo3::Python<'_>) -> pyo3::PyResult<pyo3::Bound<'_, pyo3::types::PyTuple>> {
                pyo3::types::PyTuple::new(py, <Self as $crate::record::Fields>::FIELDS)
            }

            fn __eq__(slf: &pyo3::Bound<'_, Self>, other: &pyo3::Bound<'_, pyo3::PyAny>) -> pyo3::PyResult<bool> {
                $crate::record::equal(slf, other)
            }

            fn __hash__(slf: &pyo3::Bound<'_, Self>) -> pyo3::PyResult<isize> {
                $crate::record::hash(slf)
            }

            fn __reduce__<'py>(slf: &pyo3::Bound<'py, Self>) -> pyo3::PyResult<$crate::record::Reduced<'py>> {
                $crate::record::reduce(slf)
            }

            /// Returns the attributes as a dict of plain values, including those of nested objects, for
            /// `json.dumps`.
            fn to_dict<'py>(slf: &pyo3::Bound<'py, Self>) -> pyo3::PyResult<pyo3::Bound<'py, pyo3::types::PyDict>> {
                $crate::record::to_dict(slf)
            }
        }
    };
}

pub(crate) use {record, with_methods};

/// The attributes of an object; its class takes their values in this order.
pub(crate) trait Fields {
    const FIELDS: &'static [&'static str];
}

/// A class and its arguments, for `pickle`.
pub(crate) type Reduced<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>);

fn values<'py, T: Fields + PyClass>(object: &Bound<'py, T>) -> PyResult<Bound<'py, PyTuple>> {
    let values =
        T::FIELDS.iter().map(|field| object.as_any().getattr(*field)).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(object.py(), values)
}

pub(crate) fn repr<T: Fields + PyClass>(object: &Bound<'_, T>) -> PyResult<String> {
    let mut fields = Vec::with_capacity(T::FIELDS.len());
    for field in T::FIELDS {
        fields.push(format!("{field}={}", object.as_any().getattr(*field)?.repr()?));
    }
    Ok(format!("{}({})", object.as_any().get_type().name()?, fields.join(", ")))
}

pub(crate) fn equal<T: Fields + PyClass>(object: &Bound<'_, T>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
    match other.cast::<T>() {
        Ok(other) => values(object)?.eq(values(other)?),
        Err(_) => Ok(false),
    }
}

/// Returns the hash of an object whose parts have one; a list has none, as everywhere in Python.
pub(crate) fn hash<T: Fields + PyClass>(object: &Bound<'_, T>) -> PyResult<isize> {
    values(object)?.hash()
}

pub(crate) fn reduce<'py, T: Fields + PyClass>(object: &Bound<'py, T>) -> PyResult<Reduced<'py>> {
    Ok((object.as_any().get_type().into_any(), values(object)?))
}

pub(crate) fn to_dict<'py, T: Fields + PyClass>(object: &Bound<'py, T>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(object.py());
    for field in T::FIELDS {
        dict.set_item(*field, plain(&object.as_any().getattr(*field)?)?)?;
    }
    Ok(dict)
}

fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(list) = value.cast::<PyList>() {
        let values = list.iter().map(|value| plain(&value)).collect::<PyResult<Vec<_>>>()?;
        return Ok(PyList::new(value.py(), values)?.into_any());
    }
    if value.hasattr("to_dict")? {
        return value.call_method0("to_dict");
    }
    if value.hasattr("__fspath__")? {
        return value.call_method0("__fspath__");
    }
    Ok(value.clone())
}
