//! Hugging Face folders as GGUF files: config.json, tokenizer.json and safetensors become the metadata and
//! tensors that llama.cpp's converter would write, so that everything behind is one path.

mod config;
mod families;
mod fused;
mod metadata;
mod part;
mod pretokenizer;
mod safetensors;
mod tensors;
mod tokenizer;
mod weights;

use std::path::Path;

use realm_gguf::{Gguf, Metadata, Value, read_file};
use serde_json::{Map, Value as Json};

use crate::Error;
use config::Config;
use families::Family;
use safetensors::Files;
use tensors::Folder;
use tokenizer::TokenizerFiles;

/// Most bytes of a JSON file. The largest tokenizers have 40 MB.
const MOST_JSON: u64 = 256 << 20;

/// Opens a folder as transformers saves it: config.json, model.safetensors (or several files and their
/// index), tokenizer.json, tokenizer_config.json. Tensors are read and converted when [`Gguf::read`] asks for
/// them. A folder without a tokenizer becomes a model for token ids.
///
/// # Errors
/// [`Error::Folder`] for missing or broken files, [`Error::Unsupported`] for a model that cannot be
/// converted, [`Error::Gguf`] if a file cannot be read.
pub fn open_folder(folder: &Path) -> Result<Gguf, Error> {
    let Some(config) = object(folder, "config.json")? else {
        return Err(Error::Folder(format!(
            "{} is a folder without config.json: give a model's GGUF file, or a folder as transformers saves it",
            folder.display()
        )));
    };
    let config = Config::new(config);
    let family = Family::of(&config)?;
    let index = object(folder, "model.safetensors.index.json")?;
    if index.is_none() && !folder.join("model.safetensors").is_file() {
        let pickled = folder.join("pytorch_model.bin").is_file()
            || folder.join("pytorch_model.bin.index.json").is_file();
        let why = if pickled {
            "has weights in Python's pickle format only; load it with transformers and save it with \
             `model.save_pretrained(folder, safe_serialization=True)`"
        } else {
            "has neither model.safetensors nor model.safetensors.index.json; fetch the whole repository"
        };
        return Err(Error::Folder(format!("{}: {why}", folder.display())));
    }
    let files = Files::open(folder, index.as_ref())?;
    let name = folder.canonicalize().ok();
    let name = name.as_deref().unwrap_or(folder).file_name().map(|name| name.to_string_lossy());
    let facts = metadata::facts(family, &config, &name.unwrap_or_default())?;
    let made = tensors::plan(family, &config, &files, facts.tensors)?;
    let embeddings = made.iter().find(|made| made.info.name == "token_embd.weight");
    let rows = embeddings.and_then(|made| made.info.shape.get(1).copied()).unwrap_or(0) as usize;
    let mut entries = facts.entries;
    match tokenizer_files(folder)? {
        Some(files) => entries.extend(tokenizer::entries(&files, &config, rows)?),
        None => entries.push(("tokenizer.ggml.model".into(), Value::String("no_vocab".into()))),
    }
    let index = made.iter().map(|made| made.info.clone()).collect();
    Ok(Gguf::from_tensors(Metadata::from_entries(entries), index, Box::new(Folder { files, made }))?)
}

fn tokenizer_files(folder: &Path) -> Result<Option<TokenizerFiles>, Error> {
    let Some(tokenizer) = object(folder, "tokenizer.json")? else {
        let other = ["tokenizer.model", "vocab.json", "tekken.json"];
        return match other.into_iter().find(|name| folder.join(name).is_file()) {
            None => Ok(None),
            Some(name) => Err(Error::Folder(format!(
                "{}: has {name} and no tokenizer.json; load the tokenizer with transformers' AutoTokenizer and save it \
                 with `save_pretrained`",
                folder.display()
            ))),
        };
    };
    let template = match read_file(folder.join("chat_template.jinja"), MOST_JSON) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => None,
    };
    Ok(Some(TokenizerFiles {
        tokenizer: Json::Object(tokenizer),
        config: object(folder, "tokenizer_config.json")?.unwrap_or_default(),
        generation: object(folder, "generation_config.json")?.unwrap_or_default(),
        template,
    }))
}

/// Reads a JSON object; `None` if there is no such file.
fn object(folder: &Path, name: &str) -> Result<Option<Map<String, Json>>, Error> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_file(&path, MOST_JSON).map_err(|source| Error::Io { path: path.clone(), source })?;
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|why| Error::Folder(format!("{}: is no JSON object: {why}", path.display())))
}
