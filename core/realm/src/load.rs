//! Loading: from a model's name to its weights in memory.

use std::path::Path;
use std::sync::Arc;

use realm_engine::{Draft, Engine, EngineConfig, LoadedModel, SnapshotKey};
use realm_gguf::{Gguf, Metadata, Writer};
use realm_model::Weights;
use realm_tokenizer::{ChatTemplate, SpecialTexts, Tokenizer};

use crate::background::Background;
use crate::device::Device;
use crate::error::ErrorCode;
use crate::frontend::Frontend;
use crate::thought::ThoughtSpelling;
use crate::tools::ToolSpelling;
use crate::{Error, LoadOptions, ModelInfo, Progress};

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
) -> Result<(LoadedModel, Frontend), Error> {
    let (gguf, tokenizer) = open(path)?;
    let (metadata, tokenizer) = (gguf.metadata(), Arc::new(tokenizer));
    let draft = draft.map(|path| open_draft(device, path)).transpose()?;
    let special = SpecialTexts::of(metadata, &tokenizer);
    let template = match &options.chat_template {
        Some(source) => Some(ChatTemplate::new(source, special)?),
        None => ChatTemplate::from_metadata(metadata, special),
    };
    let loaded = device.load(&gguf, options, &mut |done, total| progress.loading(done, total));
    let (weights, placement) = loaded.map_err(Error::in_file(path))?;
    let config = EngineConfig {
        snapshot_key: Some(snapshot_key.clone()),
        ..placement.engine_config(&*weights, options)?
    };
    let draft = draft.as_ref().map(|(weights, tokenizer)| Draft { weights: &**weights, tokenizer });
    let engine = Engine::with_draft(&*weights, Arc::clone(&tokenizer), &config, draft)?;
    let info = ModelInfo::new(&gguf, &*weights, &engine, template.is_some());
    let tool_spelling = ToolSpelling::of(template.as_ref(), &tokenizer);
    // A template that cannot be parsed reports its error when a conversation is rendered.
    let capabilities = template.as_ref().and_then(|template| template.capabilities(true));
    let knows_tools = capabilities.is_none_or(|capabilities| capabilities.tools);
    let thought_spelling = template.as_ref().and_then(|template| ThoughtSpelling::of(template, &tokenizer));
    let background = Background::default();
    let path = path.to_owned();
    let frontend = Frontend { info, path, tool_spelling, thought_spelling, knows_tools, background };
    Ok((LoadedModel::new(reference, engine, weights, tokenizer, template), frontend))
}

/// Opens a model's file, or its folder, and its tokenizer.
pub(crate) fn open(path: &Path) -> Result<(Gguf, Tokenizer), Error> {
    let gguf = realm_convert::open(path).map_err(Error::in_file(path))?;
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).map_err(Error::in_file(path))?;
    Ok((gguf, tokenizer))
}

/// Returns the metadata that a tokenizer is made of, as the bytes of a GGUF file.
pub(crate) fn tokenizer_file(path: &Path) -> Result<Vec<u8>, Error> {
    let gguf = realm_convert::open(path).map_err(Error::in_file(path))?;
    // Phi-3's tokens behave by the model's name.
    let needed = |key: &str| {
        matches!(key, "general.architecture" | "general.name")
            || (key.starts_with("tokenizer.") && !key.starts_with("tokenizer.chat_template"))
    };
    let entries = gguf.metadata().iter().filter(|(key, _)| needed(key));
    let metadata = Metadata::from_entries(entries.map(|(key, value)| (key.to_owned(), value.clone())));
    let file = Writer::new(Vec::new(), &metadata, &[]).and_then(Writer::finish);
    file.map_err(|error| Error::new(ErrorCode::Io, error))
}

/// Loads a draft model's weights and tokenizer.
fn open_draft(device: &Device, path: &Path) -> Result<(Box<dyn Weights>, Tokenizer), Error> {
    let (gguf, tokenizer) = open(path)?;
    let loaded = device.load(&gguf, &LoadOptions::default(), &mut |_, _| {});
    Ok((loaded.map_err(Error::in_file(path))?.0, tokenizer))
}
