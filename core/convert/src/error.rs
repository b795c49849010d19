//! Errors of conversions.

use std::path::PathBuf;

/// The error of a conversion or quantization.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system failed to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The numbers cannot be quantized as asked; the text says why.
    #[error("{0}")]
    Quantize(String),
    /// A folder's files are missing, broken, or contradict each other.
    #[error("{0}")]
    Folder(String),
    /// The model, or its tokenizer, is of a kind that cannot be converted.
    #[error("{0}")]
    Unsupported(String),
    /// A tensor cannot be converted.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// The problem, and what to do instead.
        reason: String,
    },
    /// A GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] realm_gguf::Error),
    /// A model cannot be run.
    #[error(transparent)]
    Model(#[from] realm_model::Error),
}

impl Error {
    pub(crate) fn in_tensor(name: &str, reason: impl ToString) -> Self {
        Self::Tensor { name: name.to_owned(), reason: reason.to_string() }
    }
}

/// Makes text from a file safe to print.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
