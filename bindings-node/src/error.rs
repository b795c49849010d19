//! Realm's errors as errors of Node's, whose class `ts/errors.ts` chooses.

use napi::Status;

/// An error whose message is `realm:CODE:MESSAGE`.
pub(crate) fn failed(error: realm::Error) -> napi::Error {
    of_code(error.code().as_str(), error.message())
}

/// Same as [`failed`], for a code.
pub(crate) fn of_code(code: &str, message: &str) -> napi::Error {
    napi::Error::new(Status::GenericFailure, format!("realm:{code}:{message}"))
}

/// Returns the error for an invalid argument.
pub(crate) fn invalid(message: impl std::fmt::Display) -> napi::Error {
    of_code("invalid-argument", &message.to_string())
}
