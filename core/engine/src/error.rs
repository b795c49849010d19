/// Why a request failed. It is cloneable, because one failing step ends every request in it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request asks for something impossible.
    #[error("{0}")]
    InvalidArgument(String),
    /// The request does not fit what the engine or its tenant was given.
    #[error("{0}")]
    LimitExceeded(String),
    /// Too many requests wait already, over all tenants.
    #[error("{0}")]
    Overloaded(String),
    /// The model computed what is no number: its file or an adapter is broken.
    #[error("{0}")]
    NotFinite(String),
    /// The forward pass failed.
    #[error("the model could not run: {0}")]
    Model(String),
    /// The engine is gone.
    #[error("the engine has stopped")]
    Stopped,
}
