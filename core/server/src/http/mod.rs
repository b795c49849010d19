//! Requests and answers.
//!
//! A request passes, in this order: its id and its place in metrics and log, the defense against web pages
//! ([`origin`]), CORS for the pages that are listed ([`cors`]), its key ([`auth`]), its place in the limits,
//! and then the protocols.
//!
//! - [`admin`]: administration, at an address of its own.
//! - [`answer`]: answers as HTTP has them.
//! - [`body`]: the body of an answer, whole or sent over time.
//! - [`connection`]: from a socket to requests.
//! - [`watched`]: a socket with limits on time.

mod admin;
mod answer;
mod auth;
mod body;
pub(crate) mod connection;
mod cors;
mod origin;
mod watched;

pub(crate) use admin::Places;
pub(crate) use origin::Allowed;

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use realm::ErrorCode;
use realm_protocol::{ApiError, Gate, Service};

use self::answer::{failure, json, limits, response};
use self::body::{AnswerBody, Tracked};
use crate::call::{Call, CallGate};
use crate::grpc;
use crate::keys::Scope;
use crate::state::{Settings, State};
use crate::visible::Visible;

/// The address that a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Clients,
    Administration,
}

/// Answers a request. Every failure is an answer, too.
pub(crate) async fn serve(state: Arc<State>, door: Door, request: Request<Incoming>) -> Response<Tracked> {
    let call = Call::begin(&state, request.method(), crate::routes::known(request.uri().path()));
    let (parts, body) = request.into_parts();
    let settings = state.settings();
    let answered = match door {
        Door::Clients => guarded(&state, &settings, &call, &parts, body).await,
        Door::Administration => admin::guarded(&state, &settings, &call, &parts, body).await,
    };
    let mut answer = answered.unwrap_or_else(|error| match grpc::is_call(&parts) {
        true => grpc::failure(&call, &error).map(AnswerBody::rpc),
        false => failure(&error, parts.uri.path()),
    });
    if door == Door::Clients
        && let Some(origin) = settings.allowed.listed(&parts.headers)
    {
        cors::allow(&origin, answer.headers_mut());
    }
    call.answered(if answer.body().is_rpc() { grpc::logged(&answer) } else { answer.status() });
    answer::common(&call.id, answer.headers_mut());
    limits(&call, answer.headers_mut());
    answer.map(|body| Tracked::new(body, call))
}

async fn guarded(
    state: &Arc<State>,
    settings: &Settings,
    call: &Arc<Call>,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<AnswerBody>, ApiError> {
    settings.allowed.check(parts)?;
    if let Some(answer) = cors::preflight(settings, parts) {
        return Ok(answer);
    }
    let path = parts.uri.path();
    let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
    if path == "/health" && is_read {
        return Ok(health(state));
    }
    if grpc::is_call(parts) {
        let caller = match grpc::is_open(path) {
            true => None,
            false => Some(auth::caller(state, call, &parts.headers, Scope::Inference)?),
        };
        let read = |body| asked(&settings.config.http, parts, body);
        let answer = grpc::answer(state, settings, call, caller, parts, body, read).await?;
        return Ok(answer.map(AnswerBody::rpc));
    }
    let caller = auth::caller(state, call, &parts.headers, auth::needed(path))?;
    if path == "/metrics" && is_read {
        return metrics(state).await;
    }
    if path == "/openapi.json" && is_read {
        return Ok(json(200, crate::openapi::clients().to_owned()));
    }
    let config = &settings.config;
    if parts.method == Method::POST {
        call.enter(&caller)?;
    }
    let body = asked(&config.http, parts, body).await?;
    let gate: Arc<dyn Gate> = Arc::new(CallGate(Arc::clone(call)));
    let models = Visible::new(&state.catalog, caller, call);
    let mut service = Service::with_gate(Arc::new(models), gate);
    if config.strict {
        service = service.strict();
    }
    Ok(response(service.handle(parts.method.as_str(), path, &body).await, config.http.keep_alive))
}

/// Says whether the server takes requests, for load balancers. Needs no key, and tells nothing else.
fn health(state: &State) -> Response<AnswerBody> {
    let draining = *state.draining.borrow();
    let (status, word) = if draining { (503, "draining") } else { (200, "ok") };
    json(status, serde_json::json!({ "status": word }).to_string())
}

async fn metrics(state: &Arc<State>) -> Result<Response<AnswerBody>, ApiError> {
    let read = {
        let state = Arc::clone(state);
        tokio::task::spawn_blocking(move || state.metrics.text(state.catalog.realm())).await
    };
    let text = read.map_err(|error| {
        tracing::error!("the metrics can't be read: {error}");
        ApiError::new(500, "server_error", ErrorCode::Internal, "the server failed to read its metrics")
    })?;
    let kind = header::HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    let mut answer = Response::new(AnswerBody::whole(text));
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(answer)
}

/// Reads the body of a request that has one.
async fn asked(limits: &crate::Http, parts: &Parts, body: Incoming) -> Result<Bytes, ApiError> {
    if parts.method != Method::POST && parts.method != Method::PUT {
        return Ok(Bytes::new());
    }
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let why = "the body is compressed, which this server does not read; send it as it is";
        return Err(ApiError::new(415, "invalid_request_error", ErrorCode::Unsupported, why));
    }
    let most = limits.max_body;
    let too_large = || {
        let why = format!("the body has more than {most} bytes, the most that this server takes");
        ApiError::new(413, "invalid_request_error", ErrorCode::LimitExceeded, why)
    };
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(limits.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => {
            let why = "the body ended too early, or is no body of HTTP";
            Err(ApiError::new(400, "invalid_request_error", ErrorCode::InvalidArgument, why))
        }
        Err(_) => {
            let seconds = limits.body_timeout.as_secs_f64();
            let why = format!("the body was not complete after {seconds} seconds");
            Err(ApiError::new(408, "invalid_request_error", ErrorCode::LimitExceeded, why))
        }
    }
}
