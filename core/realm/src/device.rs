//! The devices that models run on.

use std::sync::{Arc, Once};

use realm_compute::cpu::CpuBackend;
use realm_gguf::Gguf;
use realm_model::Weights;

use crate::error::ErrorCode;
use crate::gpus::Gpus;
use crate::placement::Placement;
use crate::weights::load_on_cpu;
use crate::{Error, LoadOptions};

/// An opened device.
#[derive(Clone)]
pub(crate) enum Device {
    Cpu(Arc<CpuBackend>),
    Cuda(Arc<Gpus>),
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
            None if name == "auto" => {
                Gpus::from_first(threads).map(|gpus| cuda(gpus.or_cpu())).or_else(|why| {
                    static LOGGED: Once = Once::new();
                    LOGGED.call_once(|| tracing::info!("running on the CPU: {}", why.message()));
                    cpu()
                })
            }
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

    /// Loads a file's weights onto the device.
    pub(crate) fn load(
        &self,
        gguf: &Gguf,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Box<dyn Weights>, Placement), Error> {
        match self {
            Self::Cpu(backend) => Ok((load_on_cpu(backend, gguf, options, progress)?, Placement::Cpu)),
            Self::Cuda(gpus) => gpus.load(gguf, options, progress),
        }
    }
}
