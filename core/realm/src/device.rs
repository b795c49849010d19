//! Where models run.

use std::sync::{Arc, Once};

use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_compute::parts::Part;
use realm_compute::{Backend, CacheSpec, CacheType};
use realm_engine::{EngineConfig, PassTimes};
use realm_gguf::Gguf;
use realm_model::{ModelConfig, Transformer, Weights};

use crate::Error;
use crate::error::ErrorCode;
use crate::gpus::{Gpus, kv_memory, room_for_cache};
use crate::load::LoadOptions;
use crate::room::Need;

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
                "there is no device `{name}`; there are `auto`, `cpu`, `cuda`, `cuda:N` and `cuda:N,M`, and this machine has {}",
                Gpus::on_this_machine()
            );
            Error::new(ErrorCode::Unsupported, why)
        };
        // A device that was asked for by name is missing.
        let missing = |error: Error| match error.code() {
            ErrorCode::Unsupported => {
                let why = error.message();
                let there = Gpus::on_this_machine();
                Error::new(
                    ErrorCode::Unsupported,
                    format!("device `{name}`: {why}; this machine has {there}"),
                )
            }
            _ => error,
        };
        let cpu = || Ok(Self::Cpu(Arc::new(CpuBackend::new(threads)?)));
        let cuda = |gpus: Gpus| Self::Cuda(Arc::new(gpus));
        match name.split_once(':') {
            None if name == "cpu" => cpu(),
            None if name == "cuda" => Ok(cuda(Gpus::from_first(threads).map_err(missing)?)),
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
                Ok(cuda(Gpus::exactly(ordinals, threads).map_err(missing)?))
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
            Self::Cpu(backend) => Ok((bring_to_cpu(backend, gguf, options, progress)?, Placed::Cpu)),
            Self::Cuda(gpus) => gpus.load(gguf, options, progress),
        }
    }
}

/// Brings all of a file's weights to the CPU, if the machine has room for them and a KV cache.
pub(crate) fn bring_to_cpu(
    backend: &Arc<CpuBackend>,
    gguf: &Gguf,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Weights>, Error> {
    let model = ModelConfig::from_gguf(gguf)?;
    let config = engine_config(options, CacheType::F32);
    let page = CacheSpec { layout: model.cache_layout(), pages: 1, kind: config.cache_type }.page_bytes();
    let need = Need {
        weights: gguf.tensors().iter().map(|tensor| tensor.bytes() as u64).sum(),
        cache: config.least_kv_bytes(&model, page),
        kv_tokens: options.kv_tokens.map(|tokens| if tokens == 0 { model.context_length } else { tokens }),
    };
    need.check(options)?;
    bring(Arc::clone(backend), gguf, progress)
}

/// Brings a file's weights to a backend.
pub(crate) fn bring<B: Backend>(
    backend: Arc<B>,
    gguf: &Gguf,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Weights>, Error> {
    Ok(Box::new(Arc::new(Transformer::load(backend, gguf, progress)?)))
}

/// Returns the engine's configuration by `options`, with the device's own `cache_type`.
fn engine_config(options: &LoadOptions, cache_type: CacheType) -> EngineConfig {
    EngineConfig {
        kv_tokens: options.kv_tokens,
        context_length: options.context_length,
        kv_memory: options.kv_memory,
        cache_type: options.cache_type.unwrap_or(cache_type),
        speculation: options.speculation,
        pass_times: Some(PassTimes::default()),
        ..EngineConfig::default()
    }
}

impl Placed {
    /// Returns an engine's configuration for this placement, with the defaults for its devices. A pass of a
    /// GPU takes rows by the hundred in little more time than one.
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
        let mut config = engine_config(options, cache_type);
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

    /// Bytes of the KV cache, whose pages have `whole` bytes, unless somebody says otherwise; `None` leaves
    /// it to the engine.
    fn kv_memory(&self, whole: usize) -> Result<Option<u64>, Error> {
        match self {
            Self::Cpu => Ok(None),
            Self::Gpu(backend) => Ok(Some(room_for_cache(backend)?)),
            Self::Parts { parts, page_bytes } => Ok(Some(kv_memory(parts, page_bytes, whole)?)),
        }
    }
}
