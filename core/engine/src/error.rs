/// The reason why a request failed. It is `Clone` because one failing step ends every request in it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request asks for something impossible, such as an empty prompt.
    #[error("{0}")]
    InvalidArgument(String),
    /// The request does not fit the limits of the engine or of its tenant.
    #[error("{0}")]
    LimitExceeded(String),
    /// Too many requests are waiting, over all tenants.
    #[error("{0}")]
    Overloaded(String),
    /// The model computed NaN or infinity: its file or an adapter is broken.
    #[error("{0}")]
    NotFinite(String),
    /// The forward pass failed.
    #[error("the model could not run: {0}")]
    Model(String),
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}
