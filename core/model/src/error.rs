//! What can go wrong with a model.

/// A model that cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file lacks something or contradicts itself.
    #[error(transparent)]
    Gguf(#[from] realm_gguf::Error),
    /// The backend refused.
    #[error(transparent)]
    Compute(#[from] realm_compute::Error),
    /// The metadata or the tensors do not make a model.
    #[error("{0}")]
    InvalidModel(String),
    /// An adapter that contradicts itself or does not fit the model.
    #[error("{0}")]
    InvalidAdapter(String),
    /// The operating system refused to read a file.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A kind of model or adapter that Realm does not run.
    #[error("{0}")]
    Unsupported(String),
    /// A batch that cannot be run.
    #[error("{0}")]
    InvalidBatch(String),
}
