//! GGUF files: header, metadata, tensor index, zero-copy memory map.
//!
//! [`Gguf::open`] maps a file (all parts of a split one) and reads its index; tensors are slices of the map.
//! Nothing in a file is believed before it is checked: every length, offset and product is compared with
//! the bytes that are there, so a malformed file gives an [`Error`] that names the field and the byte offset,
//! and never costs more than 100 MB of memory. Format: `docs/gguf.md` of ggml, versions 2 and 3, little-endian.

mod error;
mod file;
mod map;
mod metadata;
mod reader;
mod tensor;
mod types;
mod value;

pub use error::Error;
pub use file::Gguf;
pub use metadata::Metadata;
pub use tensor::{Tensor, TensorInfo};
pub use types::TensorType;
pub use value::{Array, Strings, Value};
