//! CORS: the web pages that may read answers. [`origin`](super::origin) has refused all others already.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};

use super::answer::LIMITS;
use super::body::AnswerBody;
use crate::state::Settings;

/// The headers of answers that pages may read, beside those of the limits.
const SHOWN: [&str; 4] = ["x-request-id", "retry-after", "realm-ignored-fields", "realm-error-code"];

/// Answers the question of a browser whether a page may send a request. Such a question has no key.
pub(super) fn preflight(settings: &Settings, parts: &Parts) -> Option<Response<AnswerBody>> {
    let asks =
        parts.method == Method::OPTIONS && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || settings.allowed.listed(&parts.headers).is_none() {
        return None;
    }
    let mut answer = Response::new(AnswerBody::whole(String::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    if let Some(asked) = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    Some(answer)
}

/// Lets a listed page read an answer. Cookies and passwords of the browser are never allowed.
pub(super) fn allow(origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    let limits = LIMITS.into_iter().flatten();
    let shown: Vec<_> = SHOWN.into_iter().chain(limits).collect();
    if let Ok(shown) = HeaderValue::from_str(&shown.join(", ")) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    }
}
