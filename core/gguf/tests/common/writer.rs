//! Writes GGUF files for tests. Unlike a real writer it also writes invalid files: every count, length, type
//! id and offset can be set to a wrong value. It records the offset of each field, so that a test can check
//! the offset in an error.

use std::collections::HashMap;

use realm_gguf::{Array, TensorType, Value};

/// The order of a number's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endian {
    Little,
    Big,
}

/// A metadata value: a valid one, or a type id with arbitrary bytes.
enum Entry {
    Value(Value),
    Raw(u32, Vec<u8>),
}

struct Tensor {
    name: Vec<u8>,
    shape: Vec<u64>,
    type_id: u32,
    /// The offset in the index; by default the true one.
    offset: Option<u64>,
    data: Vec<u8>,
}

/// A file under construction.
pub(crate) struct Writer {
    version: u32,
    endian: Endian,
    alignment: usize,
    metadata: Vec<(Vec<u8>, Entry)>,
    tensors: Vec<Tensor>,
    metadata_count: Option<u64>,
    tensor_count: Option<u64>,
}

/// A file and the offsets of its fields.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    places: HashMap<String, u64>,
}

impl Written {
    /// Returns the offset of a field: `tensor count`, `metadata count`, `key K`, `value K` (its type id),
    /// `tensor T`, `T dims`, `T shape`, `T type`, `T offset`, `data`.
    pub(crate) fn place(&self, field: &str) -> u64 {
        *self.places.get(field).unwrap_or_else(|| panic!("no field {field}"))
    }
}

impl Writer {
    /// An empty little-endian file of version 3 with the usual alignment, 32 bytes.
    pub(crate) fn new() -> Self {
        Self {
            version: 3,
            endian: Endian::Little,
            alignment: 32,
            metadata: Vec::new(),
            tensors: Vec::new(),
            metadata_count: None,
            tensor_count: None,
        }
    }

    pub(crate) fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn endian(mut self, endian: Endian) -> Self {
        self.endian = endian;
        self
    }

    /// Aligns tensors to `alignment` bytes without an entry in the metadata.
    pub(crate) fn silent_alignment(mut self, alignment: usize) -> Self {
        self.alignment = alignment;
        self
    }

    /// Aligns tensors to `alignment` bytes.
    pub(crate) fn alignment(self, alignment: u32) -> Self {
        self.silent_alignment(alignment as usize).value("general.alignment", Value::U32(alignment))
    }

    pub(crate) fn value(self, key: impl AsRef<[u8]>, value: Value) -> Self {
        self.entry(key, Entry::Value(value))
    }

    /// Adds a value of type `type_id` with the arbitrary bytes `bytes`.
    pub(crate) fn raw(self, key: impl AsRef<[u8]>, type_id: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.entry(key, Entry::Raw(type_id, bytes.into()))
    }

    fn entry(mut self, key: impl AsRef<[u8]>, entry: Entry) -> Self {
        self.metadata.push((key.as_ref().to_vec(), entry));
        self
    }

    /// Adds a tensor whose bytes count up from the number of tensors before it.
    pub(crate) fn tensor(self, name: &str, shape: &[u64], ty: TensorType) -> Self {
        let row = shape[0] as usize / ty.block_len() * ty.block_bytes();
        let bytes = row * shape[1..].iter().product::<u64>() as usize;
        let first = self.tensors.len();
        self.tensor_with(name, shape, ty.id(), (first..first + bytes).map(|i| i as u8).collect::<Vec<_>>())
    }

    /// Adds a tensor of any type id with any bytes.
    pub(crate) fn tensor_with(
        mut self,
        name: impl AsRef<[u8]>,
        shape: &[u64],
        type_id: u32,
        data: impl Into<Vec<u8>>,
    ) -> Self {
        let (name, data) = (name.as_ref().to_vec(), data.into());
        self.tensors.push(Tensor { name, shape: shape.to_vec(), type_id, offset: None, data });
        self
    }

    /// Makes the index claim that the last tensor lies at `offset` of the data.
    pub(crate) fn claim_offset(mut self, offset: u64) -> Self {
        self.tensors.last_mut().expect("a tensor").offset = Some(offset);
        self
    }

    pub(crate) fn claim_tensors(mut self, count: u64) -> Self {
        self.tensor_count = Some(count);
        self
    }

    pub(crate) fn claim_metadata(mut self, count: u64) -> Self {
        self.metadata_count = Some(count);
        self
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.write().bytes
    }

    /// Returns the file's bytes and the offsets of its fields.
    pub(crate) fn write(&self) -> Written {
        let mut out = Out { endian: self.endian, bytes: b"GGUF".to_vec(), places: HashMap::new() };
        out.u32(self.version);
        out.place("tensor count");
        out.count(self.version, self.tensor_count.unwrap_or(self.tensors.len() as u64));
        out.place("metadata count");
        out.count(self.version, self.metadata_count.unwrap_or(self.metadata.len() as u64));
        for (key, entry) in &self.metadata {
            let name = String::from_utf8_lossy(key);
            out.place(&format!("key {name}"));
            out.string(key);
            out.place(&format!("value {name}"));
            match entry {
                Entry::Value(value) => out.value(value),
                Entry::Raw(type_id, bytes) => {
                    out.u32(*type_id);
                    out.bytes.extend(bytes);
                }
            }
        }
        let mut next = 0;
        for t in &self.tensors {
            let name = String::from_utf8_lossy(&t.name);
            out.place(&format!("tensor {name}"));
            out.string(&t.name);
            out.place(&format!("{name} dims"));
            out.u32(t.shape.len() as u32);
            out.place(&format!("{name} shape"));
            t.shape.iter().for_each(|&dim| out.u64(dim));
            out.place(&format!("{name} type"));
            out.u32(t.type_id);
            out.place(&format!("{name} offset"));
            out.u64(t.offset.unwrap_or(next as u64));
            next = (next + t.data.len()).next_multiple_of(self.alignment);
        }
        for t in &self.tensors {
            out.bytes.resize(out.bytes.len().next_multiple_of(self.alignment), 0);
            out.places.entry("data".into()).or_insert(out.bytes.len() as u64);
            out.bytes.extend(&t.data);
        }
        Written { bytes: out.bytes, places: out.places }
    }
}

/// A growing file.
struct Out {
    endian: Endian,
    bytes: Vec<u8>,
    places: HashMap<String, u64>,
}

macro_rules! numbers {
    ($($ty:ident)*) => {$(
        fn $ty(&mut self, v: $ty) {
            match self.endian {
                Endian::Little => self.bytes.extend(v.to_le_bytes()),
                Endian::Big => self.bytes.extend(v.to_be_bytes()),
            }
        }
    )*};
}

impl Out {
    numbers! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 }

    fn place(&mut self, field: &str) {
        self.places.insert(field.to_owned(), self.bytes.len() as u64);
    }

    fn bool(&mut self, v: bool) {
        self.bytes.push(v.into());
    }

    /// Version 1 counts with 32 bits.
    fn count(&mut self, version: u32, count: u64) {
        if version == 1 { self.u32(count as u32) } else { self.u64(count) }
    }

    fn string(&mut self, s: &[u8]) {
        self.u64(s.len() as u64);
        self.bytes.extend(s);
    }

    fn value(&mut self, value: &Value) {
        macro_rules! tagged {
            ($id:literal, $write:ident, $v:expr) => {{
                self.u32($id);
                self.$write($v)
            }};
        }
        match value {
            Value::U8(v) => tagged!(0, u8, *v),
            Value::I8(v) => tagged!(1, i8, *v),
            Value::U16(v) => tagged!(2, u16, *v),
            Value::I16(v) => tagged!(3, i16, *v),
            Value::U32(v) => tagged!(4, u32, *v),
            Value::I32(v) => tagged!(5, i32, *v),
            Value::F32(v) => tagged!(6, f32, *v),
            Value::Bool(v) => tagged!(7, bool, *v),
            Value::String(v) => tagged!(8, string, v.as_bytes()),
            Value::Array(v) => tagged!(9, array, v),
            Value::U64(v) => tagged!(10, u64, *v),
            Value::I64(v) => tagged!(11, i64, *v),
            Value::F64(v) => tagged!(12, f64, *v),
        }
    }

    /// An array: the elements' type, their number, the elements.
    fn array(&mut self, array: &Array) {
        macro_rules! elements {
            ($id:literal, $write:ident, $v:expr) => {{
                self.u32($id);
                self.u64($v.len() as u64);
                $v.iter().for_each(|v| self.$write(*v))
            }};
        }
        match array {
            Array::U8(v) => elements!(0, u8, v),
            Array::I8(v) => elements!(1, i8, v),
            Array::U16(v) => elements!(2, u16, v),
            Array::I16(v) => elements!(3, i16, v),
            Array::U32(v) => elements!(4, u32, v),
            Array::I32(v) => elements!(5, i32, v),
            Array::F32(v) => elements!(6, f32, v),
            Array::Bool(v) => elements!(7, bool, v),
            Array::Strings(v) => {
                self.u32(8);
                self.u64(v.len() as u64);
                v.iter().for_each(|s| self.string(s));
            }
            Array::Nested(v) => {
                self.u32(9);
                self.u64(v.len() as u64);
                v.iter().for_each(|a| self.array(a));
            }
            Array::U64(v) => elements!(10, u64, v),
            Array::I64(v) => elements!(11, i64, v),
            Array::F64(v) => elements!(12, f64, v),
        }
    }
}
