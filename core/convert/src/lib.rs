//! Converts models: floats to GGUF's quantized types.
#![forbid(unsafe_code)]

mod error;
mod file;
mod quantize;
mod recipe;

pub use error::Error;
pub use file::{Importance, Written, types_of, write};
pub use quantize::{WRITTEN, quantize};
pub use recipe::Recipe;
