//! Plain results: objects with attributes, equal to others with the same ones.

/// Defines a Python class of read-only attributes with a `repr`, and a comparison with others of the class.
macro_rules! record {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[pyo3::pyclass(frozen, get_all, module = "realm", skip_from_py_object)]
        pub(crate) struct $name {
            $($(#[$field_about])* pub(crate) $field: $type,)*
        }

        #[pyo3::pymethods]
        impl $name {
            fn __repr__(slf: &pyo3::Bound<'_, Self>) -> pyo3::PyResult<String> {
                use pyo3::prelude::*;
                let mut fields = Vec::new();
                $(fields.push(format!("{}={}", stringify!($field), slf.getattr(stringify!($field))?.repr()?));)*
                Ok(format!("{}({})", stringify!($name), fields.join(", ")))
            }

            fn __eq__(slf: &pyo3::Bound<'_, Self>, other: &pyo3::Bound<'_, pyo3::PyAny>) -> pyo3::PyResult<bool> {
                use pyo3::prelude::*;
                if !other.is_instance_of::<Self>() {
                    return Ok(false);
                }
                $(if !slf.getattr(stringify!($field))?.eq(other.getattr(stringify!($field))?)? {
                    return Ok(false);
                })*
                Ok(true)
            }
        }
    };
}

pub(crate) use record;
