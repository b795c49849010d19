//! Answers as HTTP has them.

use std::time::{Duration, Instant};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use realm_protocol::{Answer, ApiError, Dialect};

use super::body::AnswerBody;
use crate::call::Call;
use crate::limits::Left;

/// What is left of the caller's requests, and then of its tokens: the limit, the rest, and the time until all
/// of it is back.
pub(super) const LIMITS: [[&str; 3]; 2] = [
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
];

/// Returns the answer of a call.
pub(super) fn response(answer: Answer, keep_alive: Duration) -> Response<AnswerBody> {
    let Answer { status, headers, body } = answer;
    let (body, streams) = match body {
        realm_protocol::Body::Json(text) => (AnswerBody::whole(text), false),
        realm_protocol::Body::Events(events) => (AnswerBody::events(events, keep_alive), true),
    };
    let mut response = Response::new(body);
    // The statuses of the protocols are HTTP's.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        // Values have no other characters than those of a header.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    if streams {
        // nginx would hold events back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    response
}

/// Returns the answer to a call that was refused, in the form of its path's protocol.
pub(super) fn failure(error: &ApiError, path: &str) -> Response<AnswerBody> {
    let mut answer = response(Answer::failure(error, Dialect::of_path(path)), Duration::MAX);
    if error.status() == 401 {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

pub(super) fn json(status: u16, text: String) -> Response<AnswerBody> {
    let headers = vec![("content-type", "application/json".to_owned())];
    response(Answer { status, headers, body: realm_protocol::Body::Json(text) }, Duration::MAX)
}

/// Adds the headers of every answer.
pub(super) fn common(id: &str, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Adds what is left of the limits of the caller.
pub(super) fn limits(call: &Call, headers: &mut HeaderMap) {
    let Some((requests, tokens)) = call.place().map(|place| place.left(Instant::now())) else { return };
    for (left, [limit, remaining, reset]) in [requests, tokens].into_iter().zip(LIMITS) {
        let Some(Left { limit: most, remaining: rest, reset: time }) = left else { continue };
        headers.insert(limit, most.into());
        headers.insert(remaining, rest.into());
        if let Ok(time) = HeaderValue::from_str(&duration(time)) {
            headers.insert(reset, time);
        }
    }
}

/// Writes a time as OpenAI does: `20ms`, `1s`, `6m0s`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, 0) => format!("{}ms", time.as_millis()),
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_writes_them() {
        let written = |millis| duration(Duration::from_millis(millis));
        assert_eq!([0, 20, 1_000, 61_500, 360_000].map(written), ["0ms", "20ms", "1s", "1m1s", "6m0s"]);
    }
}
