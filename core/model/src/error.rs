//! Errors of models and adapters.

/// A model that cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file lacks an entry or contradicts itself.
    #[error(transparent)]
    Gguf(#[from] realm_gguf::Error),
    /// The backend refused an operation or failed.
    #[error(transparent)]
    Compute(#[from] realm_compute::Error),
    /// The metadata or the tensors do not describe a model.
    #[error("{0}")]
    InvalidModel(String),
    /// An adapter that contradicts itself or does not fit the model.
    #[error("{0}")]
    InvalidAdapter(String),
    /// The operating system failed to read a file.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A kind of model or adapter that Realm does not run.
    #[error("{0}")]
    Unsupported(String),
    /// A batch that cannot be run.
    #[error("{0}")]
    InvalidBatch(String),
}
