//! Compute: the [`Backend`] trait and the processors that implement it.
//!
//! ```
//! use realm_compute::{Backend, Norm, cpu::CpuBackend};
//!
//! let cpu = CpuBackend::new(2)?; // threads
//! let (mut x, mut out, mut row) = (cpu.buffer(1, 4)?, cpu.buffer(1, 4)?, Vec::new());
//! cpu.write(&[1.0, 2.0, 3.0, 4.0], &mut x)?;
//! let weight = cpu.vector(&[1.0; 4])?;
//! cpu.norm(&x, &Norm::rms(&weight, 0.0), &mut out)?;
//! cpu.read(&out, &mut row)?;
//! assert!((row[3] - 4.0 / 7.5f32.sqrt()).abs() < 1e-6);
//! # Ok::<(), realm_compute::Error>(())
//! ```
//!
//! - [`backend`]: the operations of a forward pass, at the level where a processor can fuse them.
//! - [`batch`]: the ragged batch that every operation works on, and the paged KV cache's shape.
//! - [`cpu`]: this machine's processor, with our own kernels.
//! - [`cuda`]: NVIDIA's GPUs, with our own kernels.
//! - [`parts`]: several processors as one, each with some of a model's layers.
//! - [`priority`]: low priority for threads beside the forward pass.
//! - [`quant`]: the block formats of GGUF files, decoded in plain scalar code.

pub mod backend;
pub mod batch;
mod checks;
pub mod cpu;
pub mod cuda;
mod error;
mod feature;
mod operands;
mod page;
pub mod parts;
pub mod priority;
pub mod quant;
mod trim;

pub use backend::Backend;
pub use batch::{
    AdapterUse, Batch, CacheLayout, CacheSpec, CacheType, LayerPlace, NO_PAGE, PAGE_TOKENS, Span, Want,
};
pub use error::Error;
pub use feature::Feature;
pub use operands::{
    Activation, Attention, Columns, Gating, GroupRank, Groups, Lora, LoraRow, MatMul, Mixture, Norm,
    NormKind, NormSpan, Rope, RopeStyle, Routing, Temperature, Window,
};
pub use page::{PageFormat, PageNumber};
pub use trim::trim_memory;
