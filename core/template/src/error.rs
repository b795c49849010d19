//! Reasons for which a template can't be parsed or rendered.

use std::fmt;

/// The error of a template that cannot be parsed, or of a rendering that ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The source is not a valid template.
    Syntax {
        /// The line of the source, from 1.
        line: u32,
        /// The problem, and what would be right.
        message: String,
    },
    /// The template refused its input with `raise_exception`; contains the template's own message.
    Raised(String),
    /// An operation failed while the template was rendered.
    Render {
        /// The line of the source, from 1.
        line: u32,
        /// The problem, and what would be right.
        message: String,
    },
    /// The template took more steps than [`Limits::steps`](crate::Limits::steps).
    TooManySteps,
    /// The template wrote or held more bytes than [`Limits::bytes`](crate::Limits::bytes).
    TooManyBytes,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, message } => write!(f, "the template can't be parsed: line {line}: {message}"),
            Self::Raised(message) => write!(f, "the template refuses this conversation: {message}"),
            Self::Render { line, message } => write!(f, "the template failed in line {line}: {message}"),
            Self::TooManySteps => {
                f.write_str("the template did not end within its limit of steps; it may loop, or the conversation is too long")
            }
            Self::TooManyBytes => {
                f.write_str("the template needs more memory than its limit; it may repeat text, or the conversation is too long")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Makes an error of an operation; the interpreter fills in the line.
pub(crate) fn fault(message: impl Into<String>) -> Error {
    Error::Render { line: 0, message: message.into() }
}

/// The result of every operation of a template.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Adds the line to an error, unless an inner statement has already done so.
pub(crate) trait At<T> {
    fn at(self, line: u32) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, line: u32) -> Self {
        match self {
            Err(Error::Render { line: 0, message }) => Err(Error::Render { line, message }),
            other => other,
        }
    }
}
