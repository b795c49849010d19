//! Shared parts of this crate's tests.

use realm_hub::{Entry, Source};
use sha2::{Digest, Sha256};

/// Creates a catalog entry for a file with this content.
pub(crate) fn entry(content: &[u8], sources: Vec<Source>) -> Entry {
    Entry {
        name: "tiny".into(),
        file: "tiny.gguf".into(),
        size: content.len() as u64,
        sha256: sha256(content),
        license: "CC0-1.0".into(),
        description: "A file of a test".into(),
        sources,
    }
}

/// Returns the SHA-256 in lowercase hexadecimal.
pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns bytes that differ from place to place.
pub(crate) fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * i / 7 + i) as u8).collect()
}
