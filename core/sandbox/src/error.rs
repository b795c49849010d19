//! Errors of sandboxes.

use std::fmt;

use wasmtime::component::ResourceTableError;

/// The kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Realm cannot run the component or module.
    InvalidProgram,
    /// An argument is out of range or contradicts another.
    InvalidArgument,
    /// A limit of the tenant was reached.
    LimitExceeded,
    /// Too many programs run or wait already. Try again later.
    Overloaded,
    /// Realm does not support the operation.
    Unsupported,
    /// The object does not exist.
    NotFound,
    /// The tenant was not granted the operation.
    Denied,
    /// The program, or a tool that it called, reported that it failed.
    Failed,
    /// The program broke a rule of WebAssembly, or panicked.
    Trap,
    /// Reading or writing failed.
    Io,
    /// The request was cancelled.
    Cancelled,
    /// Realm itself failed.
    Internal,
}

/// An error: a kind for programs, a message for people.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// Creates an error of this kind.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the message.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn limit(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    /// Returns the error that ended a call of the guest's: one of Realm's, or a trap.
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
        use realm_tokenizer::Error as E;
        let kind = match error {
            E::NoTokenizer | E::NoTemplate | E::BrokenTemplate(_) => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidArgument,
        };
        Self::new(kind, error)
    }
}

impl From<realm_engine::PromptError> for Error {
    fn from(error: realm_engine::PromptError) -> Self {
        match error {
            realm_engine::PromptError::Tokenizer(error) => error.into(),
            realm_engine::PromptError::TooLong { .. } => Self::limit(error),
        }
    }
}

/// The failure of a host function: an error that the guest sees, or one that ends the guest.
#[derive(Debug)]
pub(crate) enum HostError {
    /// The guest sees the error and may handle it.
    Seen(Error),
    /// The error ends the guest.
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
    /// For calls that have no error to return: any error ends the guest.
    pub(crate) fn fatal(self) -> wasmtime::Error {
        match self {
            Self::Seen(error) => error.into(),
            Self::Fatal(error) => error,
        }
    }
}
