//! The placement of a loaded model, and the configuration of its engine there.

use std::sync::Arc;

use realm_compute::cuda::CudaBackend;
use realm_compute::parts::Part;
use realm_engine::{EngineConfig, PassTimes};
use realm_model::Weights;

use crate::{Error, LoadOptions};

/// The devices that a loaded model is on.
pub(crate) enum Placement {
    Cpu,
    Gpu(Arc<CudaBackend>),
    /// Several parts, and the bytes of a KV page on each.
    Parts {
        parts: Vec<Part>,
        page_bytes: Vec<usize>,
    },
}

impl Placement {
    /// Returns an engine's configuration for this placement. A pass of a GPU takes rows by the hundred in
    /// little more time than one, and prompts by the thousand while nothing else generates: mixtures have few
    /// rows for each expert otherwise.
    pub(crate) fn engine_config(
        &self,
        weights: &dyn Weights,
        options: &LoadOptions,
    ) -> Result<EngineConfig, Error> {
        let many_rows = match self {
            Self::Cpu => false,
            Self::Gpu(_) => true,
            Self::Parts { parts, .. } => parts.iter().all(|part| matches!(part, Part::Cuda(_))),
        };
        let mut config = engine_config(options);
        if config.kv_memory.is_none() {
            config.kv_memory = self.kv_memory(weights.page_bytes(config.cache_type))?;
        }
        if let Some(most) = options.max_queued {
            config.max_queued = most;
        }
        if many_rows {
            (config.decode_rows, config.shared_prefill_chunk) = (128, 512);
            if self.has_room_for_long_chunks()? {
                config.prefill_chunk = 2048;
            }
        }
        Ok(config)
    }

    /// Returns whether every GPU has room for the activations of 2,048 rows, up to a gigabyte: a fifth of its
    /// free memory is theirs.
    fn has_room_for_long_chunks(&self) -> Result<bool, Error> {
        let roomy = |gpu: &CudaBackend| Ok(gpu.memory()?.0 >= 16 << 30);
        match self {
            Self::Cpu => Ok(false),
            Self::Gpu(gpu) => roomy(gpu),
            Self::Parts { parts, .. } => parts.iter().try_fold(true, |all, part| match part {
                Part::Cpu(_) => Ok(false),
                Part::Cuda(gpu) => Ok(all && roomy(gpu)?),
            }),
        }
    }

    /// Returns the bytes of the KV cache, whose pages have `whole` bytes; `None` leaves the size to the
    /// engine.
    fn kv_memory(&self, whole: usize) -> Result<Option<u64>, Error> {
        match self {
            Self::Cpu => Ok(None),
            Self::Gpu(backend) => Ok(Some(room_for_cache(backend)?)),
            Self::Parts { parts, page_bytes } => Ok(Some(parts_kv_memory(parts, page_bytes, whole)?)),
        }
    }
}

/// Returns the engine's configuration by `options`.
pub(crate) fn engine_config(options: &LoadOptions) -> EngineConfig {
    EngineConfig {
        kv_tokens: options.kv_tokens,
        context_length: options.context_length,
        kv_memory: options.kv_memory,
        cache_type: options.cache_type.unwrap_or_default(),
        speculation: options.speculation,
        pass_times: Some(PassTimes::default()),
        ..EngineConfig::default()
    }
}

/// Returns the bytes for KV pages on a GPU: four fifths of what the weights leave. Batches need the rest.
fn room_for_cache(gpu: &CudaBackend) -> Result<u64, Error> {
    Ok(gpu.memory()?.0 / 5 * 4)
}

/// Returns the bytes for KV pages of a model on several parts: as many pages as each part has room for.
fn parts_kv_memory(parts: &[Part], page_bytes: &[usize], whole: usize) -> Result<u64, Error> {
    let mut pages = u64::MAX;
    for (part, &bytes) in parts.iter().zip(page_bytes).filter(|&(_, &bytes)| bytes > 0) {
        let room = match part {
            Part::Cpu(_) => EngineConfig::default_kv_memory(),
            Part::Cuda(gpu) => room_for_cache(gpu)?,
        };
        pages = pages.min(room / bytes as u64);
    }
    Ok(pages.saturating_mul(whole as u64))
}
