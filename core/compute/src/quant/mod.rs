//! The block formats of GGUF, decoded in plain scalar code: the reference for every kernel.
//!
//! Block layouts: `block_*` in ggml's `ggml-common.h`. `d` and `m` are f16.

mod dequantize;
pub(crate) mod grids;
mod iq;

pub use dequantize::dequantize;
