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
    /// A kind of model that Realm does not run.
    #[error("{0}")]
    Unsupported(String),
    /// A batch that cannot be run.
    #[error("{0}")]
    InvalidBatch(String),
}
