//! Opening files, whole or split.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::metadata::Metadata;
use crate::reader::{MAX_HEADER, Reader};
use crate::source::{Source, Tensors};
use crate::tensor::{TensorInfo, place, read_index, short};

/// A GGUF file, or all parts of a split one, or a model that is read as if it were such a file.
pub struct Gguf {
    data: Data,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, in the order of names.
    by_name: Vec<usize>,
}

/// The bytes of tensors.
enum Data {
    Parts(Vec<Source>),
    Made(Box<dyn Tensors>),
}

/// Most metadata entries, and most tensors, of a model. Real models have tens to hundreds of entries and up
/// to about ten thousand tensors; an entry of 14 bytes in the file takes hundreds in memory.
const MAX_ENTRIES: usize = 1 << 14;
const MAX_TENSORS: usize = 1 << 16;

/// The contents of one part.
struct Part {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Opens a file and reads its header. For the first of several parts (`name-00001-of-0000N.gguf`), opens
    /// the other parts in the same folder too.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let first = Source::open(path)?;
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
                let source = Source::open(&path).map_err(|why| {
                    Error::Split(format!("part {} of {count} is needed beside the first one: {why}", i + 2))
                })?;
                let next = read_next_part(&source, i + 1, &part.metadata)
                    .map_err(|why| Error::Split(format!("{}: {why}", path.display())))?;
                parts.push(source);
                rest.extend(next.tensors);
                if part.tensors.len() + rest.len() > MAX_TENSORS {
                    let why = format!("the parts have more than the {MAX_TENSORS} tensors that are read");
                    return Err(Error::Split(why));
                }
            }
        }
        Self::assemble(parts, part, rest)
    }

    /// Reads a file that is in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        let source = Source::Memory(bytes);
        let part = read_part(&source, 0)?;
        if part.metadata.u64("split.count")?.unwrap_or(1) > 1 {
            return Err(Error::Split("a part of a split file has to be opened by its path".into()));
        }
        Self::assemble(vec![source], part, Vec::new())
    }

    /// Makes a model from metadata and an index whose tensors `source` makes when they are read.
    ///
    /// # Errors
    /// [`Error::Tensor`] if two tensors have the same name.
    pub fn from_tensors(
        metadata: Metadata,
        tensors: Vec<TensorInfo>,
        source: Box<dyn Tensors>,
    ) -> Result<Self, Error> {
        Self::index(Data::Made(source), Part { version: 3, metadata, tensors })
    }

    fn assemble(parts: Vec<Source>, first: Part, rest: Vec<TensorInfo>) -> Result<Self, Error> {
        let mut all = first;
        all.tensors.extend(rest);
        if parts.len() > 1 {
            let (claimed, found) = (all.metadata.u64("split.tensors.count")?, all.tensors.len());
            if claimed.is_some_and(|claimed| claimed != found as u64) {
                let why = format!("{} tensors are claimed, {found} are there", claimed.unwrap_or(0));
                return Err(Error::Split(why));
            }
        }
        Self::index(Data::Parts(parts), all)
    }

    fn index(data: Data, Part { version, metadata, tensors }: Part) -> Result<Self, Error> {
        let mut by_name: Vec<usize> = (0..tensors.len()).collect();
        by_name.sort_by(|&a, &b| tensors[a].name.cmp(&tensors[b].name));
        // Duplicates within a part were already refused with its index.
        let twice = by_name.windows(2).find(|pair| tensors[pair[0]].name == tensors[pair[1]].name);
        if let Some(&[a, b]) = twice {
            let (name, a, b) = (short(&tensors[a].name), tensors[a].part + 1, tensors[b].part + 1);
            if a == b {
                return Err(Error::Tensor { name, reason: "is there twice".into() });
            }
            return Err(Error::Split(format!("tensor `{name}` is in part {a} and in part {b}")));
        }
        Ok(Self { data, version, metadata, tensors, by_name })
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Metadata: keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensor index, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Returns the index entry of the tensor `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.position(name).map(|i| &self.tensors[i])
    }

    fn position(&self, name: &str) -> Option<usize> {
        let at = self.by_name.binary_search_by(|&i| self.tensors[i].name.as_str().cmp(name)).ok()?;
        Some(self.by_name[at])
    }

    /// Returns the index entry of the tensor `name`, or an error that contains the name.
    pub fn require_tensor(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.tensor(name).ok_or_else(|| Error::MissingTensor(name.to_owned()))
    }

    /// Reads a tensor of this file: its blocks, row after row. A tensor that comes from a file is read into
    /// `buffer`; a caller that reads several tensors should reuse one buffer, which grows to the size of the
    /// largest.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if the file has been cut since it was opened, [`Error::Io`] if the disk fails,
    /// [`Error::MissingTensor`] for a tensor of another file.
    pub fn read<'b>(&'b self, info: &TensorInfo, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error> {
        // Only this file's own index entry was checked against the file's length, so look it up by name.
        let missing = || Error::MissingTensor(info.name.clone());
        let index = self.position(&info.name).filter(|&i| self.tensors[i] == *info).ok_or_else(missing)?;
        match &self.data {
            Data::Parts(parts) => parts[info.part].range(info.offset, info.bytes, buffer),
            Data::Made(source) => {
                source.read(index, buffer)?;
                let made = buffer.len();
                buffer.get(..info.bytes).filter(|bytes| bytes.len() == made).ok_or_else(|| Error::Tensor {
                    name: info.name.clone(),
                    reason: format!("has {} bytes, and {made} were made", info.bytes),
                })
            }
        }
    }

    /// Size of all parts in bytes.
    pub fn file_bytes(&self) -> u64 {
        match &self.data {
            Data::Parts(parts) => parts.iter().map(Source::len).sum(),
            Data::Made(source) => source.file_bytes(),
        }
    }

    /// Tells the operating system that the whole file is about to be read.
    pub fn will_need(&self) {
        if let Data::Parts(parts) = &self.data {
            parts.iter().for_each(Source::will_need);
        }
    }
}

/// The paths of parts 2 to `count`.
fn siblings(path: &Path, count: u64) -> Result<Vec<PathBuf>, Error> {
    if count > 9_999 {
        return Err(Error::Split(format!("{count} parts are claimed, up to 9999 are read")));
    }
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let suffix = format!("-00001-of-{count:05}.gguf");
    let Some(stem) = name.strip_suffix(&suffix) else {
        return Err(Error::Split(format!(
            "the first of {count} parts should be named *{suffix}, not {name}"
        )));
    };
    Ok((2..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf"))).collect())
}

/// Reads part `number` (from 0) and checks that it belongs to the model whose first part has the metadata
/// `first`.
fn read_next_part(source: &Source, number: usize, first: &Metadata) -> Result<Part, Error> {
    let part = read_part(source, number)?;
    let expected = [
        ("split.no", Some(number as u64)),
        ("split.count", first.u64("split.count")?),
        ("split.tensors.count", first.u64("split.tensors.count")?),
    ];
    for (key, expected) in expected {
        let found = part.metadata.u64(key)?;
        if found != expected {
            let show = |v: Option<u64>| v.map_or("missing".to_owned(), |v| v.to_string());
            let reason = format!("is {}; {} is needed here", show(found), show(expected));
            return Err(Error::metadata(key, reason));
        }
    }
    Ok(part)
}

/// Names the format of a file that is not GGUF, if its first bytes show it, and suggests what to do.
fn instead(bytes: &[u8]) -> &'static str {
    let begins = |with: &[u8]| bytes.starts_with(with);
    let text = bytes.trim_ascii_start().get(..5).unwrap_or_default().to_ascii_lowercase();
    if begins(b"version https://git-lfs") {
        " but a pointer of Git LFS: `git lfs pull` fetches what it points to"
    } else if text == b"<!doc" || text == b"<html" {
        " but a web page: fetch the file from its download link"
    } else if [&b"lmgg"[..], b"fmgg", b"tjgg", b"algg"].iter().any(|magic| begins(magic)) {
        " but one of the formats before it: llama.cpp's `convert_llama_ggml_to_gguf.py` converts it"
    } else if bytes.get(8..10) == Some(b"{\"") {
        " but one of safetensors: give the folder that it is in, with config.json and tokenizer.json"
    } else if begins(b"PK\x03\x04") {
        " but a checkpoint for PyTorch: load it with transformers, save it with `save_pretrained`, and give that folder"
    } else {
        ""
    }
}

/// Bytes of the file's beginning that are read first. Most headers are several times as long.
const FIRST_READ: usize = 1 << 20;

fn read_part(source: &Source, part: usize) -> Result<Part, Error> {
    let mut size = FIRST_READ;
    loop {
        let head = source.head(size)?;
        let mut r = Reader::new(&head, source.len());
        let read = parse(&mut r, source.len(), part);
        if read.is_ok() || !r.wants_more() || size >= MAX_HEADER {
            return read;
        }
        size *= 4;
    }
}

/// Reads a part's header. `len` is the length of the whole part in bytes.
fn parse(r: &mut Reader<'_>, len: u64, part: usize) -> Result<Part, Error> {
    if r.take(4, "magic")? != b"GGUF" {
        let reason =
            format!("the file does not begin with `GGUF`; it is no GGUF file{}", instead(r.loaded()));
        return Err(Error::Malformed { offset: 0, field: "magic".into(), reason });
    }
    let version = r.u32("version")?;
    if !(2..=3).contains(&version) {
        let reason = if (1..=3).contains(&version.swap_bytes()) {
            "this is a big-endian file; only little-endian ones are supported".to_owned()
        } else {
            format!("version {version} is not supported; 2 and 3 are. Convert the model again")
        };
        return Err(Error::Malformed { offset: 4, field: "version".into(), reason });
    }
    // The smallest tensor entry: an empty name's length, one dimension, type, offset.
    let tensor_count = r.count_up_to(MAX_TENSORS, 8 + 4 + 8 + 4 + 8, "tensor count")?;
    // The smallest metadata entry: an empty key's length, a type, one byte.
    let entries = r.count_up_to(MAX_ENTRIES, 8 + 4 + 1, "metadata count")?;
    let metadata = Metadata::read(r, entries)?;
    let alignment = metadata.alignment();
    let index = read_index(r, tensor_count, part)?;
    let data_start = r.offset().next_multiple_of(alignment);
    let tensors = place(index, data_start, alignment, len)?;
    Ok(Part { version, metadata, tensors })
}
