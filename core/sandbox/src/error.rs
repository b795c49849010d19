//! What goes wrong in sandboxes.

use std::fmt;

use wasmtime::component::ResourceTableError;

use crate::bindings::realm::tenant::types as wit;

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A component or module that Realm cannot run.
    InvalidProgram,
    /// An argument means nothing.
    InvalidArgument,
    /// A limit of the tenant was reached.
    LimitExceeded,
    /// Too much runs or waits already.
    Overloaded,
    /// Realm does not do that.
    Unsupported,
    /// There is no such thing.
    NotFound,
    /// The tenant was not granted that.
    Denied,
    /// The program, or a tool that it called, says that it failed.
    Failed,
    /// The program did what WebAssembly forbids, or panicked.
    Trap,
    /// Reading or writing failed.
    Io,
    /// The request was cancelled.
    Cancelled,
    /// Realm itself failed.
    Internal,
}

/// What went wrong: a kind for programs, a message for people.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of that kind.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn limit(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    /// What a call of the guest's ended with: an error of ours that ended it, or a trap.
    pub(crate) fn of_call(error: &wasmtime::Error) -> Self {
        if let Some(ours) = error.downcast_ref::<Self>() {
            return ours.clone();
        }
        let kind = match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::StackOverflow) => ErrorKind::LimitExceeded,
            _ => ErrorKind::Trap,
        };
        Self::new(kind, format!("the program trapped: {error:#}"))
    }
}

impl From<realm_engine::Error> for Error {
    fn from(error: realm_engine::Error) -> Self {
        use realm_engine::Error as E;
        let kind = match error {
            E::InvalidArgument(_) => ErrorKind::InvalidArgument,
            E::LimitExceeded(_) => ErrorKind::LimitExceeded,
            E::Overloaded(_) => ErrorKind::Overloaded,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error)
    }
}

impl From<realm_tokenizer::Error> for Error {
    fn from(error: realm_tokenizer::Error) -> Self {
        let kind = match error {
            realm_tokenizer::Error::NoTemplate | realm_tokenizer::Error::BrokenTemplate(_) => {
                ErrorKind::Unsupported
            }
            _ => ErrorKind::InvalidArgument,
        };
        Self::new(kind, error)
    }
}

/// How a host function fails: with an error that the guest sees, or one that ends it.
#[derive(Debug)]
pub(crate) enum HostError {
    /// The guest's to handle.
    Seen(Error),
    /// The end of the guest.
    Fatal(wasmtime::Error),
}

impl<E: Into<Error>> From<E> for HostError {
    fn from(error: E) -> Self {
        Self::Seen(error.into())
    }
}

impl From<ResourceTableError> for HostError {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => {
                Self::Seen(Error::limit("the program holds as many handles as it may; drop some first"))
            }
            other => Self::Fatal(other.into()),
        }
    }
}

impl From<wasmtime::Error> for HostError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Fatal(error)
    }
}

impl HostError {
    /// As the guest sees it, or as it ends the guest.
    pub(crate) fn into_wit(self) -> wasmtime::Result<wit::Error> {
        match self {
            Self::Seen(error) => Ok(error.into()),
            Self::Fatal(error) => Err(error),
        }
    }

    /// For calls that have no error to return: any ends the guest.
    pub(crate) fn fatal(self) -> wasmtime::Error {
        match self {
            Self::Seen(error) => error.into(),
            Self::Fatal(error) => error,
        }
    }
}

impl From<Error> for wit::Error {
    fn from(error: Error) -> Self {
        use ErrorKind as K;
        let code = match error.kind {
            K::InvalidArgument => wit::ErrorCode::InvalidArgument,
            K::LimitExceeded => wit::ErrorCode::LimitExceeded,
            K::Overloaded => wit::ErrorCode::Overloaded,
            K::Unsupported => wit::ErrorCode::Unsupported,
            K::NotFound => wit::ErrorCode::NotFound,
            K::Denied => wit::ErrorCode::Denied,
            K::Failed | K::Trap | K::InvalidProgram | K::Io | K::Cancelled => wit::ErrorCode::Failed,
            K::Internal => wit::ErrorCode::Internal,
        };
        Self { code, message: error.message }
    }
}

impl From<wit::Error> for Error {
    /// What a program returned. It says which kind, but it can't speak for Realm itself.
    fn from(error: wit::Error) -> Self {
        use wit::ErrorCode as C;
        let kind = match error.code {
            C::InvalidArgument => ErrorKind::InvalidArgument,
            C::LimitExceeded => ErrorKind::LimitExceeded,
            C::Overloaded => ErrorKind::Overloaded,
            C::Unsupported => ErrorKind::Unsupported,
            C::NotFound => ErrorKind::NotFound,
            C::Denied => ErrorKind::Denied,
            C::Failed | C::Internal => ErrorKind::Failed,
        };
        Self { kind, message: error.message }
    }
}
