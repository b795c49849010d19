//! Where models run.

use std::sync::{Arc, Once};

use realm_compute::CacheType;
use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_engine::EngineConfig;
use realm_gguf::Gguf;
use realm_model::{Transformer, Weights};

use crate::Error;
use crate::error::ErrorCode;

/// An opened device.
#[derive(Clone)]
pub(crate) enum Device {
    Cpu(Arc<CpuBackend>),
    Cuda(Arc<CudaBackend>),
}

impl Device {
    /// Opens `auto`, `cpu`, `cuda` or `cuda:N`. `threads` are those of the CPU.
    pub(crate) fn open(name: &str, threads: usize) -> Result<Self, Error> {
        let unknown = || {
            let why = format!("there is no device `{name}`; there are `auto`, `cpu`, `cuda` and `cuda:N`");
            Error::new(ErrorCode::Unsupported, why)
        };
        let cpu = || Ok(Self::Cpu(Arc::new(CpuBackend::new(threads)?)));
        let cuda = |ordinal| Ok::<_, Error>(Self::Cuda(Arc::new(CudaBackend::new(ordinal)?)));
        match name.split_once(':') {
            None if name == "cpu" => cpu(),
            None if name == "cuda" => cuda(0),
            None if name == "auto" => cuda(0).or_else(|why| {
                static SAID: Once = Once::new();
                SAID.call_once(|| tracing::info!("running on the CPU: {why}"));
                cpu()
            }),
            Some(("cuda", ordinal)) => cuda(ordinal.parse().map_err(|_| unknown())?),
            _ => Err(unknown()),
        }
    }

    /// Brings a file's weights onto the device.
    pub(crate) fn load(
        &self,
        gguf: &Gguf,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Weights>, Error> {
        Ok(match self {
            Self::Cpu(backend) => Box::new(Arc::new(Transformer::load(Arc::clone(backend), gguf, progress)?)),
            Self::Cuda(backend) => {
                Box::new(Arc::new(Transformer::load(Arc::clone(backend), gguf, progress)?))
            }
        })
    }

    /// How the KV cache holds numbers unless somebody says otherwise.
    pub(crate) fn cache_type(&self) -> CacheType {
        match self {
            Self::Cpu(_) => CacheType::F32,
            Self::Cuda(_) => CacheType::F16,
        }
    }

    /// How an engine is built for it, where nobody says otherwise. A pass of a GPU takes rows by the hundred in little more time
    /// than one.
    pub(crate) fn engine_config(&self) -> EngineConfig {
        let default = EngineConfig::default();
        match self {
            Self::Cpu(_) => default,
            Self::Cuda(_) => EngineConfig { decode_rows: 128, shared_prefill_chunk: 512, ..default },
        }
    }

    /// Bytes of the KV cache unless somebody says otherwise; `None` leaves it to the engine. On a GPU four fifths of what
    /// the weights have left: the rest is for what batches need.
    pub(crate) fn kv_memory(&self) -> Result<Option<u64>, Error> {
        match self {
            Self::Cpu(_) => Ok(None),
            Self::Cuda(backend) => Ok(Some(backend.memory()?.0 / 5 * 4)),
        }
    }
}
