//! GGUF files: header, metadata, tensor index, tensors.
//!
//! [`Gguf::open`] opens a file (all parts of a split one) and reads its index; [`Gguf::read`] reads a tensor.
//! Nothing in a file is believed before it is checked: every length, offset and product is compared with
//! the bytes that are there, so a malformed file gives an [`Error`] that names the field and the byte offset,
//! and its header never costs more than 100 MB of memory beside the 64 MiB that it may have. A file may be cut or rewritten while
//! it is open: what has been read stays as it was checked, and what is gone is an error. Format: `docs/gguf.md` of ggml, versions 2 and 3, little-endian.

mod error;
mod file;
mod metadata;
mod reader;
mod source;
mod tensor;
mod types;
mod value;

pub use error::Error;
pub use file::Gguf;
pub use metadata::Metadata;
pub use source::{open_file, read_file};
pub use tensor::{Tensor, TensorInfo};
pub use types::TensorType;
pub use value::{Array, Strings, Value};
