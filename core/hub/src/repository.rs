//! Repositories whose model is a folder: config.json, safetensors, a tokenizer. Each file is pulled as one of
//! its own, and an empty file says that all of them are there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{Place, folder_bytes};
use crate::catalog::Source;
use crate::error::{Error, Failure, Reason, Result};
use crate::hub::{Hub, State};
use crate::huggingface;
use crate::progress::Progress;
use crate::reference::{HubRepository, Reference};

/// The file that says that a folder is complete. Its name is none that a file of a repository can have.
const COMPLETE: &str = ".complete";

/// The files of a model beside its weights.
const FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "tokenizer.model",
];

/// The folder of a repository.
pub(crate) fn folder(hub: &Hub, repository: &HubRepository) -> PathBuf {
    hub.cache().join("models").join("hf").join(repository.owner()).join(repository.repo())
}

/// The path and the state of a repository's folder.
pub(crate) fn state(hub: &Hub, repository: &HubRepository) -> (PathBuf, State) {
    let folder = folder(hub, repository);
    let state = match folder_bytes(&folder) {
        bytes if is_complete(&folder) => State::Present(bytes),
        0 => State::Absent,
        bytes => State::Partial(bytes),
    };
    (folder, state)
}

fn is_complete(folder: &Path) -> bool {
    folder.join(COMPLETE).is_file()
}

/// Returns whether a file of a repository belongs to the model: weights that are stored a second time, in
/// another format or under another name, do not.
fn is_needed(name: &str) -> bool {
    FILES.contains(&name)
        || (name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/'))
}

/// Fetches the files of a model that are missing.
pub(crate) fn pull(hub: &Hub, repository: &HubRepository, progress: &mut dyn Progress) -> Result<PathBuf> {
    let folder = folder(hub, repository);
    // In a folder that others may write into, the mark of a complete one may be anyone's.
    let place = Place::new(hub.cache(), &["hf", repository.owner(), repository.repo(), "config.json"]);
    if is_complete(&folder) && place.is_private() {
        return Ok(folder);
    }
    let failed = |reason| Error::AllSourcesFailed {
        file: repository.to_string(),
        path: folder.clone(),
        failures: vec![Failure { source: Source::Hub { hub: repository.to_string() }, reason }],
    };
    let names = huggingface::files(hub.endpoint(), repository).map_err(failed)?;
    let needed: Vec<_> = names.iter().filter(|name| is_needed(name)).collect();
    let has = |end: &str| needed.iter().any(|name| name.ends_with(end));
    if !has("config.json") || !has(".safetensors") {
        let files = names
            .iter()
            .filter(|name| name.ends_with(".gguf"))
            .take(3)
            .map(|name| format!("hf:{repository}/{name}"));
        let files: Vec<_> = files.collect();
        let hint = if files.is_empty() {
            String::new()
        } else {
            format!("; name one of its files: {}", files.join(", "))
        };
        let why = format!("{repository} has no config.json with safetensors{hint}");
        return Err(failed(Reason::Hub(why)));
    }
    for name in needed {
        let file = repository.file(name);
        let file = file.ok_or_else(|| failed(Reason::Hub(format!("`{name}` is no plain name of a file"))))?;
        hub.pull(&Reference::HuggingFace(file), progress)?;
    }
    let complete = folder.join(COMPLETE);
    fs::write(&complete, "").map_err(Error::io("write", &complete))?;
    Ok(folder)
}

/// Removes all files of a repository, with the remains of interrupted pulls.
pub(crate) fn remove(hub: &Hub, repository: &HubRepository) -> Result<u64> {
    let (folder, _) = state(hub, repository);
    let _ = fs::remove_file(folder.join(COMPLETE));
    let mut bytes = 0;
    let prefix = format!("{repository}/");
    for status in hub.list()? {
        if let Reference::HuggingFace(file) = &status.reference
            && file.to_string().starts_with(&prefix)
        {
            bytes += hub.remove(&status.reference)?;
        }
    }
    Ok(bytes)
}
