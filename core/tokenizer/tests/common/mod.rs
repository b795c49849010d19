#![allow(dead_code, missing_docs, reason = "every test file uses its own part")]

use std::path::PathBuf;

use realm_gguf::{Gguf, Metadata, Value as RawValue};
use realm_hub::{Hub, Reference};
use realm_tokenizer::{ChatTemplate, SpecialTexts, Tokenizer};
use serde_json::Value;

/// Opens a model of the catalog; fetches it if it is missing.
pub(crate) fn model(name: &str) -> Gguf {
    let file = format!("{name}.gguf");
    let entry = realm_hub::catalog().iter().find(|entry| entry.file == file).expect("a model of the catalog");
    let path = Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ()));
    Gguf::open(path.expect("the model's file")).unwrap()
}

pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_metadata(model(name).metadata()).unwrap()
}

/// Returns a model's metadata with changed keys; `None` removes a key.
pub(crate) fn changed(name: &str, changes: &[(&str, Option<RawValue>)]) -> Metadata {
    let gguf = model(name);
    let gone = |key: &str| changes.iter().any(|(other, value)| *other == key && value.is_none());
    let kept = gguf.metadata().iter().filter(|(key, _)| !gone(key));
    let kept = kept.map(|(key, value)| (key.to_owned(), value.clone()));
    let new = changes.iter().filter_map(|(key, value)| Some(((*key).to_owned(), value.clone()?)));
    Metadata::from_entries(kept.chain(new))
}

pub(crate) fn template(name: &str) -> Option<ChatTemplate> {
    ChatTemplate::from_metadata(model(name).metadata(), SpecialTexts::new("", ""))
}

pub(crate) fn golden(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/golden/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
