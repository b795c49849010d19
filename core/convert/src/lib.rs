//! Converts models: Hugging Face folders to GGUF, and GGUF's tensors to other types.
//!
//! [`open`] reads a GGUF file or a folder; a folder's tensors are converted one at a time, when they are
//! read. [`write()`] writes either as a GGUF file, quantized by a [`Recipe`]. [`quantize`] turns numbers into
//! blocks.
#![forbid(unsafe_code)]

mod error;
mod file;
mod folder;
mod importance;
mod quantize;
mod recipe;

use std::path::Path;

pub use error::Error;
pub use file::{Written, types_of, write};
pub use folder::open_folder;
pub use importance::{Importance, Inputs, open_importance, read_importance};
pub use quantize::{WRITTEN, quantize};
pub use realm_gguf::Gguf;
pub use recipe::Recipe;

/// Opens a GGUF file, or a folder as transformers saves it.
///
/// # Errors
/// Those of [`Gguf::open`] and [`open_folder`].
pub fn open(path: &Path) -> Result<Gguf, Error> {
    if path.is_dir() { open_folder(path) } else { Ok(Gguf::open(path)?) }
}
