//! Requests and answers.
//!
//! A request passes, in this order: its id and its place in metrics and log (`track`), the defense against web
//! pages ([`origin`]), CORS for the pages that are listed, its key ([`auth`]), and then its route.
//!
//! - [`body`]: answers that are sent over time.
//! - [`connection`]: from a socket to requests.
//! - [`watched`]: a socket with limits on time.

mod auth;
mod body;
pub(crate) mod connection;
mod origin;
mod watched;

pub(crate) use origin::Allowed;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State as Shared};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use realm::ErrorCode;
use realm_protocol::{Answer, ApiError, Dialect, Gate, Service};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::call::{Call, CallGate, Caller};
use crate::limits::Left;
use crate::state::State;
use crate::tenants::Visible;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the service of all requests.
pub(crate) fn router(state: &Arc<State>) -> Router {
    let mut router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(call)
        .layer(middleware::from_fn_with_state(Arc::clone(state), auth::authenticate))
        .with_state(Arc::clone(state));
    if let Some(cors) = cors(state) {
        router = router.layer(cors);
    }
    router
        .layer(middleware::from_fn_with_state(Arc::clone(state), guard))
        .layer(middleware::from_fn_with_state(Arc::clone(state), track))
}

/// Gives a request its id, and an answer its headers.
async fn track(Shared(state): Shared<Arc<State>>, mut request: Request<Body>, next: Next) -> Response {
    let call = Call::begin(&state, request.method(), request.uri().path());
    request.extensions_mut().insert(Arc::clone(&call));
    let mut answer = next.run(request).await;
    call.answered(answer.status());
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&call.id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    limits(&call, headers);
    answer.map(|body| Body::new(body::Tracked::new(body, call)))
}

/// Refuses what a strange web page may have sent.
async fn guard(Shared(state): Shared<Arc<State>>, request: Request<Body>, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match state.allowed.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => failure(&error, parts.uri.path()),
    }
}

fn cors(state: &State) -> Option<CorsLayer> {
    let origins = state.allowed.origins();
    if origins.is_empty() {
        return None;
    }
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let shown = ["x-request-id", "retry-after", "realm-ignored-fields", "realm-error-code"];
    let limits = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ];
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(shown.into_iter().chain(limits).map(HeaderName::from_static).collect::<Vec<_>>())
            .max_age(Duration::from_secs(600)),
    )
}

/// Returns whether the server takes requests, for load balancers. Needs no key, and says nothing else.
async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    let draining = state.draining.load(Ordering::Relaxed);
    let (status, word) = if draining { (503, "draining") } else { (200, "ok") };
    json(status, serde_json::json!({ "status": word }).to_string())
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let text = {
        let state = Arc::clone(&state);
        tokio::task::spawn_blocking(move || state.metrics.text(state.tenants.realm())).await
    };
    let mut answer = Response::new(Body::from(text.unwrap_or_default()));
    let kind = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Answers the calls of the protocols.
async fn call(
    Shared(state): Shared<Arc<State>>,
    Extension(caller): Extension<Caller>,
    Extension(call): Extension<Arc<Call>>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let body = match asked(&state, &caller, &call, &parts, body).await {
        Ok(body) => body,
        Err(error) => return failure(&error, path),
    };
    let gate: Arc<dyn Gate> = Arc::new(CallGate(call));
    let Caller { key, tenant, .. } = caller;
    let models = Visible { tenants: Arc::clone(&state.tenants), tenant, key };
    let mut service = Service::with_gate(Arc::new(models), gate);
    if state.config.strict {
        service = service.strict();
    }
    response(service.handle(parts.method.as_str(), path, &body).await, state.config.http.keep_alive)
}

/// Takes the call's place in its limits and reads its body.
async fn asked(
    state: &State,
    caller: &Caller,
    call: &Call,
    parts: &http::request::Parts,
    body: Body,
) -> Result<Bytes, ApiError> {
    if parts.method != Method::POST {
        return Ok(Bytes::new());
    }
    call.enter(caller)?;
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let why = "the body is compressed, which this server does not read; send it as it is";
        return Err(ApiError::new(415, "invalid_request_error", ErrorCode::Unsupported, why));
    }
    let most = state.config.http.max_body;
    let too_large = || {
        let why = format!("the body has more than {most} bytes, the most that this server takes");
        ApiError::new(413, "invalid_request_error", ErrorCode::LimitExceeded, why)
    };
    let length =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > most as u64) {
        return Err(too_large());
    }
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(state.config.http.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => {
            let why = "the body ended before its end";
            Err(ApiError::new(400, "invalid_request_error", ErrorCode::InvalidArgument, why))
        }
        Err(_) => {
            let seconds = state.config.http.body_timeout.as_secs_f64();
            let why = format!("the body was not complete after {seconds} seconds");
            Err(ApiError::new(408, "invalid_request_error", ErrorCode::LimitExceeded, why))
        }
    }
}

/// Returns the answer of a call as HTTP has it.
fn response(answer: Answer, keep_alive: Duration) -> Response {
    let Answer { status, headers, body } = answer;
    let (body, streams) = match body {
        realm_protocol::Body::Json(text) => (Body::from(text), false),
        realm_protocol::Body::Events(events) => (Body::new(body::EventBody::new(events, keep_alive)), true),
    };
    let mut response = Response::new(body);
    // The statuses of the protocol are HTTP's.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        // Values have no other characters than those of a header.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    if streams {
        // nginx would hold events back.
        let name = HeaderName::from_static("x-accel-buffering");
        response.headers_mut().insert(name, HeaderValue::from_static("no"));
    }
    response
}

/// Returns the answer to a call that was refused, in the form of its path's protocol.
fn failure(error: &ApiError, path: &str) -> Response {
    response(Answer::failure(error, Dialect::of_path(path)), Duration::MAX)
}

fn json(status: u16, text: String) -> Response {
    let headers = vec![("content-type", "application/json".to_owned())];
    response(Answer { status, headers, body: realm_protocol::Body::Json(text) }, Duration::MAX)
}

/// Adds what is left of the limits of the caller.
fn limits(call: &Call, headers: &mut http::HeaderMap) {
    let Some((requests, tokens)) = call.place().map(|place| place.left(Instant::now())) else { return };
    let names = [
        (
            requests,
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
        ),
        (tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
    ];
    for (left, [limit, remaining, reset]) in names {
        let Some(Left { limit: most, remaining: rest, reset: time }) = left else { continue };
        headers.insert(limit, most.into());
        headers.insert(remaining, rest.into());
        // OpenAI's form of a time: `1s`, `6m0s`, `20ms`.
        if let Ok(time) = HeaderValue::from_str(&duration(time)) {
            headers.insert(reset, time);
        }
    }
}

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
