//! Errors that refuse a file.

use std::path::PathBuf;

/// The error of a file that cannot be read or does not follow the format.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system failed to open or read the file.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The bytes at `offset` are not valid in the format.
    #[error("invalid GGUF at byte {offset}: {field}: {reason}")]
    Malformed {
        /// Byte offset in the file.
        offset: u64,
        /// The field, for example ``tensor `blk.0.attn_q.weight` ``.
        field: String,
        /// The problem, and what a valid value would be.
        reason: String,
    },
    /// The index is complete, but the file ends before the weights that it lists: the file was incomplete
    /// from the start, or cut while it was read.
    #[error(
        "the file ends at byte {len} of {needed}: the download was not finished. Fetch it again; `realm models pull` \
         verifies what it fetches"
    )]
    Incomplete {
        /// Length of the file in bytes.
        len: u64,
        /// Length of the complete file in bytes.
        needed: u64,
    },
    /// A metadata entry is missing or has another type than its reader needs.
    #[error("metadata `{key}`: {reason}")]
    Metadata {
        /// The key.
        key: String,
        /// The problem, and what a valid value would be.
        reason: String,
    },
    /// A required tensor is not in the file.
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    /// A tensor that is made from other files cannot be made.
    #[error("tensor `{name}` {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// The problem, and what to do instead.
        reason: String,
    },
    /// The parts of a split file do not belong together.
    #[error("split file: {0}")]
    Split(String),
}

impl Error {
    pub(crate) fn metadata(key: &str, reason: impl Into<String>) -> Self {
        Self::Metadata { key: key.to_owned(), reason: reason.into() }
    }
}
