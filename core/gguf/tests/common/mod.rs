//! Shared code of this crate's tests: a writer of valid and invalid GGUF files, and the paths of the real
//! models.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod samples;
pub(crate) mod writer;

use std::path::PathBuf;

use realm_gguf::{Error, Gguf};
use realm_hub::{Hub, Reference};

/// The models whose headers the tests cut and damage.
pub(crate) const MODELS: [&str; 3] = [
    "smollm2-135m-instruct-q4_1.gguf",
    "gemma-3-270m-q4_k_m.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
];

/// Returns the path of a model in the user's cache folder; fetches it if it is missing.
pub(crate) fn model_path(file: &str) -> PathBuf {
    let entry = realm_hub::catalog().iter().find(|entry| entry.file == file).expect("a model of the catalog");
    let path = Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ()));
    path.expect("the model's file")
}

/// Opens bytes that have to be refused and returns the error.
pub(crate) fn refusal(bytes: Vec<u8>) -> Error {
    match Gguf::from_bytes(bytes) {
        Ok(_) => panic!("a file that is wrong was read"),
        Err(error) => error,
    }
}

/// Asserts that bytes are refused at `offset`, with `field` and a reason that contains `reason`.
#[track_caller]
pub(crate) fn assert_refused(bytes: Vec<u8>, offset: u64, field: &str, reason: &str) {
    match refusal(bytes) {
        Error::Malformed { offset: o, field: f, reason: r } => {
            assert!(
                o == offset && f == field && r.contains(reason),
                "refused at byte {o}, `{f}`: {r}\nwanted at byte {offset}, `{field}`: {reason}"
            );
        }
        other => panic!("wanted a refusal at byte {offset}, {field}: {reason}; got {other}"),
    }
}

/// Reads a tensor's bytes.
pub(crate) fn bytes_of(gguf: &Gguf, name: &str) -> Vec<u8> {
    let info = gguf.require_tensor(name).expect("a tensor");
    gguf.read(info, &mut Vec::new()).expect("its bytes").to_vec()
}
