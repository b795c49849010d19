//! Metadata: values by key.

use std::collections::HashMap;
use std::sync::Arc;

use crate::reader::{Reader, error_at};
use crate::tensor::short;
use crate::{Array, Error, Strings, Value};

/// The key of the tensors' alignment.
const ALIGNMENT: &str = "general.alignment";

/// The metadata of a file.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(Arc<str>, Value)>,
    by_key: HashMap<Arc<str>, usize>,
}

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident, $require:ident -> $ty:ty;)*) => {$(
        $(#[$doc])*
        pub fn $require(&self, key: &str) -> Result<$ty, Error> {
            self.$name(key)?.ok_or_else(|| Error::metadata(key, "is missing"))
        }
    )*};
}

impl Metadata {
    /// Makes metadata from entries that are not in a file, for tests and tools. A later value replaces an
    /// earlier one.
    pub fn from_entries(entries: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut out = Self::default();
        for (key, value) in entries {
            match out.by_key.get(key.as_str()) {
                Some(&i) => out.entries[i].1 = value,
                None => out.push(&key, value),
            }
        }
        out
    }

    fn push(&mut self, key: &str, value: Value) {
        let key: Arc<str> = key.into();
        self.by_key.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
    }

    pub(crate) fn read(r: &mut Reader<'_>, count: usize) -> Result<Self, Error> {
        let mut out = Self::default();
        for i in 0..count {
            let at = r.offset();
            let key = r.string(&format!("key of metadata entry {i}"))?;
            let field = format!("metadata `{}`", short(key));
            if key.is_empty() || key.len() > 65_535 {
                return Err(error_at(at, field, "a key has 1 to 65535 bytes"));
            }
            if out.by_key.contains_key(key) {
                return Err(error_at(at, field, "is there twice"));
            }
            let at = r.offset();
            let ty = r.u32(&field)?;
            let value = Value::read(r, ty, &field)?;
            if key == ALIGNMENT && alignment_of(&value).is_none() {
                let why = format!("is {}; a power of two up to 1 MiB is needed", describe(&value));
                return Err(error_at(at, field, why));
            }
            out.push(key, value);
        }
        Ok(out)
    }

    /// The alignment of tensors in bytes.
    pub(crate) fn alignment(&self) -> usize {
        self.get(ALIGNMENT).and_then(alignment_of).unwrap_or(32)
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&i| &self.entries[i].1)
    }

    /// All entries in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (&**k, v))
    }

    fn read_as<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::metadata(key, format!("is {}; {wanted} is needed", describe(value)))),
        }
    }

    /// Returns an integer of any width that fits a `u32`; `None` if the key is absent.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.read_as(key, "an integer from 0 to 4294967295", |v| v.integer()?.try_into().ok())
    }

    /// Returns an integer of any width that is not negative; `None` if the key is absent.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.read_as(key, "an integer that is not negative", |v| v.integer()?.try_into().ok())
    }

    /// Returns a float, or an integer as a float; `None` if the key is absent.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.read_as(key, "a number", |v| match *v {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => v.integer().map(|v| v as f32),
        })
    }

    /// Returns a bool; `None` if the key is absent.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read_as(key, "a bool", |v| if let Value::Bool(v) = v { Some(*v) } else { None })
    }

    /// Returns a string; `None` if the key is absent.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.read_as(key, "a string", |v| if let Value::String(v) = v { Some(v.as_str()) } else { None })
    }

    /// Returns an array of strings; `None` if the key is absent.
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>, Error> {
        self.read_as(key, "an array of strings", |v| match v {
            Value::Array(Array::Strings(v)) => Some(v),
            _ => None,
        })
    }

    /// Returns an array of integers of any width that fit a `u32`; `None` if the key is absent.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        self.read_as(key, "an array of integers from 0 to 4294967295", integers)
    }

    /// Returns an array of integers of any width that fit an `i32`; `None` if the key is absent.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, Error> {
        self.read_as(key, "an array of 32-bit integers", integers)
    }

    /// Returns an array of floats; `None` if the key is absent.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        self.read_as(key, "an array of floats", |v| match v {
            Value::Array(Array::F32(v)) => Some(v.clone()),
            Value::Array(Array::F64(v)) => Some(v.iter().map(|&v| v as f32).collect()),
            _ => None,
        })
    }

    /// Returns an array of bools; `None` if the key is absent.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, Error> {
        self.read_as(key, "an array of bools", |v| match v {
            Value::Array(Array::Bool(v)) => Some(v.clone()),
            _ => None,
        })
    }

    readers! {
        /// Same as [`Metadata::u32`], but an absent key is an error.
        u32, require_u32 -> u32;
        /// Same as [`Metadata::u64`], but an absent key is an error.
        u64, require_u64 -> u64;
        /// Same as [`Metadata::f32`], but an absent key is an error.
        f32, require_f32 -> f32;
        /// Same as [`Metadata::bool`], but an absent key is an error.
        bool, require_bool -> bool;
        /// Same as [`Metadata::str`], but an absent key is an error.
        str, require_str -> &str;
        /// Same as [`Metadata::strings`], but an absent key is an error.
        strings, require_strings -> &Strings;
    }
}

/// Converts one element at a time: all of them at the widest type would take 16 times the memory of an array
/// of bytes.
fn integers<T: TryFrom<i128>>(value: &Value) -> Option<Vec<T>> {
    fn all<T: TryFrom<i128>, U: Copy + Into<i128>>(values: &[U]) -> Option<Vec<T>> {
        let mut out = Vec::with_capacity(values.len());
        for &value in values {
            out.push(T::try_from(value.into()).ok()?);
        }
        Some(out)
    }
    let Value::Array(array) = value else { return None };
    match array {
        Array::U8(v) => all(v),
        Array::I8(v) => all(v),
        Array::U16(v) => all(v),
        Array::I16(v) => all(v),
        Array::U32(v) => all(v),
        Array::I32(v) => all(v),
        Array::U64(v) => all(v),
        Array::I64(v) => all(v),
        _ => None,
    }
}

fn alignment_of(value: &Value) -> Option<usize> {
    let alignment = usize::try_from(value.integer()?).ok()?;
    (alignment.is_power_of_two() && alignment <= 1 << 20).then_some(alignment)
}

fn describe(value: &Value) -> String {
    match value.integer() {
        Some(v) => v.to_string(),
        None => format!("a value of type {}", value.kind()),
    }
}
