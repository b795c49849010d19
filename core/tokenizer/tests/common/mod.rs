#![allow(dead_code, missing_docs, reason = "every test file uses its own part")]

use std::path::PathBuf;

use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_tokenizer::{ChatTemplate, Tokenizer};
use serde_json::Value;

/// A model of the catalog, fetched if need be.
pub(crate) fn model(name: &str) -> Gguf {
    let file = format!("{name}.gguf");
    let entry = realm_hub::catalog().iter().find(|entry| entry.file == file).expect("a model of the catalog");
    let path = Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ()));
    Gguf::open(path.expect("the model's file")).unwrap()
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
