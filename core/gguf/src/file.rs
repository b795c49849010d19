//! Opening files, whole or split.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::map::Bytes;
use crate::metadata::Metadata;
use crate::reader::Reader;
use crate::tensor::{Tensor, TensorInfo, place, read_index, short};

/// A GGUF file, or all parts of a split one.
pub struct Gguf {
    parts: Vec<Bytes>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

/// What one part holds.
struct Part {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Maps a file. For the first of several parts (`name-00001-of-0000N.gguf`) the others are opened beside it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let first = Bytes::map(path)?;
        let part = read_part(&first, 0)?;
        let count = part.metadata.u64("split.count")?.unwrap_or(1);
        let mut parts = vec![first];
        let mut rest = Vec::new();
        if count > 1 {
            let number = part.metadata.u64("split.no")?.unwrap_or(0);
            if number != 0 {
                let why =
                    format!("{} is part {} of {count}; open the first part", path.display(), number + 1);
                return Err(Error::Split(why));
            }
            for (i, path) in siblings(path, count)?.into_iter().enumerate() {
                let bytes = Bytes::map(&path)?;
                let part = read_part(&bytes, i + 1)?;
                if part.metadata.u64("split.no")? != Some(i as u64 + 1)
                    || part.metadata.u64("split.count")? != Some(count)
                {
                    let why = format!("{} does not say it is part {} of {count}", path.display(), i + 2);
                    return Err(Error::Split(why));
                }
                parts.push(bytes);
                rest.extend(part.tensors);
            }
        }
        Self::assemble(parts, part, rest)
    }

    /// Reads a file that is in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        let bytes = Bytes::Owned(bytes);
        let part = read_part(&bytes, 0)?;
        if part.metadata.u64("split.count")?.unwrap_or(1) > 1 {
            return Err(Error::Split("a part of a split file has to be opened by its path".into()));
        }
        Self::assemble(vec![bytes], part, Vec::new())
    }

    fn assemble(parts: Vec<Bytes>, first: Part, rest: Vec<TensorInfo>) -> Result<Self, Error> {
        let Part { version, metadata, mut tensors } = first;
        tensors.extend(rest);
        if parts.len() > 1 {
            let claimed = metadata.u64("split.tensors.count")?;
            if claimed.is_some_and(|claimed| claimed != tensors.len() as u64) {
                let why =
                    format!("{} tensors are claimed, {} are there", claimed.unwrap_or(0), tensors.len());
                return Err(Error::Split(why));
            }
        }
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), i).is_some() {
                let field = format!("tensor `{}`", short(&tensor.name));
                return Err(Error::Malformed { offset: 0, field, reason: "is there twice".into() });
            }
        }
        Ok(Self { parts, version, metadata, tensors, by_name })
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The index, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let info = &self.tensors[*self.by_name.get(name)?];
        let data = &self.parts[info.part].get()[info.offset..info.offset + info.bytes];
        Some(Tensor { info, data })
    }

    /// A tensor by name, or an error that names it.
    pub fn require_tensor(&self, name: &str) -> Result<Tensor<'_>, Error> {
        self.tensor(name).ok_or_else(|| Error::MissingTensor(name.to_owned()))
    }

    /// Size of all parts in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.get().len() as u64).sum()
    }

    /// Lets go of a tensor's mapped pages, because a copy in another layout has replaced them. The tensor stays
    /// readable, from the file.
    pub fn release(&self, info: &TensorInfo) {
        self.parts[info.part].release(info.offset, info.bytes);
    }

    /// Tells the operating system that everything is about to be read.
    pub fn will_need(&self) {
        self.parts.iter().for_each(Bytes::will_need);
    }
}

/// The paths of parts 2 to `count`.
fn siblings(path: &Path, count: u64) -> Result<Vec<PathBuf>, Error> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let suffix = format!("-00001-of-{count:05}.gguf");
    let Some(stem) = name.strip_suffix(&suffix) else {
        return Err(Error::Split(format!(
            "the first of {count} parts should be named *{suffix}, not {name}"
        )));
    };
    if count > 9_999 {
        return Err(Error::Split(format!("{count} parts are claimed")));
    }
    Ok((2..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf"))).collect())
}

fn read_part(bytes: &Bytes, part: usize) -> Result<Part, Error> {
    let mut r = Reader::new(bytes.get());
    if r.take(4, "magic")? != b"GGUF" {
        return Err(Error::Malformed {
            offset: 0,
            field: "magic".into(),
            reason: "the file does not begin with `GGUF`; it is no GGUF file".into(),
        });
    }
    let version = r.u32("version")?;
    if !(2..=3).contains(&version) {
        let reason = if (2..=3).contains(&version.swap_bytes()) {
            "this is a big-endian file; only little-endian ones are supported".to_owned()
        } else {
            format!("version {version} is not supported; 2 and 3 are. Convert the model again")
        };
        return Err(Error::Malformed { offset: 4, field: "version".into(), reason });
    }
    // The smallest tensor entry: an empty name's length, one dimension, type, offset.
    let tensor_count = r.count(8 + 4 + 8 + 4 + 8, "tensor count")?;
    // The smallest metadata entry: an empty key's length, a type, one byte.
    let entries = r.count(8 + 4 + 1, "metadata count")?;
    let metadata = Metadata::read(&mut r, entries)?;
    let at = r.offset();
    let alignment = metadata.u64("general.alignment")?.unwrap_or(32);
    let Some(alignment) = usize::try_from(alignment).ok().filter(|a| a.is_power_of_two() && *a <= 1 << 20)
    else {
        let reason = format!("{alignment} is not a power of two up to 1 MiB");
        return Err(Error::Malformed { offset: at as u64, field: "general.alignment".into(), reason });
    };
    let index = read_index(&mut r, tensor_count, part)?;
    let data_start = r.offset().next_multiple_of(alignment);
    let tensors = place(index, data_start, alignment, bytes)?;
    Ok(Part { version, metadata, tensors })
}
