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
//! assert_eq!(forward.outputs().host().len(), model.config().vocab);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`config`]: a model's configuration, read from a GGUF file's metadata and checked.
//! - `arch`: the families of models, one file each: metadata become the shape of layers.
//! - [`spec`]: the shape of layers, as data.
//! - [`names`]: the tensors of a model by their role, and their names in files.
//! - [`rope`]: all variants of rotary embedding, folded into frequencies.
//! - `load`, [`weights`]: a file's tensors on a backend.
//! - `block`: attention, feed-forward network and experts: weights and forward pass.
//! - [`pass`]: the forward pass.
//! - [`layerwise`]: the forward pass in single operations, for programs that combine them.
//! - [`Work`]: the work in operations, as the engine charges for it.
//! - [`adapter`]: LoRA adapters from files, fitted to a model.

#![forbid(unsafe_code)]

pub mod adapter;
mod arch;
mod block;
pub mod config;
mod error;
mod finite;
pub mod layerwise;
mod load;
pub mod names;
pub mod pass;
pub mod rope;
pub mod spec;
pub mod weights;
mod work;

pub use adapter::{AdapterFile, AdapterWeights};
pub use arch::Architecture;
pub use config::{ModelConfig, Pooling};
pub use error::Error;
pub use layerwise::{ActivationId, CacheId, Layerwise, Slice};
pub use names::TensorId;
pub use pass::{DeviceOutputs, Forward, KeptRow, Outputs, Runner, TopK};
pub use spec::{FeedForwardSpec, LayerSpec};
pub use weights::{Transformer, Weights};
pub use work::{PassWork, Work};
