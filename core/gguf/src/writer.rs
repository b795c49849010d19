//! Writes GGUF files of version 3: the header first, then one tensor after the other.

use std::io::{self, Write};

use crate::metadata::Metadata;
use crate::{Array, TensorInfo, Value};

/// A file whose header is written and whose tensors follow, in the order of the index.
///
/// ```
/// use realm_gguf::{Gguf, Metadata, TensorInfo, TensorType, Value, Writer};
///
/// let metadata = Metadata::from_entries([("general.architecture".into(), Value::String("llama".into()))]);
/// let index = [TensorInfo::new("output_norm.weight", vec![2], TensorType::F32).unwrap()];
/// let mut writer = Writer::new(Vec::new(), &metadata, &index)?;
/// writer.tensor(&[0; 8])?;
/// let file = Gguf::from_bytes(writer.finish()?)?;
/// assert_eq!(file.tensors()[0].shape, [2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer<W: Write> {
    out: W,
    alignment: usize,
    /// Sizes of the tensors that are not written yet, the next one last.
    sizes: Vec<usize>,
}

impl<W: Write> Writer<W> {
    /// Writes the header: metadata, and the index of `tensors`, of which only names, shapes and types count.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, metadata: &Metadata, tensors: &[TensorInfo]) -> io::Result<Self> {
        let alignment = metadata.alignment();
        let mut header = b"GGUF".to_vec();
        put(&mut header, 3u32.to_le_bytes());
        put(&mut header, (tensors.len() as u64).to_le_bytes());
        put(&mut header, (metadata.iter().len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            string(&mut header, key.as_bytes());
            self::value(&mut header, value);
        }
        let mut offset = 0;
        for tensor in tensors {
            string(&mut header, tensor.name.as_bytes());
            put(&mut header, (tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|dim| put(&mut header, dim.to_le_bytes()));
            put(&mut header, tensor.ty.id().to_le_bytes());
            put(&mut header, (offset as u64).to_le_bytes());
            offset += tensor.bytes().next_multiple_of(alignment);
        }
        header.resize(header.len().next_multiple_of(alignment), 0);
        out.write_all(&header)?;
        Ok(Self { out, alignment, sizes: tensors.iter().rev().map(TensorInfo::bytes).collect() })
    }

    /// Writes the next tensor's blocks.
    ///
    /// # Errors
    /// Those of the output, and `InvalidInput` if the index has no further tensor, or one of another size.
    pub fn tensor(&mut self, data: &[u8]) -> io::Result<()> {
        if self.sizes.last() != Some(&data.len()) {
            let why = format!("{} bytes for a tensor whose size is {:?}", data.len(), self.sizes.last());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.sizes.pop();
        self.out.write_all(data)?;
        let padding = data.len().next_multiple_of(self.alignment) - data.len();
        self.out.write_all(&vec![0; padding])
    }

    /// Ends the file and returns the output.
    ///
    /// # Errors
    /// Those of the output, and `InvalidInput` if tensors are missing.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.sizes.is_empty() {
            let why = format!("{} tensors are missing", self.sizes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    put(out, (text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
}

/// Writes a type id and a value.
fn value(out: &mut Vec<u8>, value: &Value) {
    macro_rules! tagged {
        ($id:literal, $bytes:expr) => {{
            put(out, u32::to_le_bytes($id));
            put(out, $bytes);
        }};
    }
    match value {
        Value::U8(v) => tagged!(0, v.to_le_bytes()),
        Value::I8(v) => tagged!(1, v.to_le_bytes()),
        Value::U16(v) => tagged!(2, v.to_le_bytes()),
        Value::I16(v) => tagged!(3, v.to_le_bytes()),
        Value::U32(v) => tagged!(4, v.to_le_bytes()),
        Value::I32(v) => tagged!(5, v.to_le_bytes()),
        Value::F32(v) => tagged!(6, v.to_le_bytes()),
        Value::Bool(v) => tagged!(7, [u8::from(*v)]),
        Value::String(v) => {
            tagged!(8, []);
            string(out, v.as_bytes());
        }
        Value::Array(v) => {
            tagged!(9, []);
            array(out, v);
        }
        Value::U64(v) => tagged!(10, v.to_le_bytes()),
        Value::I64(v) => tagged!(11, v.to_le_bytes()),
        Value::F64(v) => tagged!(12, v.to_le_bytes()),
    }
}

/// Writes the elements' type id, their number, and the elements.
fn array(out: &mut Vec<u8>, array: &Array) {
    macro_rules! elements {
        ($id:literal, $all:expr, $each:expr) => {{
            put(out, u32::to_le_bytes($id));
            put(out, ($all.len() as u64).to_le_bytes());
            $all.iter().for_each(|v| $each(out, v))
        }};
    }
    macro_rules! numbers {
        ($id:literal, $all:expr) => {{
            put(out, u32::to_le_bytes($id));
            put(out, ($all.len() as u64).to_le_bytes());
            for v in $all {
                put(out, v.to_le_bytes());
            }
        }};
    }
    match array {
        Array::U8(v) => numbers!(0, v),
        Array::I8(v) => numbers!(1, v),
        Array::U16(v) => numbers!(2, v),
        Array::I16(v) => numbers!(3, v),
        Array::U32(v) => numbers!(4, v),
        Array::I32(v) => numbers!(5, v),
        Array::F32(v) => numbers!(6, v),
        Array::Bool(v) => elements!(7, v, |out: &mut Vec<u8>, v: &bool| put(out, [u8::from(*v)])),
        Array::Strings(v) => elements!(8, v, |out: &mut Vec<u8>, v: &[u8]| string(out, v)),
        Array::Nested(v) => elements!(9, v, |out: &mut Vec<u8>, v: &Array| self::array(out, v)),
        Array::U64(v) => numbers!(10, v),
        Array::I64(v) => numbers!(11, v),
        Array::F64(v) => numbers!(12, v),
    }
}
