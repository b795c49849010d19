//! Model architectures, written once against [`Backend`](realm_compute::Backend).
//!
//! - [`config`]: a model's configuration, read from a GGUF file's metadata and checked.
//! - `arch`: the differences between the architectures, as data; all share one forward pass.
//! - [`rope`]: all variants of rotary embedding, folded into frequencies.
//! - [`weights`]: loads a file's tensors onto a backend.
//! - [`transformer`]: the forward pass.
//! - [`layerwise`]: the forward pass in single operations, for programs that combine them.
//! - [`Work`]: the work in operations, as the engine charges for it.
//! - [`adapter`]: LoRA adapters from files, fitted to a model.

#![forbid(unsafe_code)]

pub mod adapter;
mod arch;
pub mod config;
mod error;
mod finite;
mod kept;
pub mod layerwise;
pub mod rope;
mod top_k;
pub mod transformer;
pub mod weights;
mod work;

pub use adapter::{AdapterFile, AdapterWeights};
pub use arch::Architecture;
pub use config::{ModelConfig, Pooling};
pub use error::Error;
pub use kept::KeptRow;
pub use layerwise::{CacheId, Layerwise, Slice, TensorId};
pub use top_k::TopK;
pub use transformer::{Forward, Runner};
pub use weights::{Transformer, Weights};
pub use work::{PassWork, Work};
