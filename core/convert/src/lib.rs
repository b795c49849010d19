//! Converts models: floats to GGUF's quantized types.
#![forbid(unsafe_code)]

mod error;
mod quantize;

pub use error::Error;
pub use quantize::{WRITTEN, quantize};
