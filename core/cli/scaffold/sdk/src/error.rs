//! Errors of Realm's functions and of programs.

use std::fmt;

/// The kinds of failure; stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// An argument is invalid; the message says which, and what would be right.
    InvalidArgument,
    /// The tenant's limits do not allow the operation.
    LimitExceeded,
    /// Too many requests wait already; a later attempt may succeed.
    Overloaded,
    /// Realm does not support the operation with this model or on this device.
    Unsupported,
    /// The model, adapter, layer, weight, program or tool does not exist.
    NotFound,
    /// The tenant does not have the grant.
    Denied,
    /// The embedding application's tool or store failed.
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

    /// Returns the code's name in the contract, such as `limit-exceeded`.
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

    /// Called by the bindings to make a code. Not actually unsafe, but the bindings call an unsafe function.
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

/// An error of Realm or of a program. A program that returns one ends its request with it.
///
/// Texts convert to errors with the code `failed`, so `?` works on a `Result<_, String>`, and a program may
/// return `Err("no such city".into())`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure.
    pub code: ErrorCode,
    /// The description, for people.
    pub message: String,
}

impl Error {
    /// Makes an error of any kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Makes an `invalid-argument` error that describes a problem of the request.
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

/// The result of fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
