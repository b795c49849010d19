//! Metadata: typed keys and values.

use std::collections::HashMap;

use crate::Error;
use crate::reader::{Reader, error_at};
use crate::tensor::short;

/// How deep arrays may nest.
const DEPTH: usize = 4;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// An array of values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Strings(Strings),
    Nested(Vec<Array>),
}

/// Many strings in one piece of memory. They are bytes: a vocabulary may hold tokens that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of string `i`.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        Some(&self.bytes[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i).unwrap_or_default())
    }
}

impl<'a> FromIterator<&'a [u8]> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(strings: I) -> Self {
        let mut out = Self::default();
        for s in strings {
            out.bytes.extend_from_slice(s);
            out.ends.push(out.bytes.len() as u32);
        }
        out
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(_) => "array",
        }
    }

    /// The value as a signed integer, whatever its width.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }

    fn read(r: &mut Reader<'_>, ty: u32, field: &str) -> Result<Self, Error> {
        let at = r.offset();
        macro_rules! number {
            ($variant:ident, $ty:ty) => {{
                let mut bytes = [0; size_of::<$ty>()];
                bytes.copy_from_slice(r.take(size_of::<$ty>() as u64, field)?);
                Self::$variant(<$ty>::from_le_bytes(bytes))
            }};
        }
        Ok(match ty {
            0 => number!(U8, u8),
            1 => number!(I8, i8),
            2 => number!(U16, u16),
            3 => number!(I16, i16),
            4 => number!(U32, u32),
            5 => number!(I32, i32),
            6 => number!(F32, f32),
            7 => Self::Bool(bool_of(r.take(1, field)?[0]).map_err(|why| error_at(at, field, why))?),
            8 => Self::String(r.string(field)?.to_owned()),
            9 => Self::Array(Array::read(r, field, 0)?),
            10 => number!(U64, u64),
            11 => number!(I64, i64),
            12 => number!(F64, f64),
            _ => return Err(error_at(at, field, format!("value type {ty} is unknown"))),
        })
    }
}

fn bool_of(byte: u8) -> Result<bool, String> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(format!("a bool is 0 or 1, not {byte}")),
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Strings(v) => v.len(),
            Self::Nested(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as signed integers, if they are integers of any width.
    pub fn integers(&self) -> Option<Vec<i128>> {
        fn all<T: Copy + Into<i128>>(v: &[T]) -> Vec<i128> {
            v.iter().map(|&v| v.into()).collect()
        }
        Some(match self {
            Self::U8(v) => all(v),
            Self::I8(v) => all(v),
            Self::U16(v) => all(v),
            Self::I16(v) => all(v),
            Self::U32(v) => all(v),
            Self::I32(v) => all(v),
            Self::U64(v) => all(v),
            Self::I64(v) => all(v),
            _ => return None,
        })
    }

    fn read(r: &mut Reader<'_>, field: &str, depth: usize) -> Result<Self, Error> {
        let at = r.offset();
        let ty = r.u32(field)?;
        macro_rules! numbers {
            ($variant:ident, $ty:ty) => {{
                const SIZE: usize = size_of::<$ty>();
                let count = r.count(SIZE as u64, field)?;
                let bytes = r.take((count * SIZE) as u64, field)?;
                Self::$variant(bytes.as_chunks::<SIZE>().0.iter().map(|&b| <$ty>::from_le_bytes(b)).collect())
            }};
        }
        Ok(match ty {
            0 => numbers!(U8, u8),
            1 => numbers!(I8, i8),
            2 => numbers!(U16, u16),
            3 => numbers!(I16, i16),
            4 => numbers!(U32, u32),
            5 => numbers!(I32, i32),
            6 => numbers!(F32, f32),
            7 => {
                let count = r.count(1, field)?;
                let at = r.offset();
                let bools =
                    r.take(count as u64, field)?.iter().map(|&b| bool_of(b)).collect::<Result<_, _>>();
                Self::Bool(bools.map_err(|why| error_at(at, field, why))?)
            }
            8 => Self::Strings(read_strings(r, field)?),
            9 if depth < DEPTH => {
                // The smallest array: its type and its count.
                let count = r.count(4 + 8, field)?;
                Self::Nested((0..count).map(|_| Self::read(r, field, depth + 1)).collect::<Result<_, _>>()?)
            }
            9 => return Err(error_at(at, field, format!("arrays nest deeper than {DEPTH}"))),
            10 => numbers!(U64, u64),
            11 => numbers!(I64, i64),
            12 => numbers!(F64, f64),
            _ => return Err(error_at(at, field, format!("array element type {ty} is unknown"))),
        })
    }
}

fn read_strings(r: &mut Reader<'_>, field: &str) -> Result<Strings, Error> {
    let count = r.count(8, field)?;
    let mut out = Strings::default();
    for _ in 0..count {
        let at = r.offset();
        out.bytes.extend_from_slice(r.bytes(field)?);
        let end = u32::try_from(out.bytes.len());
        out.ends.push(end.map_err(|_| error_at(at, field, "more than 4 GiB of strings"))?);
    }
    Ok(out)
}

/// The metadata of a file.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
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
    /// Metadata that is not in a file, for tests and tools. A later value replaces an earlier one.
    pub fn from_entries(entries: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut out = Self::default();
        for (key, value) in entries {
            match out.by_key.get(&key) {
                Some(&i) => out.entries[i].1 = value,
                None => out.push(key, value),
            }
        }
        out
    }

    fn push(&mut self, key: String, value: Value) {
        self.by_key.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
    }

    pub(crate) fn read(r: &mut Reader<'_>, count: usize) -> Result<Self, Error> {
        let mut out = Self::default();
        for i in 0..count {
            let at = r.offset();
            let key = r.string(&format!("key of metadata entry {i}"))?.to_owned();
            let field = format!("metadata `{}`", short(&key));
            if key.is_empty() || key.len() > 65_535 {
                return Err(error_at(at, field, "a key has 1 to 65535 bytes"));
            }
            if out.by_key.contains_key(&key) {
                return Err(error_at(at, field, "is there twice"));
            }
            let ty = r.u32(&field)?;
            let value = Value::read(r, ty, &field)?;
            out.push(key, value);
        }
        Ok(out)
    }

    /// A value by key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&i| &self.entries[i].1)
    }

    /// All entries in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
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

    /// An integer of any width that fits 32 bits without sign; `None` if the key is absent.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.read_as(key, "an integer from 0 to 4294967295", |v| v.integer()?.try_into().ok())
    }

    /// An integer of any width that is not negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.read_as(key, "an integer that is not negative", |v| v.integer()?.try_into().ok())
    }

    /// A float, or an integer that stands for one.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.read_as(key, "a number", |v| match *v {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => v.integer().map(|v| v as f32),
        })
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read_as(key, "a bool", |v| if let Value::Bool(v) = v { Some(*v) } else { None })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.read_as(key, "a string", |v| if let Value::String(v) = v { Some(v.as_str()) } else { None })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>, Error> {
        self.read_as(key, "an array of strings", |v| match v {
            Value::Array(Array::Strings(v)) => Some(v),
            _ => None,
        })
    }

    /// An array of integers of any width that fit 32 bits without sign.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        self.read_as(key, "an array of integers from 0 to 4294967295", |v| integers(v))
    }

    /// An array of integers of any width that fit 32 bits with sign.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, Error> {
        self.read_as(key, "an array of 32-bit integers", |v| integers(v))
    }

    /// An array of floats.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        self.read_as(key, "an array of floats", |v| match v {
            Value::Array(Array::F32(v)) => Some(v.clone()),
            Value::Array(Array::F64(v)) => Some(v.iter().map(|&v| v as f32).collect()),
            _ => None,
        })
    }

    /// An array of bools.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, Error> {
        self.read_as(key, "an array of bools", |v| match v {
            Value::Array(Array::Bool(v)) => Some(v.clone()),
            _ => None,
        })
    }

    readers! {
        /// As [`Metadata::u32`]; an error if the key is absent.
        u32, require_u32 -> u32;
        /// As [`Metadata::u64`]; an error if the key is absent.
        u64, require_u64 -> u64;
        /// As [`Metadata::f32`]; an error if the key is absent.
        f32, require_f32 -> f32;
        /// As [`Metadata::bool`]; an error if the key is absent.
        bool, require_bool -> bool;
        /// As [`Metadata::str`]; an error if the key is absent.
        str, require_str -> &str;
        /// As [`Metadata::strings`]; an error if the key is absent.
        strings, require_strings -> &Strings;
    }
}

fn integers<T: TryFrom<i128>>(value: &Value) -> Option<Vec<T>> {
    let Value::Array(array) = value else { return None };
    array.integers()?.into_iter().map(|v| T::try_from(v).ok()).collect()
}

fn describe(value: &Value) -> String {
    match value.integer() {
        Some(v) => v.to_string(),
        None => format!("a value of type {}", value.kind()),
    }
}
