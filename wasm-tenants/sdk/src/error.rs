//! What can go wrong.

use std::fmt;

/// Kinds of failure; stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// An argument means nothing here; the message says which and what would be right.
    InvalidArgument,
    /// The tenant's limits do not allow it.
    LimitExceeded,
    /// Too much waits already; later it may work.
    Overloaded,
    /// Realm does not do that with this model or on this device.
    Unsupported,
    /// There is no such model, adapter, layer, weight, program or tool.
    NotFound,
    /// The tenant was not granted that.
    Denied,
    /// The embedding application's tool or a store failed.
    Failed,
    /// Realm itself failed.
    Internal,
}

impl ErrorCode {
    const ALL: [Self; 8] = [
        Self::InvalidArgument,
        Self::LimitExceeded,
        Self::Overloaded,
        Self::Unsupported,
        Self::NotFound,
        Self::Denied,
        Self::Failed,
        Self::Internal,
    ];

    /// Its name in the contract, such as `limit-exceeded`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid-argument",
            Self::LimitExceeded => "limit-exceeded",
            Self::Overloaded => "overloaded",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Internal => "internal",
        }
    }

    /// What the bindings make a code of. Not unsafe, but they would call one that is.
    #[doc(hidden)]
    pub unsafe fn _lift(value: u8) -> Self {
        Self::ALL[usize::from(value)]
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong. A program that returns one ends its request with it.
///
/// Texts become errors with the code `failed`, so that `?` works on a `Result<_, String>` and `Err("no such city".into())`
/// is an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Its kind.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl Error {
    /// An error of any kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// One that says what is wrong with the request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(ErrorCode::Failed, message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::new(ErrorCode::Failed, message)
    }
}

impl From<fmt::Error> for Error {
    fn from(error: fmt::Error) -> Self {
        error.to_string().into()
    }
}

impl From<std::string::FromUtf8Error> for Error {
    fn from(error: std::string::FromUtf8Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<std::num::ParseIntError> for Error {
    fn from(error: std::num::ParseIntError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<std::num::ParseFloatError> for Error {
    fn from(error: std::num::ParseFloatError) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(feature = "json")]
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

/// What fallible functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
