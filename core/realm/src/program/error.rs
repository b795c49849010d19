//! Errors of programs.

use crate::Error;
use crate::error::ErrorCode;

impl From<realm_sandbox::Error> for Error {
    fn from(error: realm_sandbox::Error) -> Self {
        use realm_sandbox::ErrorKind as K;
        let code = match error.kind() {
            K::InvalidProgram => ErrorCode::InvalidProgram,
            K::InvalidArgument => ErrorCode::InvalidArgument,
            K::LimitExceeded => ErrorCode::LimitExceeded,
            K::Overloaded => ErrorCode::Overloaded,
            K::Unsupported => ErrorCode::Unsupported,
            K::NotFound => ErrorCode::NotFound,
            K::Denied => ErrorCode::Denied,
            K::Failed => ErrorCode::Failed,
            K::Trap => ErrorCode::Trap,
            K::Io => ErrorCode::Io,
            K::Cancelled => ErrorCode::Cancelled,
            K::Internal => ErrorCode::Internal,
        };
        Self::new(code, error.message())
    }
}
