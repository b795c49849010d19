//! From a name to weights in memory.

use std::path::Path;
use std::sync::Arc;

use realm_compute::CacheType;
use realm_engine::{Draft, Engine, EngineConfig, SnapshotKey, Speculation};
use realm_gguf::Gguf;
use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, SpecialTexts, Tokenizer};

use crate::Error;
use crate::device::Device;
use crate::model::{ModelInfo, Shared, Trim};
use crate::thought::ThoughtSpelling;
use crate::tools::ToolSpelling;

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Tokens that the KV cache holds over all requests of all tenants: 0 for one request of the model's own context length,
    /// `None` for what fits in `kv_memory`. One request has at most [`context_length`](Self::context_length) of them.
    pub kv_tokens: Option<usize>,
    /// Tokens that one request may have, prompt and generation together; `None` for what the model was trained for, or less
    /// where the KV cache holds less. With more than it was trained for, texts get worse from there on, and the log warns.
    pub context_length: Option<usize>,
    /// Bytes of the KV cache; `None` for a quarter of the memory that is free, 8 GiB at most, on the CPU, where pages take
    /// memory when they are first used, and for four fifths of what the weights leave free on a GPU.
    pub kv_memory: Option<u64>,
    /// How the KV cache holds numbers; `None` for 32-bit floats on the CPU, 16-bit floats on a GPU.
    pub cache_type: Option<CacheType>,
    /// A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml` or `llama3`
    /// ([`template_names`](crate::template_names)).
    pub chat_template: Option<String>,
    /// Where drafts come from, for requests that do not say.
    pub speculation: Speculation,
    /// A smaller model of the same vocabulary that drafts for this one: a path, a catalog name or an `hf:` reference.
    pub draft_model: Option<String>,
    /// Requests that may wait over all tenants, `None` for 4096; one more is refused as `overloaded`. Half of the places are divided
    /// among the tenants by their weights, at least one for each, and a tenant within its part is never refused.
    pub max_queued: Option<usize>,
    /// Layers that GPUs compute: so many of the last ones and the output, and the CPU those before. `None` for as many as fit
    /// beside a KV cache. Means nothing where there is no GPU.
    pub gpu_layers: Option<usize>,
}

/// Told how loading goes, on the thread that loads.
pub trait Progress: realm_hub::Progress {
    /// `done` of `total` bytes of weights are in place.
    fn loading(&mut self, done: u64, total: u64) {
        let _ = (done, total);
    }
}

impl Progress for () {}

/// Where a model comes from.
pub(crate) struct Source<'a> {
    /// What it was asked for by.
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
    // A template that can't be parsed says so where a conversation is rendered.
    let capabilities = template.as_ref().and_then(|template| template.capabilities(true));
    let knows_tools = capabilities.is_none_or(|capabilities| capabilities.tools);
    let thought_spelling = template.as_ref().and_then(|template| ThoughtSpelling::of(template, &tokenizer));
    let inner = realm_sandbox::Model { name: reference.to_owned(), engine, weights, tokenizer, template };
    Ok(Shared { inner: Arc::new(inner), info, tool_spelling, thought_spelling, knows_tools, _freed: Trim })
}

/// A model's file and its tokenizer.
pub(crate) fn open(path: &Path) -> Result<(Gguf, Tokenizer), Error> {
    let gguf = Gguf::open(path).map_err(Error::in_file(path))?;
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).map_err(Error::in_file(path))?;
    Ok((gguf, tokenizer))
}

/// A draft model's weights and tokenizer.
fn open_draft(device: &Device, path: &Path) -> Result<(Box<dyn Weights>, Tokenizer), Error> {
    let (gguf, tokenizer) = open(path)?;
    let loaded = device.load(&gguf, &LoadOptions::default(), &mut |_, _| {});
    Ok((loaded.map_err(Error::in_file(path))?.0, tokenizer))
}
