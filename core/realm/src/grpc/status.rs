//! Failures of calls.

use tonic::{Code, Status};

use crate::Error;
use crate::error::ErrorCode;

/// Returns the error of a failed call: the server's own code, or that of the status if there is none.
pub(super) fn error(status: Status) -> Error {
    let own = status.metadata().get("realm-error-code").and_then(|name| code(name.to_str().ok()?));
    let code = own.unwrap_or(match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ErrorCode::InvalidArgument,
        Code::Unauthenticated | Code::PermissionDenied => ErrorCode::Denied,
        Code::NotFound => ErrorCode::NotFound,
        Code::ResourceExhausted | Code::DeadlineExceeded => ErrorCode::LimitExceeded,
        Code::Unimplemented => ErrorCode::Unsupported,
        Code::Cancelled => ErrorCode::Cancelled,
        // A broken connection has no status, and gRPC calls that unknown.
        Code::Unavailable | Code::Unknown => ErrorCode::Io,
        _ => ErrorCode::Internal,
    });
    match status.message() {
        "" => Error::new(code, format_args!("the server ended the call: {}", status.code().description())),
        message => Error::new(code, message),
    }
}

/// Returns the code of a stable name.
pub(super) fn code(name: &str) -> Option<ErrorCode> {
    ErrorCode::ALL.into_iter().find(|code| code.as_str() == name)
}
