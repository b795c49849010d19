//! The failures of administration: a fixed list of codes.

use realm::ErrorCode;
use realm_protocol::ApiError;

const KIND: &str = "invalid_request_error";

/// Status 404, `<kind>_not_found`. The same for what does not exist and for what is another tenant's.
pub(super) fn absent(kind: &str, name: &str) -> ApiError {
    let why = format!("there is no {kind} `{name}`");
    ApiError::new(404, KIND, ErrorCode::NotFound, why).code(&format!("{kind}_not_found"))
}

/// Status 400 with the field at fault.
pub(super) fn invalid(field: &str, why: impl Into<String>) -> ApiError {
    ApiError::invalid(field, why)
}

/// Status 409, `conflict`: something else has to change first.
pub(super) fn conflict(why: impl Into<String>) -> ApiError {
    ApiError::new(409, KIND, ErrorCode::InvalidArgument, why).code("conflict")
}

/// Status 409, `conflict`: the configuration has the entry.
pub(super) fn of_configuration(kind: &str, name: &str) -> ApiError {
    conflict(format!(
        "the {kind} `{name}` comes from the server's configuration: change it there, and reload"
    ))
}

/// Status 400, `too_many`: as many entries as there may be.
pub(super) fn too_many(what: &str, most: usize) -> ApiError {
    let why = format!("there are {most} {what}, as many as there may be; remove one first");
    ApiError::new(400, KIND, ErrorCode::LimitExceeded, why).code("too_many")
}

/// Status 429: as many acts at once as there may be.
pub(super) fn busy() -> ApiError {
    let why = "too many acts of administration at once; wait for one to end";
    ApiError::new(429, "rate_limit_error", ErrorCode::Overloaded, why).after(1)
}

/// A failure of loading or compiling. Files that administrators name are in its message; callers of models
/// never get it.
pub(super) fn of_realm(error: realm::Error) -> ApiError {
    use ErrorCode as C;
    let code = error.code();
    let status = match code {
        C::Overloaded => return ApiError::from(error),
        C::InvalidArgument
        | C::InvalidModel
        | C::InvalidAdapter
        | C::InvalidProgram
        | C::Unsupported
        | C::LimitExceeded
        | C::NotFound
        | C::Io => 400,
        _ => return ApiError::from(error),
    };
    ApiError::new(status, KIND, code, error.message())
}

#[cfg(feature = "sandbox")]
pub(super) use of_realm as not_compiled;

/// The failure of builds without programs.
#[cfg(not(feature = "sandbox"))]
pub(super) fn not_compiled(why: String) -> ApiError {
    invalid("body", why)
}
