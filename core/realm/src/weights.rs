//! Loading of a file's weights onto one backend.

use std::sync::Arc;

use realm_compute::cpu::{self, CpuBackend};
use realm_compute::{Backend, CacheSpec};
use realm_gguf::Gguf;
use realm_model::{ModelConfig, Transformer, Weights};

use crate::placement::engine_config;
use crate::room::Need;
use crate::{Error, LoadOptions};

/// Loads all of a file's weights onto the CPU, if the machine has room for them and a KV cache.
pub(crate) fn load_on_cpu(
    backend: &Arc<CpuBackend>,
    gguf: &Gguf,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Weights>, Error> {
    let model = ModelConfig::from_gguf(gguf)?;
    let config = engine_config(options);
    let page = CacheSpec { layout: model.cache_layout(), pages: 1, kind: config.cache_type }.page_bytes();
    let need = Need {
        weights: gguf.tensors().iter().map(cpu::weight_bytes).sum(),
        cache: config.least_kv_bytes(&model, page),
        kv_tokens: options.kv_tokens.map(|tokens| if tokens == 0 { model.context_length } else { tokens }),
    };
    need.check(options)?;
    load_on(Arc::clone(backend), gguf, progress)
}

/// Loads a file's weights onto a backend.
pub(crate) fn load_on<B: Backend>(
    backend: Arc<B>,
    gguf: &Gguf,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Box<dyn Weights>, Error> {
    Ok(Box::new(Arc::new(Transformer::load(backend, gguf, progress)?)))
}
