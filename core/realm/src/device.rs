//! Where models run.

use std::sync::{Arc, Once};

use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_compute::parts::Part;
use realm_compute::{Backend, CacheType};
use realm_engine::EngineConfig;
use realm_gguf::Gguf;
use realm_model::{Transformer, Weights};

use crate::Error;
use crate::error::ErrorCode;
use crate::gpus::{Gpus, kv_memory, room_for_cache};
use crate::load::LoadOptions;

/// An opened device.
#[derive(Clone)]
pub(crate) enum Device {
    Cpu(Arc<CpuBackend>),
    Cuda(Arc<Gpus>),
}

/// Where a loaded model is.
pub(crate) enum Placed {
    Cpu,
    Gpu(Arc<CudaBackend>),
    /// On several, with so many bytes of a KV page on each.
    Parts {
        parts: Vec<Part>,
        page_bytes: Vec<usize>,
    },
}

impl Device {
    /// Opens `auto`, `cpu`, `cuda`, `cuda:N` or `cuda:N,M`. `threads` are those of the CPU.
    pub(crate) fn open(name: &str, threads: usize) -> Result<Self, Error> {
        let unknown = || {
            let why = format!(
                "there is no device `{name}`; there are `auto`, `cpu`, `cuda`, `cuda:N` and `cuda:N,M`"
            );
            Error::new(ErrorCode::Unsupported, why)
        };
        let cpu = || Ok(Self::Cpu(Arc::new(CpuBackend::new(threads)?)));
        let cuda = |gpus: Gpus| Self::Cuda(Arc::new(gpus));
        match name.split_once(':') {
            None if name == "cpu" => cpu(),
            None if name == "cuda" => Ok(cuda(Gpus::from_first(threads)?)),
            None if name == "auto" => Gpus::from_first(threads).map(cuda).or_else(|why| {
                static SAID: Once = Once::new();
                SAID.call_once(|| tracing::info!("running on the CPU: {}", why.message()));
                cpu()
            }),
            Some(("cuda", ordinals)) => {
                let ordinals: Result<Vec<usize>, _> = ordinals.split(',').map(str::parse).collect();
                let ordinals = ordinals.map_err(|_| unknown())?;
                let twice = (1..ordinals.len()).any(|i| ordinals[..i].contains(&ordinals[i]));
                if twice {
                    return Err(unknown());
                }
                Ok(cuda(Gpus::exactly(ordinals, threads)?))
            }
            _ => Err(unknown()),
        }
    }

    /// Brings a file's weights onto the device.
    pub(crate) fn load(
        &self,
        gguf: &Gguf,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Box<dyn Weights>, Placed), Error> {
        match self {
            Self::Cpu(backend) => Ok((bring(Arc::clone(backend), gguf, progress)?, Placed::Cpu)),
            Self::Cuda(gpus) => gpus.load(gguf, options, progress),
        }
    }
}

/// Brings a file's weights to a backend.
pub(crate) fn bring<B: Backend>(
    backend: Arc<B>,
    gguf: &Gguf,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Weights>, Error> {
    Ok(Box::new(Arc::new(Transformer::load(backend, gguf, progress)?)))
}

impl Placed {
    /// How an engine is built for it, where nobody says otherwise. A pass of a GPU takes rows by the hundred in little more time
    /// than one.
    pub(crate) fn engine_config(
        &self,
        weights: &dyn Weights,
        options: &LoadOptions,
    ) -> Result<EngineConfig, Error> {
        let (many_rows, cache_type) = match self {
            Self::Cpu => (false, CacheType::F32),
            Self::Gpu(_) => (true, CacheType::F16),
            Self::Parts { parts, .. } => {
                (parts.iter().all(|part| matches!(part, Part::Cuda(_))), CacheType::F16)
            }
        };
        let mut config = EngineConfig {
            kv_tokens: options.kv_tokens,
            context_length: options.context_length,
            kv_memory: options.kv_memory,
            cache_type: options.cache_type.unwrap_or(cache_type),
            speculation: options.speculation,
            ..EngineConfig::default()
        };
        if config.kv_memory.is_none() {
            config.kv_memory = self.kv_memory(weights.page_bytes(config.cache_type))?;
        }
        if let Some(most) = options.max_queued {
            config.max_queued = most;
        }
        if many_rows {
            (config.decode_rows, config.shared_prefill_chunk) = (128, 512);
        }
        Ok(config)
    }

    /// Bytes of the KV cache, whose pages have `whole` bytes, unless somebody says otherwise; `None` leaves it to the engine.
    fn kv_memory(&self, whole: usize) -> Result<Option<u64>, Error> {
        match self {
            Self::Cpu => Ok(None),
            Self::Gpu(backend) => Ok(Some(room_for_cache(backend)?)),
            Self::Parts { parts, page_bytes } => Ok(Some(kv_memory(parts, page_bytes, whole)?)),
        }
    }
}
