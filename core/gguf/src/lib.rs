//! GGUF files: header, metadata, tensor index, tensors.
//!
//! ```
//! use realm_gguf::Gguf;
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
//! let file = Gguf::open(path)?;
//! println!("{:?}", file.metadata().str("general.architecture")?);
//! for info in file.tensors() {
//!     println!("{}: {:?}, {:?}, {} bytes", info.name, info.ty, info.shape, info.bytes());
//! }
//! let (info, mut buffer) = (file.require_tensor("token_embd.weight")?, Vec::new());
//! assert_eq!(file.read(info, &mut buffer)?.len(), info.bytes());
//! # Ok::<(), realm_gguf::Error>(())
//! ```
//!
//! [`Gguf::open`] opens a file (all parts of a split one) and reads its index; [`Gguf::read`] reads a tensor.
//! [`Gguf::from_tensors`] is a model whose tensors are made when they are read, and [`Writer`] writes a file.
//! Every length, offset and product in a file is checked against the bytes that exist, so a malformed file
//! gives an [`Error`] that names the field and the byte offset. A header may have 64 MiB; reading it
//! allocates at most 100 MB beyond that. A file may be cut or rewritten while it is open: the index stays as
//! it was checked, and reading missing bytes is an error. Format: `docs/gguf.md` of ggml, versions 2 and 3,
//! little-endian.

mod error;
mod file;
mod metadata;
mod reader;
mod source;
mod tensor;
mod types;
mod value;
mod writer;

pub use error::Error;
pub use file::Gguf;
pub use metadata::Metadata;
pub use source::{OpenFile, Tensors, open_file, read_file};
pub use tensor::{Tensor, TensorInfo};
pub use types::TensorType;
pub use value::{Array, Strings, Value};
pub use writer::Writer;
