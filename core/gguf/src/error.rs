//! Why a file was refused.

use std::path::PathBuf;

/// A file that cannot be read, or is not what it claims to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The bytes at `offset` cannot be what the format asks for.
    #[error("invalid GGUF at byte {offset}: {field}: {reason}")]
    Malformed {
        /// Byte offset in the file.
        offset: u64,
        /// Which field, for example ``tensor `blk.0.attn_q.weight` ``.
        field: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The index is whole, and the file ends before the weights that it lists: it never had them, or was cut while it was read.
    #[error(
        "the file ends at byte {len} of {needed}: the download was not finished. Fetch it again; `realm models pull` \
         verifies what it fetches"
    )]
    Incomplete {
        /// Bytes that the file has.
        len: u64,
        /// Bytes that the whole file has.
        needed: u64,
    },
    /// A metadata entry is missing or has another type than its reader needs.
    #[error("metadata `{key}`: {reason}")]
    Metadata {
        /// The key.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A tensor that is needed is not in the file.
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    /// The parts of a split file do not belong together.
    #[error("split file: {0}")]
    Split(String),
}

impl Error {
    pub(crate) fn metadata(key: &str, reason: impl Into<String>) -> Self {
        Self::Metadata { key: key.to_owned(), reason: reason.into() }
    }
}
