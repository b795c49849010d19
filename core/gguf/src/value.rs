//! Metadata values: numbers, strings and arrays of them.

use crate::Error;
use crate::reader::{Reader, error_at};

/// Deepest nesting of arrays.
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

/// Many strings in one piece of memory. Strings are bytes, because a vocabulary may hold tokens that are not
/// UTF-8.
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

    /// Returns whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the bytes of string `i`.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        Some(&self.bytes[start..end])
    }

    /// Iterates over all strings in order.
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
    pub(crate) fn kind(&self) -> &'static str {
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

    /// Returns the value as a signed integer, if it is an integer of any width.
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

    /// Reads a value whose type id has been read.
    pub(crate) fn read(r: &mut Reader<'_>, ty: u32, field: &str) -> Result<Self, Error> {
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

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the elements as signed integers, if they are integers of any width.
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
                let bytes = r.take(count as u64, field)?;
                if let Some((i, why)) =
                    bytes.iter().enumerate().find_map(|(i, &b)| Some((i, bool_of(b).err()?)))
                {
                    return Err(error_at(at + i, field, why));
                }
                Self::Bool(bytes.iter().map(|&b| b == 1).collect())
            }
            8 => Self::Strings(read_strings(r, field)?),
            9 if depth < DEPTH => {
                let count = r.nested_count(field)?;
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
    // Read the lengths first, so that the memory is allocated once and in the right size.
    let mut ahead = r.clone();
    let mut total = 0;
    for _ in 0..count {
        let at = ahead.offset();
        total += ahead.bytes(field)?.len();
        if u32::try_from(total).is_err() {
            return Err(error_at(at, field, "more than 4 GiB of strings"));
        }
    }
    let mut out = Strings { bytes: Vec::with_capacity(total), ends: Vec::with_capacity(count) };
    for _ in 0..count {
        out.bytes.extend_from_slice(r.bytes(field)?);
        out.ends.push(out.bytes.len() as u32);
    }
    Ok(out)
}
