//! Loading: from a model's name to its weights in memory.

use std::path::Path;
use std::sync::Arc;

use realm_compute::CacheType;
use realm_engine::{Draft, Engine, EngineConfig, SnapshotKey, Speculation};
use realm_gguf::Gguf;
use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, SpecialTexts, Tokenizer};

use crate::Error;
use crate::background::Background;
use crate::device::Device;
use crate::model::{ModelInfo, Shared, Trim};
use crate::thought::ThoughtSpelling;
use crate::tools::ToolSpelling;

/// The options of loading a model. `ci/api` brings each field to every language.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The number of tokens that the KV cache holds, over all requests of all tenants; 0 holds one request of
    /// the model's trained context length. By default what fits in `kv_memory`. One request has at most
    /// [`context_length`](Self::context_length) of them.
    pub kv_tokens: Option<usize>,
    /// The longest context of one request, prompt and generation together, in tokens. By default the length
    /// that the model was trained for, or less if the KV cache holds less. Beyond the trained length texts
    /// get worse, and the log warns.
    pub context_length: Option<usize>,
    /// The size of the KV cache, in bytes. By default on the CPU a quarter of the free memory, at most 8 GiB,
    /// where pages take memory when they are first used; on a GPU four fifths of the memory that the weights
    /// leave free.
    pub kv_memory: Option<u64>,
    /// The number format of the KV cache. By default 32-bit floats on the CPU and 16-bit floats on a GPU.
    pub cache_type: Option<CacheType>,
    /// A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml`
    /// or `llama3`.
    ///
    /// [`template_names`](crate::template_names) lists the builtin ones.
    pub chat_template: Option<String>,
    /// The source of drafts for requests that name none. By default any source.
    pub speculation: Speculation,
    /// A smaller model with the same vocabulary that drafts for this one: a path, a catalog name or an `hf:`
    /// reference.
    pub draft_model: Option<String>,
    /// The most requests that may wait, over all tenants; one more is refused as `overloaded`. By
    /// default 4096. Half of the places are divided among the tenants by their weights, at least one each; a
    /// tenant within its part is never refused.
    pub max_queued: Option<usize>,
    /// The number of layers on GPUs, counted from the last one; the output layer is on a GPU too, and the CPU
    /// computes the layers before. By default as many as fit beside a KV cache. Has no effect without a GPU.
    pub gpu_layers: Option<usize>,
}

/// Receives the progress of loading, on the thread that loads.
pub trait Progress: realm_hub::Progress {
    /// Reports that `done` of `total` bytes of weights are in place.
    fn loading(&mut self, done: u64, total: u64) {
        let _ = (done, total);
    }
}

impl Progress for () {}

/// The files of a model.
pub(crate) struct Source<'a> {
    /// The name that the caller loads it by.
    pub(crate) reference: &'a str,
    pub(crate) path: &'a Path,
    /// The draft model's file.
    pub(crate) draft: Option<&'a Path>,
}

/// Opens a file and starts its engine.
pub(crate) fn load(
    device: &Device,
    Source { reference, path, draft }: Source<'_>,
    options: &LoadOptions,
    snapshot_key: &SnapshotKey,
    progress: &mut dyn Progress,
) -> Result<Shared, Error> {
    let (gguf, tokenizer) = open(path)?;
    let (metadata, tokenizer) = (gguf.metadata(), Arc::new(tokenizer));
    let draft = draft.map(|path| open_draft(device, path)).transpose()?;
    let special = SpecialTexts::of(metadata, &tokenizer);
    let template = match &options.chat_template {
        Some(source) => Some(ChatTemplate::new(source, special)?),
        None => ChatTemplate::from_metadata(metadata, special),
    };
    let loaded = device.load(&gguf, options, &mut |done, total| progress.loading(done, total));
    let (weights, placed) = loaded.map_err(Error::in_file(path))?;
    let config = EngineConfig {
        snapshot_key: Some(snapshot_key.clone()),
        ..placed.engine_config(&*weights, options)?
    };
    let draft = draft.as_ref().map(|(weights, tokenizer)| Draft { weights: &**weights, tokenizer });
    let engine = Engine::with_draft(&*weights, Arc::clone(&tokenizer), &config, draft)?;
    let info = ModelInfo::new(&gguf, &*weights, &engine, template.is_some());
    let tool_spelling = ToolSpelling::of(template.as_ref(), &tokenizer);
    // A template that cannot be parsed reports its error when a conversation is rendered.
    let capabilities = template.as_ref().and_then(|template| template.capabilities(true));
    let knows_tools = capabilities.is_none_or(|capabilities| capabilities.tools);
    let thought_spelling = template.as_ref().and_then(|template| ThoughtSpelling::of(template, &tokenizer));
    let inner = realm_sandbox::Model { name: reference.to_owned(), engine, weights, tokenizer, template };
    Ok(Shared { inner: Arc::new(inner), info, tool_spelling, thought_spelling, knows_tools, background: Background::default(), _freed: Trim })
}

/// Opens a model's file and its tokenizer.
pub(crate) fn open(path: &Path) -> Result<(Gguf, Tokenizer), Error> {
    let gguf = Gguf::open(path).map_err(Error::in_file(path))?;
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).map_err(Error::in_file(path))?;
    Ok((gguf, tokenizer))
}

/// Loads a draft model's weights and tokenizer.
fn open_draft(device: &Device, path: &Path) -> Result<(Box<dyn Weights>, Tokenizer), Error> {
    let (gguf, tokenizer) = open(path)?;
    let loaded = device.load(&gguf, &LoadOptions::default(), &mut |_, _| {});
    Ok((loaded.map_err(Error::in_file(path))?.0, tokenizer))
}
