//! GPUs that models run on, and the placement of a model on them.

use std::sync::{Arc, Mutex, PoisonError};

use realm_compute::CacheType;
use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_compute::parts::{Part, PartsBackend, Place, Plan, Sizes};
use realm_gguf::Gguf;
use realm_model::names::TensorId;
use realm_model::{ModelConfig, Weights};

use crate::placement::Placement;
use crate::room::Need;
use crate::weights::{load_on, load_on_cpu};
use crate::{Error, LoadOptions};

/// The least tokens that a KV cache must hold, unless the user sets a size or the model's context is shorter.
/// A model whose weights leave less room on a GPU does not go there.
const LEAST_TOKENS: usize = 2048;

/// The GPUs that models may use, and the CPU for layers that do not fit.
pub(crate) struct Gpus {
    /// The numbers of the GPUs.
    ordinals: Vec<usize>,
    /// The GPUs that were opened so far, in the same order; the first is open from the start.
    opened: Mutex<Vec<Option<Arc<CudaBackend>>>>,
    /// True if models are spread over all of these GPUs, because the user said so; false if other GPUs take
    /// only what does not fit on the first.
    spread: bool,
    /// True if a model runs on the CPU that needs what the GPU does not compute: the user named no device.
    or_cpu: bool,
    /// The number of CPU threads that compute.
    threads: usize,
    cpu: Mutex<Option<Arc<CpuBackend>>>,
}

impl Gpus {
    /// Uses the first GPU, and others only for layers that do not fit there. `threads` is the number of CPU
    /// threads, here and below.
    pub(crate) fn from_first(threads: usize) -> Result<Self, Error> {
        Self::open((0..CudaBackend::count().max(1)).collect(), false, threads)
    }

    /// Lets models that need what the GPU does not compute run on the CPU.
    pub(crate) fn or_cpu(self) -> Self {
        Self { or_cpu: true, ..self }
    }

    /// Uses all of these GPUs.
    pub(crate) fn exactly(ordinals: Vec<usize>, threads: usize) -> Result<Self, Error> {
        let this = Self::open(ordinals, true, threads)?;
        for index in 0..this.ordinals.len() {
            this.gpu(index)?;
        }
        Ok(this)
    }

    /// Names the machine's devices, for errors.
    pub(crate) fn on_this_machine() -> String {
        let names = (0..CudaBackend::count()).map(|ordinal| format!(" and `cuda:{ordinal}`"));
        format!("`cpu`{}", names.collect::<String>())
    }

    fn open(ordinals: Vec<usize>, spread: bool, threads: usize) -> Result<Self, Error> {
        let opened = Mutex::new(vec![None; ordinals.len()]);
        let this = Self { ordinals, opened, spread, or_cpu: false, threads, cpu: Mutex::default() };
        this.gpu(0)?;
        Ok(this)
    }

    fn gpu(&self, index: usize) -> Result<Arc<CudaBackend>, Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = &opened[index] {
            return Ok(Arc::clone(gpu));
        }
        let gpu = Arc::new(CudaBackend::new(self.ordinals[index])?);
        opened[index] = Some(Arc::clone(&gpu));
        Ok(gpu)
    }

    fn cpu(&self) -> Result<Arc<CpuBackend>, Error> {
        let mut cpu = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cpu) = &*cpu {
            return Ok(Arc::clone(cpu));
        }
        Ok(Arc::clone(cpu.insert(Arc::new(CpuBackend::new(self.threads)?))))
    }

    /// Loads a file's weights onto the devices that have room for them.
    pub(crate) fn load(
        &self,
        gguf: &Gguf,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Box<dyn Weights>, Placement), Error> {
        let config = ModelConfig::from_gguf(gguf)?;
        if self.or_cpu
            && options.gpu_layers.is_none()
            && let Some(feature) = config.lacking(gguf, &*self.gpu(0)?)
        {
            tracing::warn!("the model runs on the CPU: the GPU does not compute {feature}, which it needs");
            return Ok((load_on_cpu(&self.cpu()?, gguf, options, progress)?, Placement::Cpu));
        }
        let kind = options.cache_type.unwrap_or(CacheType::F16);
        let sizes = sizes(gguf, &config, options, kind);
        let (plan, gpus) = self.plan(&sizes, options)?;
        // Parts that compute nothing are left out.
        let used = plan.used();
        if let [part] = used[..] {
            return Ok(match part.checked_sub(1) {
                None => (load_on_cpu(&self.cpu()?, gguf, options, progress)?, Placement::Cpu),
                Some(gpu) => {
                    let backend = &gpus[gpu];
                    (load_on(Arc::clone(backend), gguf, progress)?, Placement::Gpu(Arc::clone(backend)))
                }
            });
        }
        let on_cpu = plan.layers.iter().filter(|&&part| part == 0).count();
        let all = plan.layers.len();
        if plan.experts == Some(0) && options.experts_on_cpu.is_none() {
            tracing::info!("the experts do not fit on the GPU and run on the CPU");
        } else if on_cpu > 0 && options.gpu_layers.is_none() {
            tracing::info!("{on_cpu} of {all} layers do not fit on the GPU and run on the CPU");
        }
        if used.first() == Some(&0) {
            let need = Need {
                weights: sizes.on_cpu(&plan),
                cache: sizes.cache.saturating_mul(on_cpu as u64),
                kv_tokens: options.kv_tokens.filter(|&tokens| tokens > 0),
            };
            need.check(options)?;
        }
        let mut parts = Vec::with_capacity(used.len());
        for &part in &used {
            parts.push(match part.checked_sub(1) {
                None => Part::Cpu(self.cpu()?),
                Some(gpu) => Part::Cuda(Arc::clone(&gpus[gpu])),
            });
        }
        let plan = plan.renumbered(|part| used.partition_point(|&used| used < part));
        let backend = Arc::new(PartsBackend::new(parts.clone(), plan, TensorId::place)?);
        let page_bytes = backend.page_bytes(&config.cache_layout(), kind);
        Ok((load_on(backend, gguf, progress)?, Placement::Parts { parts, page_bytes }))
    }

    /// Returns the placement, and the GPUs that are its parts from 1 on.
    fn plan(&self, sizes: &Sizes, options: &LoadOptions) -> Result<(Plan, Vec<Arc<CudaBackend>>), Error> {
        let LoadOptions { gpu_layers, experts_on_cpu, .. } = *options;
        let place = |free: &[u64]| Plan::new(sizes, free, gpu_layers, experts_on_cpu);
        let first = self.gpu(0)?;
        if !self.spread || self.ordinals.len() == 1 {
            let plan = place(&[first.memory()?.0]);
            let asked = gpu_layers.is_some() || experts_on_cpu == Some(true);
            let enough = plan.as_ref().is_ok_and(|plan| asked || !plan.uses_cpu());
            if enough || self.ordinals.len() == 1 {
                return Ok((plan?, vec![first]));
            }
        }
        let (mut gpus, mut free) = (Vec::new(), Vec::new());
        for index in 0..self.ordinals.len() {
            match self.gpu(index) {
                Ok(gpu) => {
                    free.push(gpu.memory()?.0);
                    gpus.push(gpu);
                }
                Err(error) if !self.spread => tracing::warn!(%error, "a GPU is not used"),
                Err(error) => return Err(error),
            }
        }
        Ok((place(&free)?, gpus))
    }
}

/// Returns the bytes that the model's parts take on a GPU.
fn sizes(gguf: &Gguf, config: &ModelConfig, options: &LoadOptions, kind: CacheType) -> Sizes {
    let layers = config.layers.len();
    let mut sizes = Sizes {
        layers: vec![0; layers],
        experts: vec![0; layers],
        cache: least_cache(config, options, kind),
        ..Sizes::default()
    };
    for tensor in gguf.tensors() {
        let bytes = tensor.bytes() as u64;
        match TensorId::place(&tensor.name) {
            Some(Place::Layer(layer)) if layer < layers => sizes.layers[layer] += bytes,
            Some(Place::Experts(layer)) if layer < layers => sizes.experts[layer] += bytes,
            Some(Place::Embeddings) => sizes.embeddings += bytes,
            Some(Place::Output) if tensor.name == TensorId::Output.weight() => sizes.output = Some(bytes),
            _ => {}
        }
    }
    sizes
}

/// Returns the bytes of one layer's part of the smallest KV cache.
fn least_cache(config: &ModelConfig, options: &LoadOptions, kind: CacheType) -> u64 {
    if let (None, Some(bytes)) = (options.kv_tokens, options.kv_memory) {
        return bytes / config.layers.len().max(1) as u64;
    }
    let tokens = match options.kv_tokens {
        Some(0) => config.context_length,
        Some(tokens) => tokens,
        None => LEAST_TOKENS.min(config.context_length),
    };
    let layout = config.cache_of_one_layer();
    let page = realm_compute::CacheSpec { layout, pages: 1, kind }.page_bytes();
    (tokens.div_ceil(realm_compute::PAGE_TOKENS) as u64).saturating_mul(page as u64)
}
