//! The error type of the whole API.

use std::fmt;
use std::path::Path;

/// The kind of failure: stable names for programs, the same in every language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// A model's file is malformed or contradicts itself.
    InvalidModel,
    /// An adapter's file is malformed, contradicts itself or does not fit the model.
    InvalidAdapter,
    /// An argument is out of range or contradicts another.
    InvalidArgument,
    /// A request is larger than its own limits or its tenant's allow.
    LimitExceeded,
    /// Too many requests wait already. Try again later.
    Overloaded,
    /// Realm does not support the file, device or option.
    Unsupported,
    /// The model or file does not exist.
    NotFound,
    /// Reading, writing or fetching failed.
    Io,
    /// A program is not WebAssembly that Realm can run.
    InvalidProgram,
    /// A program broke a rule of WebAssembly, or panicked.
    Trap,
    /// A program, or a tool that it called, reported that it failed.
    Failed,
    /// A program used something that its tenant was not granted.
    Denied,
    /// The request was cancelled.
    Cancelled,
    /// Realm itself failed.
    Internal,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 14] = [
        Self::InvalidModel,
        Self::InvalidAdapter,
        Self::InvalidArgument,
        Self::LimitExceeded,
        Self::Overloaded,
        Self::Unsupported,
        Self::NotFound,
        Self::Io,
        Self::InvalidProgram,
        Self::Trap,
        Self::Failed,
        Self::Denied,
        Self::Cancelled,
        Self::Internal,
    ];

    /// Returns the name in kebab case, such as `invalid-model`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidModel => "invalid-model",
            Self::InvalidAdapter => "invalid-adapter",
            Self::InvalidArgument => "invalid-argument",
            Self::LimitExceeded => "limit-exceeded",
            Self::Overloaded => "overloaded",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not-found",
            Self::Io => "io",
            Self::InvalidProgram => "invalid-program",
            Self::Trap => "trap",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error: a code for programs, and a message for people that says what was wrong and what would be right.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// For `map_err`: adds the file's path to the message, since a call may read more than one file.
    pub(crate) fn in_file<E: Into<Self>>(path: &Path) -> impl Fn(E) -> Self {
        move |error| {
            let Self { code, message } = error.into();
            let path = path.display().to_string();
            match code {
                ErrorCode::InvalidModel if !message.starts_with(&path) => {
                    Self::new(code, format_args!("{path}: {message}"))
                }
                _ => Self { code, message },
            }
        }
    }

    /// Adds the name of the thing that the error is about.
    pub(crate) fn prefixed(self, of: impl fmt::Display) -> Self {
        Self { code: self.code, message: format!("{of}: {}", self.message) }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorCode::Cancelled, "the generation was cancelled")
    }

    /// Returns the kind of failure.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the message without the code.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<realm_gguf::Error> for Error {
    fn from(error: realm_gguf::Error) -> Self {
        let code = match error {
            realm_gguf::Error::Io { .. } => ErrorCode::Io,
            _ => ErrorCode::InvalidModel,
        };
        Self::new(code, error)
    }
}

impl From<realm_compute::Error> for Error {
    fn from(error: realm_compute::Error) -> Self {
        use realm_compute::Error as E;
        let code = match error {
            E::Unsupported(_) => ErrorCode::Unsupported,
            E::InvalidModel(_) => ErrorCode::InvalidModel,
            E::OutOfMemory { .. } => ErrorCode::LimitExceeded,
            _ => ErrorCode::Internal,
        };
        match code {
            ErrorCode::LimitExceeded => Self::new(
                code,
                format_args!(
                    "{error}: lower `gpu_layers` (`--gpu-layers`) or `kv_tokens` (`--context`), or choose a model with \
                     smaller weights, such as Q4_K_M"
                ),
            ),
            _ => Self::new(code, error),
        }
    }
}

impl From<realm_model::Error> for Error {
    fn from(error: realm_model::Error) -> Self {
        match error {
            realm_model::Error::Gguf(error) => error.into(),
            realm_model::Error::Compute(error) => error.into(),
            realm_model::Error::Unsupported(_) => Self::new(ErrorCode::Unsupported, error),
            realm_model::Error::InvalidModel(_) => Self::new(ErrorCode::InvalidModel, error),
            realm_model::Error::InvalidAdapter(_) => Self::new(ErrorCode::InvalidAdapter, error),
            realm_model::Error::Io { .. } => Self::new(ErrorCode::Io, error),
            _ => Self::new(ErrorCode::Internal, error),
        }
    }
}

impl From<realm_tokenizer::Error> for Error {
    fn from(error: realm_tokenizer::Error) -> Self {
        use realm_tokenizer::Error as E;
        match error {
            E::Gguf(error) => error.into(),
            E::NoTokenizer | E::NoTemplate | E::BrokenTemplate(_) => Self::new(ErrorCode::Unsupported, error),
            E::UnknownToken { .. } | E::Template(_) | E::Conversation(_) => {
                Self::new(ErrorCode::InvalidArgument, error)
            }
            _ => Self::new(ErrorCode::InvalidModel, error),
        }
    }
}

impl From<realm_engine::Error> for Error {
    fn from(error: realm_engine::Error) -> Self {
        use realm_engine::Error as E;
        let code = match error {
            E::InvalidArgument(_) => ErrorCode::InvalidArgument,
            E::LimitExceeded(_) => ErrorCode::LimitExceeded,
            E::Overloaded(_) => ErrorCode::Overloaded,
            E::NotFinite(_) => ErrorCode::InvalidModel,
            // The caller keeps the engine alive, so an engine that has stopped has failed.
            _ => ErrorCode::Internal,
        };
        Self::new(code, error)
    }
}

impl From<realm_engine::PromptError> for Error {
    fn from(error: realm_engine::PromptError) -> Self {
        match error {
            realm_engine::PromptError::Tokenizer(error) => error.into(),
            realm_engine::PromptError::TooLong { .. } => Self::new(ErrorCode::LimitExceeded, error),
        }
    }
}

impl From<realm_convert::Error> for Error {
    fn from(error: realm_convert::Error) -> Self {
        use realm_convert::Error as E;
        let code = match error {
            E::Gguf(error) => return error.into(),
            E::Model(error) => return error.into(),
            E::Io { .. } => ErrorCode::Io,
            E::Quantize(_) => ErrorCode::InvalidArgument,
            E::Unsupported(_) => ErrorCode::Unsupported,
            E::Folder(_) | E::Tensor { .. } => ErrorCode::InvalidModel,
        };
        Self::new(code, error)
    }
}

impl From<realm_hub::Error> for Error {
    fn from(error: realm_hub::Error) -> Self {
        use realm_hub::Error as E;
        let code = match error {
            E::UnknownModel { .. } | E::NoFile(_) => ErrorCode::NotFound,
            E::NotManaged(_) | E::InvalidEntry { .. } => ErrorCode::InvalidArgument,
            _ => ErrorCode::Io,
        };
        Self::new(code, error)
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn all_codes_are_listed() {
        let names = include_str!("error.rs")
            .lines()
            .filter(|line| line.trim().starts_with("Self::") && line.contains("=> \""));
        assert_eq!(names.count(), ErrorCode::ALL.len());
    }
}
