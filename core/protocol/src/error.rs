//! Failures as clients see them.

use realm::ErrorCode;
use serde_json::{Value, json};

use crate::Dialect;

/// A failure as OpenAI's API reports it: an HTTP status, and an object with a message and the parameter at
/// fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: u16,
    kind: &'static str,
    code: String,
    message: String,
    param: Option<String>,
    retry_after: Option<u32>,
    realm_code: &'static str,
}

/// Seconds after which a client whose request found a full queue should try again.
const RETRY_AFTER: u32 = 1;

impl ApiError {
    /// Creates an error for a parameter with an invalid value: status 400.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let code = ErrorCode::InvalidArgument;
        Self::new(400, "invalid_request_error", code, message).param(param)
    }

    /// Creates an error for parameters that exclude each other in OpenAI's API: status 400.
    pub(crate) fn combination(param: &str, message: impl Into<String>) -> Self {
        Self::invalid(param, message).code("invalid_parameter_combination")
    }

    /// Creates an error for a parameter that OpenAI's API has and Realm can't honor: status 400.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        let code = ErrorCode::Unsupported;
        Self::new(400, "invalid_request_error", code, message).param(param)
    }

    /// Creates an error for a body that is not a JSON object: status 400.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", ErrorCode::InvalidArgument, message)
    }

    /// Creates an error for an unknown parameter, for strict services: status 400.
    pub(crate) fn unknown(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("unknown parameter `{param}`; check its spelling or leave it out");
        Self::invalid(param, message).code("unknown_parameter")
    }

    /// Creates an error for a model that does not exist: status 404.
    pub fn no_model(name: &str) -> Self {
        let message = format!("there is no model `{name}`; GET /v1/models lists those that are here");
        Self::new(404, "invalid_request_error", ErrorCode::NotFound, message)
            .code("model_not_found")
            .param("model")
    }

    /// Creates an error for a program or an adapter that the caller does not have: status 404.
    pub(crate) fn no_extra(what: &str, name: &str) -> Self {
        let message = format!(
            "there is no {what} `{name}` of this tenant's; its administrator can add one or grant another tenant's"
        );
        Self::new(404, "invalid_request_error", ErrorCode::NotFound, message)
            .code(&format!("{what}_not_found"))
            .param(format!("realm.{what}"))
    }

    /// Creates an error for a path that does not exist: status 404.
    pub(crate) fn no_path(message: impl Into<String>) -> Self {
        Self::new(404, "invalid_request_error", ErrorCode::NotFound, message).code("unknown_url")
    }

    /// Creates an error for an object that OpenAI's servers store: status 404.
    pub(crate) fn not_stored(what: &str) -> Self {
        let message = format!(
            "there are no stored {what}: this server keeps none of its answers; send the whole conversation in each request"
        );
        Self::new(404, "invalid_request_error", ErrorCode::NotFound, message).code("not_stored")
    }

    /// Creates an error for scores of pairs of texts: status 400.
    pub(crate) fn no_ranks() -> Self {
        let why = "no model of this version can rank: cross-encoders and classification heads are not supported; compare the vectors \
                   of POST /v1/embeddings instead";
        Self::new(400, "invalid_request_error", ErrorCode::Unsupported, why)
    }

    /// Creates an error for a method that a path does not have: status 405.
    pub(crate) fn no_method(message: impl Into<String>) -> Self {
        Self::new(405, "invalid_request_error", ErrorCode::Unsupported, message).code("method_not_allowed")
    }

    /// Creates an error for a failure of Realm's own: status 500.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "server_error", ErrorCode::Internal, message)
    }

    /// Creates an error of any kind: an HTTP status, OpenAI's `type`, and Realm's code, which is OpenAI's
    /// `code` too unless [`code`](Self::code) sets another.
    pub fn new(status: u16, kind: &'static str, code: ErrorCode, message: impl Into<String>) -> Self {
        let (realm_code, message) = (code.as_str(), message.into());
        Self {
            status,
            kind,
            code: realm_code.to_owned(),
            message,
            param: None,
            retry_after: None,
            realm_code,
        }
    }

    /// Sets OpenAI's `code`.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        code.clone_into(&mut self.code);
        self
    }

    /// Sets the seconds after which another attempt is worthwhile.
    #[must_use]
    pub fn after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Names the parameter at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Names the parameter that holds the prompt, if the prompt is at fault.
    pub(crate) fn prompt_is(self, param: &str) -> Self {
        if self.code == CONTEXT_LENGTH_EXCEEDED { self.param(param) } else { self }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The message: what was wrong, and what would be right.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The parameter at fault.
    pub fn parameter(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The stable name of the failure's kind, one of [`ErrorCode`]'s.
    pub fn realm_code(&self) -> &'static str {
        self.realm_code
    }

    /// Seconds to wait before another attempt: the header `Retry-After`.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// Returns the object of a protocol's failures.
    pub fn to_json_in(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => self.to_json(),
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic_type(), "message": self.message}})
            }
            Dialect::Ollama => json!({"error": self.message}),
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 | 405 => "not_found_error",
            413 => "request_too_large",
            429 if self.realm_code == ErrorCode::Overloaded.as_str() => "overloaded_error",
            429 => "rate_limit_error",
            408 | 504 => "timeout_error",
            400..500 => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// Returns OpenAI's object: `{"error": {"message", "type", "param", "code"}}`.
    pub fn to_json(&self) -> Value {
        let Self { kind, message, param, code, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

/// OpenAI's code for a prompt that is longer than the context.
const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";

impl From<realm::Error> for ApiError {
    fn from(error: realm::Error) -> Self {
        use ErrorCode as C;
        let (code, message) = (error.code(), error.message());
        let (status, kind) = match code {
            C::InvalidArgument | C::Unsupported => (400, "invalid_request_error"),
            C::NotFound => (404, "invalid_request_error"),
            C::Denied => (403, "permission_error"),
            C::Overloaded => (429, "rate_limit_error"),
            C::LimitExceeded => return of_limit(code, message),
            C::Cancelled => (499, "cancelled"),
            _ => (500, "server_error"),
        };
        let error = Self::new(status, kind, code, message);
        match code {
            C::NotFound => error.code("model_not_found").param("model"),
            C::Overloaded => Self { retry_after: Some(RETRY_AFTER), ..error },
            _ => error,
        }
    }
}

/// Maps the error for a limit, which is permanent for this request or passes when other requests end. Only
/// the core's message tells the two apart; tests hold the message to these words.
fn of_limit(code: ErrorCode, message: &str) -> ApiError {
    if message.contains("requests running and") {
        let error = ApiError::new(429, "rate_limit_error", code, message).code("rate_limit_exceeded");
        return ApiError { retry_after: Some(RETRY_AFTER), ..error };
    }
    if message.contains("may not use the model") {
        return ApiError::new(403, "permission_error", code, message).param("model");
    }
    let error = ApiError::new(400, "invalid_request_error", code, message);
    if message.starts_with("the prompt has ") { error.code(CONTEXT_LENGTH_EXCEEDED) } else { error }
}
