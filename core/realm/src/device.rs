//! Where models run.

use std::sync::{Arc, Once};

use realm_compute::CacheType;
use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_compute::parts::Part;
use realm_engine::EngineConfig;
use realm_gguf::Gguf;
use realm_model::{Transformer, Weights};

use crate::Error;
use crate::error::ErrorCode;
use crate::gpus::{Gpus, kv_memory};
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
        let cuda = |gpus: Gpus| Self::Cuda(Arc::new(gpus.threads(threads)));
        match name.split_once(':') {
            None if name == "cpu" => cpu(),
            None if name == "cuda" => Ok(cuda(Gpus::from_first()?)),
            None if name == "auto" => Gpus::from_first().map(cuda).or_else(|why| {
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
                Ok(cuda(Gpus::exactly(ordinals)?))
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
            Self::Cpu(backend) => {
                let weights = Transformer::load(Arc::clone(backend), gguf, progress)?;
                Ok((Box::new(Arc::new(weights)), Placed::Cpu))
            }
            Self::Cuda(gpus) => gpus.load(gguf, options, progress),
        }
    }
}

impl Placed {
    /// How an engine is built for it, where nobody says otherwise. A pass of a GPU takes rows by the hundred in little more time
    /// than one.
    pub(crate) fn engine_config(
        &self,
        weights: &dyn Weights,
        options: &LoadOptions,
    ) -> Result<EngineConfig, Error> {
        let default = EngineConfig::default();
        let default = EngineConfig {
            speculation: options.speculation,
            max_queued: options.max_queued.unwrap_or(default.max_queued),
            ..default
        };
        let many_rows = match self {
            Self::Cpu => false,
            Self::Gpu(_) => true,
            Self::Parts { parts, .. } => parts.iter().all(|part| matches!(part, Part::Cuda(_))),
        };
        let kind = match self {
            Self::Cpu => CacheType::F32,
            Self::Gpu(_) | Self::Parts { .. } => CacheType::F16,
        };
        let cache_type = options.cache_type.unwrap_or(kind);
        let default = EngineConfig {
            kv_tokens: options.kv_tokens,
            kv_memory: match options.kv_memory {
                Some(bytes) => Some(bytes),
                None => self.kv_memory(weights.page_bytes(cache_type))?,
            },
            cache_type,
            ..default
        };
        Ok(match many_rows {
            true => EngineConfig { decode_rows: 128, shared_prefill_chunk: 512, ..default },
            false => default,
        })
    }

    /// Bytes of the KV cache, whose pages have `whole` bytes, unless somebody says otherwise; `None` leaves it to the engine. On a
    /// GPU four fifths of what the weights have left: the rest is for what batches need.
    fn kv_memory(&self, whole: usize) -> Result<Option<u64>, Error> {
        match self {
            Self::Cpu => Ok(None),
            Self::Gpu(backend) => Ok(Some(backend.memory()?.0 / 5 * 4)),
            Self::Parts { parts, page_bytes } => Ok(Some(kv_memory(parts, page_bytes, whole)?)),
        }
    }
}
