//! The index of safetensors files. Format: huggingface/safetensors, README: 8 bytes with the header's length,
//! a JSON object of names with type, shape and offsets, then the numbers.

use std::collections::HashMap;
use std::path::Path;

use realm_gguf::OpenFile;
use serde_json::{Map, Value};

use crate::Error;
use crate::error::short;

/// Most bytes of a header. The largest real ones, of models with hundreds of experts, have a few.
const MOST_HEADER: u64 = 32 << 20;
/// Most tensors of a model.
const MOST_TENSORS: usize = 1 << 18;

/// The types of numbers that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    BF16,
    /// 8-bit floats with 4 bits of exponent.
    E4M3,
    U8,
    I32,
    I64,
}

impl Dtype {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::E4M3,
            "U8" => Self::U8,
            "I32" => Self::I32,
            "I64" => Self::I64,
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::E4M3 | Self::U8 => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }
}

/// A tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// `None` for a type that is not read; tensors that are not needed may have one.
    pub(super) dtype: Option<Dtype>,
    /// The name of the type in the file.
    pub(super) dtype_name: String,
    /// The outermost dimension first.
    pub(super) shape: Vec<usize>,
    file: usize,
    at: u64,
    len: usize,
}

/// The files of a model.
pub(super) struct Files {
    files: Vec<OpenFile>,
    pub(super) tensors: HashMap<String, Stored>,
}

impl Files {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` lists.
    pub(super) fn open(folder: &Path, index: Option<&Map<String, Value>>) -> Result<Self, Error> {
        let mut this = Self { files: Vec::new(), tensors: HashMap::new() };
        let names = match index {
            Some(index) => listed(index)?,
            None => vec!["model.safetensors".to_owned()],
        };
        for name in names {
            this.add(&folder.join(name))?;
        }
        Ok(this)
    }

    fn add(&mut self, path: &Path) -> Result<(), Error> {
        let file = OpenFile::open(path)?;
        let invalid = |why: String| Error::Folder(format!("{}: {why}", path.display()));
        let mut length = [0; 8];
        if file.len() < 8 {
            return Err(invalid(format!("{} bytes are no safetensors file", file.len())));
        }
        file.read(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MOST_HEADER || length > file.len() - 8 {
            let why = if length > MOST_HEADER {
                format!("up to {MOST_HEADER} are read")
            } else {
                "the file is shorter".into()
            };
            return Err(invalid(format!(
                "a safetensors header of {length} bytes; {why}. Fetch the file again"
            )));
        }
        let mut header = vec![0; length as usize];
        file.read(8, &mut header)?;
        let data = file.len() - 8 - length;
        for (name, tensor) in parse(&header, data).map_err(invalid)? {
            let stored = Stored { file: self.files.len(), at: tensor.at + 8 + length, ..tensor };
            if self.tensors.insert(name.clone(), stored).is_some() {
                return Err(invalid(format!("tensor `{}` is in another file too", short(&name))));
            }
            if self.tensors.len() > MOST_TENSORS {
                return Err(invalid(format!(
                    "the model has more than the {MOST_TENSORS} tensors that are read"
                )));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// Reads a whole tensor.
    pub(super) fn read(&self, tensor: &Stored, out: &mut Vec<u8>) -> Result<(), realm_gguf::Error> {
        out.resize(tensor.len, 0);
        self.files[tensor.file].read(tensor.at, out)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(OpenFile::len).sum()
    }
}

/// The files of an index, each once and in the order of their names.
fn listed(index: &Map<String, Value>) -> Result<Vec<String>, Error> {
    let invalid = |why: String| Error::Folder(format!("model.safetensors.index.json: {why}"));
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| invalid("`weight_map` is no object".into()))?;
    let mut names = Vec::new();
    for name in map.values() {
        let name = name.as_str().unwrap_or_default();
        // A name with a separator could lead anywhere.
        let plain = name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '\0']);
        if !plain {
            return Err(invalid(format!(
                "`{}` is no name of a safetensors file in this folder",
                short(name)
            )));
        }
        names.push(name.to_owned());
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Reads a header. `data` is the number of bytes after it. Offsets are relative to the data.
fn parse(header: &[u8], data: u64) -> Result<Vec<(String, Stored)>, String> {
    let header: Map<String, Value> =
        serde_json::from_slice(header).map_err(|why| format!("the header is no JSON object: {why}"))?;
    let mut tensors = Vec::new();
    for (name, entry) in &header {
        if name == "__metadata__" {
            continue;
        }
        let wrong = |what: &str| format!("tensor `{}`: {what}", short(name));
        let dtype_name =
            entry.get("dtype").and_then(Value::as_str).ok_or_else(|| wrong("`dtype` is no text"))?;
        let numbers = |key: &str| -> Option<Vec<u64>> {
            entry.get(key)?.as_array()?.iter().map(Value::as_u64).collect()
        };
        let shape = numbers("shape").ok_or_else(|| wrong("`shape` is no array of numbers"))?;
        let offsets = numbers("data_offsets").unwrap_or_default();
        let &[start, end] = &offsets[..] else { return Err(wrong("`data_offsets` are not two numbers")) };
        if start > end || end > data {
            return Err(wrong(&format!("bytes {start} to {end} of {data}; the file is cut or damaged")));
        }
        let dtype = Dtype::named(dtype_name);
        let sizes = shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim));
        let fits =
            |dtype: Dtype| sizes.and_then(|n| n.checked_mul(dtype.bytes() as u64)) == Some(end - start);
        if shape.len() > 8 || dtype.is_some_and(|dtype| !fits(dtype)) {
            return Err(wrong(&format!("shape {shape:?} of {dtype_name} in {} bytes", end - start)));
        }
        let (at, len) = (start, usize::try_from(end - start).map_err(|_| wrong("is too large"))?);
        let shape = shape.into_iter().map(|dim| dim as usize).collect();
        let dtype_name = short(dtype_name);
        tensors.push((name.clone(), Stored { dtype, dtype_name, shape, file: 0, at, len }));
    }
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| (tensor.at, tensor.len));
    for pair in order.windows(2) {
        let ((a, first), (b, second)) = (pair[0], pair[1]);
        if first.at + first.len as u64 > second.at {
            return Err(format!("tensor `{}` overlaps tensor `{}`", short(b), short(a)));
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(header: &str, data: u64) -> String {
        parse(header.as_bytes(), data).unwrap_err()
    }

    #[test]
    fn every_size_is_checked() {
        let good = r#"{"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b": {"dtype": "I8", "shape": [], "data_offsets": [24, 25]}}"#;
        let tensors = parse(good.as_bytes(), 25).unwrap();
        assert_eq!((tensors.len(), &tensors[0].1.shape[..]), (2, &[2, 3][..]));
        assert!(refused(good, 24).contains("24 to 25 of 24"));
        let one = |rest: &str| format!(r#"{{"a": {{{rest}}}}}"#);
        assert!(
            refused(&one(r#""dtype": "F32", "shape": [2], "data_offsets": [0, 4]"#), 9)
                .contains("in 4 bytes")
        );
        assert!(
            refused(&one(r#""dtype": "F32", "shape": [2], "data_offsets": [8, 0]"#), 9).contains("8 to 0")
        );
        let huge = r#""dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]"#;
        assert!(refused(&one(huge), 9).contains("shape"));
        let overlap = r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}"#;
        assert!(refused(overlap, 9).contains("overlaps"));
    }

    #[test]
    fn an_index_names_files_of_the_folder_only() {
        for name in ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "model.bin", ""] {
            let index = serde_json::json!({"weight_map": {"a": name}});
            let error = listed(index.as_object().unwrap()).unwrap_err().to_string();
            assert!(error.contains("in this folder"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "[{}\\[\\]\",:a0-9 F]*", data in 0u64..100) {
            let _ = parse(text.as_bytes(), data);
        }

        #[test]
        fn what_is_read_lies_in_the_file(
            tensors in prop::collection::vec((0u64..40, 0u64..40, 0u64..6, 0u64..6), 0..4), data in 0u64..40,
        ) {
            let entries: Map<String, Value> = tensors.iter().enumerate().map(|(i, (start, end, a, b))| {
                (format!("{i}"), serde_json::json!({"dtype": "F16", "shape": [a, b], "data_offsets": [start, end]}))
            }).collect();
            if let Ok(read) = parse(serde_json::to_string(&entries).unwrap().as_bytes(), data) {
                for (_, tensor) in read {
                    prop_assert!(tensor.at + tensor.len as u64 <= data);
                    prop_assert_eq!(tensor.shape.iter().product::<usize>() * 2, tensor.len);
                }
            }
        }
    }
}
