//! Errors.

/// An error: the case is for programs, the message for people. It says what was wrong and what would be
/// right.
#[derive(Debug, Clone, thiserror::Error, uniffi::Error)]
pub enum RealmError {
    /// A model's file is malformed or contradicts itself.
    #[error("invalid-model: {message}")]
    InvalidModel {
        /// For people.
        message: String,
    },
    /// An adapter's file is malformed, contradicts itself or does not fit the model.
    #[error("invalid-adapter: {message}")]
    InvalidAdapter {
        /// For people.
        message: String,
    },
    /// An argument is out of range or contradicts another.
    #[error("invalid-argument: {message}")]
    InvalidArgument {
        /// For people.
        message: String,
    },
    /// A request is larger than its own limits or its tenant's allow.
    #[error("limit-exceeded: {message}")]
    LimitExceeded {
        /// For people.
        message: String,
    },
    /// Too many requests wait already. Try again later.
    #[error("overloaded: {message}")]
    Overloaded {
        /// For people.
        message: String,
    },
    /// Realm does not support the file, device or option.
    #[error("unsupported: {message}")]
    Unsupported {
        /// For people.
        message: String,
    },
    /// The model or file does not exist.
    #[error("not-found: {message}")]
    NotFound {
        /// For people.
        message: String,
    },
    /// Reading, writing or fetching failed.
    #[error("io: {message}")]
    Io {
        /// For people.
        message: String,
    },
    /// A program is not WebAssembly that Realm can run.
    #[error("invalid-program: {message}")]
    InvalidProgram {
        /// For people.
        message: String,
    },
    /// A program broke a rule of WebAssembly, or panicked.
    #[error("trap: {message}")]
    Trap {
        /// For people.
        message: String,
    },
    /// A program, or a tool that it called, reported that it failed.
    #[error("failed: {message}")]
    Failed {
        /// For people.
        message: String,
    },
    /// A program used something that its tenant was not granted.
    #[error("denied: {message}")]
    Denied {
        /// For people.
        message: String,
    },
    /// The request was cancelled.
    #[error("cancelled: {message}")]
    Cancelled {
        /// For people.
        message: String,
    },
    /// Realm itself failed.
    #[error("internal: {message}")]
    Internal {
        /// For people.
        message: String,
    },
}

impl RealmError {
    pub(crate) fn invalid(message: impl ToString) -> Self {
        Self::InvalidArgument { message: message.to_string() }
    }
}

impl From<realm::Error> for RealmError {
    fn from(error: realm::Error) -> Self {
        use realm::ErrorCode as C;
        let message = error.message().to_owned();
        match error.code() {
            C::InvalidModel => Self::InvalidModel { message },
            C::InvalidAdapter => Self::InvalidAdapter { message },
            C::InvalidArgument => Self::InvalidArgument { message },
            C::LimitExceeded => Self::LimitExceeded { message },
            C::Overloaded => Self::Overloaded { message },
            C::Unsupported => Self::Unsupported { message },
            C::NotFound => Self::NotFound { message },
            C::Io => Self::Io { message },
            C::InvalidProgram => Self::InvalidProgram { message },
            C::Trap => Self::Trap { message },
            C::Failed => Self::Failed { message },
            C::Denied => Self::Denied { message },
            C::Cancelled => Self::Cancelled { message },
            _ => Self::Internal { message },
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, RealmError>;

/// Parses JSON of the caller's.
pub(crate) fn json(text: &str, name: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).map_err(|error| RealmError::invalid(format!("`{name}` is no JSON: {error}")))
}
