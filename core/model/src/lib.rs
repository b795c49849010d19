//! Model architectures, written once against [`Backend`](realm_compute::Backend).
//!
//! - [`config`]: what a GGUF file's metadata says about a model, checked.
//! - `arch`: what sets the architectures apart, as data; there is one forward pass for all.
//! - [`rope`]: all variants of rotary embedding, folded into frequencies.
//! - [`weights`]: loads a file's tensors onto a backend.
//! - [`transformer`]: the forward pass.
//! - [`pieces`]: the same in pieces, for programs that put it together themselves.
//! - [`adapter`]: LoRA adapters from files, fitted to a model.

#![forbid(unsafe_code)]

pub mod adapter;
mod arch;
pub mod config;
mod error;
mod finite;
mod kept;
mod likeliest;
pub mod pieces;
pub mod rope;
pub mod transformer;
pub mod weights;

pub use adapter::{AdapterFile, AdapterWeights};
pub use arch::Architecture;
pub use config::{ModelConfig, Pooling};
pub use error::Error;
pub use kept::KeptRow;
pub use likeliest::Likeliest;
pub use pieces::{PieceId, Pieces};
pub use transformer::{Forward, Runner};
pub use weights::{Transformer, Weights};
