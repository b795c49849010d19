//! Failures, as gRPC has them.

use http::{HeaderMap, StatusCode};
use realm::ErrorCode;
use realm_protocol::ApiError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Returns the status of a failed call, with the request's id.
pub(super) fn of(error: &ApiError, id: &str) -> Status {
    let overloaded = error.realm_code() == ErrorCode::Overloaded.as_str();
    let code = match error.status() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 => Code::Unimplemented,
        408 => Code::DeadlineExceeded,
        413 => Code::ResourceExhausted,
        429 if overloaded => Code::Unavailable,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        503 => Code::Unavailable,
        400..500 => Code::InvalidArgument,
        _ => Code::Internal,
    };
    let mut metadata = MetadataMap::new();
    metadata.insert("realm-error-code", MetadataValue::from_static(error.realm_code()));
    if let Ok(id) = id.parse() {
        metadata.insert("x-request-id", id);
    }
    if let Some(seconds) = error.retry_after() {
        metadata.insert("retry-after", seconds.into());
    }
    Status::with_metadata(code, error.message(), metadata)
}

/// Returns the status of HTTP that stands for the one in an answer's headers. An answer that has begun has
/// none there.
pub(super) fn logged(headers: &HeaderMap) -> StatusCode {
    match Status::from_header_map(headers).map(|status| status.code()) {
        None | Some(Code::Ok) => StatusCode::OK,
        Some(Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition) => StatusCode::BAD_REQUEST,
        Some(Code::Unauthenticated) => StatusCode::UNAUTHORIZED,
        Some(Code::PermissionDenied) => StatusCode::FORBIDDEN,
        Some(Code::NotFound) => StatusCode::NOT_FOUND,
        Some(Code::Unimplemented) => StatusCode::METHOD_NOT_ALLOWED,
        Some(Code::DeadlineExceeded) => StatusCode::REQUEST_TIMEOUT,
        Some(Code::ResourceExhausted) => StatusCode::TOO_MANY_REQUESTS,
        Some(Code::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
        Some(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
