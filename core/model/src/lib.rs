//! Model architectures, written once against [`Backend`](realm_compute::Backend).
//!
//! ```
//! use std::sync::Arc;
//!
//! use realm_compute::{Batch, CacheType, Want, cpu::CpuBackend};
//! use realm_model::{Transformer, Weights};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
//! let file = realm_gguf::Gguf::open(path)?;
//! let model = Arc::new(Transformer::load(Arc::new(CpuBackend::new(1)?), &file, &mut |_, _| {})?);
//!
//! // Three tokens of one sequence, whose keys and values go to page 0 of a cache of four pages.
//! let mut forward = model.runner(4, CacheType::F32)?;
//! let mut batch = Batch::default();
//! batch.push(&[1, 2, 3], 0, &[[0u32]], Want::LastLogits);
//! forward.forward(&batch)?;
//! assert_eq!(forward.logits().len(), model.config().vocab);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
