#![allow(dead_code, missing_docs, reason = "every test file uses its own part")]

use std::path::PathBuf;

use realm_gguf::Gguf;
use realm_tokenizer::{ChatTemplate, Tokenizer};
use serde_json::Value;

/// Where `ci/setup` put the models.
pub(crate) fn model(name: &str) -> Gguf {
    let folder = std::env::var_os("REALM_MODELS_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("a home folder")).join(".cache");
        cache.unwrap_or_else(home).join("realm/models")
    });
    let path = folder.join(format!("{name}.gguf"));
    Gguf::open(&path).unwrap_or_else(|e| panic!("{}: {e}; ci/setup fetches the models", path.display()))
}

pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_metadata(model(name).metadata()).unwrap()
}

pub(crate) fn template(name: &str) -> Option<ChatTemplate> {
    ChatTemplate::from_metadata(model(name).metadata(), String::new(), String::new()).unwrap()
}

pub(crate) fn golden(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/golden/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
