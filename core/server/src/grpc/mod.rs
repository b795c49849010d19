//! gRPC: the protocol `realm.v1`, health and reflection, at the clients' address.
//!
//! A call passes the same gates as every other request of HTTP (see [`http`](crate::http)), and then goes to
//! the service that its path names. A refusal on the way is a status of gRPC.
//!
//! - [`calls`]: the calls of `realm.v1`.
//! - [`chunks`]: the answer of a running request.
//! - [`context`]: the caller of a call, and what it may name.
//! - [`convert`]: messages as requests, and answers as messages.
//! - [`sequences`]: sequences that a caller drives.
//! - [`status`]: the statuses of failures.
//! - [`worker`]: the commands to one sequence.

mod calls;
mod chunks;
mod context;
mod convert;
mod sequences;
mod status;
mod worker;

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use realm::ErrorCode;
use realm_protocol::{ApiError, Gate};
use realm_rpc::v1::realm_server::{RealmServer, SERVICE_NAME};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use self::context::Calls;
use crate::call::{Call, CallGate, Caller};
use crate::state::{Settings, State};
use crate::visible::Visible;

/// The calls of gRPC: the path, what it does, and whether it counts as a request in the caller's limits.
pub(crate) const CALLS: [(&str, &str, bool); 17] = [
    ("/realm.v1.Realm/GetTenant", "the caller's tenant, and the server's version", false),
    ("/realm.v1.Realm/ListModels", "the models that the key may name", false),
    ("/realm.v1.Realm/GetModel", "facts about a model", false),
    ("/realm.v1.Realm/GetAdapter", "facts about an adapter of the tenant's", false),
    ("/realm.v1.Realm/GetTokenizer", "a model's tokenizer, as a GGUF file", true),
    ("/realm.v1.Realm/Generate", "an answer, chunk by chunk", true),
    ("/realm.v1.Realm/Count", "the tokens of a request's prompt, and the most of its answer", true),
    ("/realm.v1.Realm/Render", "a conversation as the chat template renders it", true),
    ("/realm.v1.Realm/Embed", "vectors of texts", true),
    ("/realm.v1.Realm/Score", "log-probabilities of a text's tokens", true),
    ("/realm.v1.Realm/Tokenize", "the tokens of a text", true),
    ("/realm.v1.Realm/Detokenize", "the text of tokens", true),
    ("/realm.v1.Realm/Sequences", "sequences that the caller drives; both sides stream", true),
    ("/grpc.health.v1.Health/Check", "whether the server takes requests; needs no key", false),
    ("/grpc.health.v1.Health/Watch", "the same, now and whenever it changes", false),
    (REFLECTION, "the protocol itself, for tools such as grpcurl", false),
    (OLD_REFLECTION, "the same for older tools", false),
];

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const OLD_REFLECTION: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// Returns whether a request is one of gRPC.
pub(crate) fn is_call(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Returns whether a call needs no key.
pub(crate) fn is_open(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/")
}

/// Returns the answer to a call that was refused.
pub(crate) fn failure(call: &Call, error: &ApiError) -> Response<Body> {
    status::of(error, &call.id).into_http()
}

/// Answers a call of a caller; `None` is one without a key, for [open](is_open) calls. `read` reads the whole
/// body.
pub(crate) async fn answer<R>(
    state: &Arc<State>,
    settings: &Settings,
    call: &Arc<Call>,
    caller: Option<Caller>,
    parts: &Parts,
    body: Incoming,
    read: impl FnOnce(Incoming) -> R,
) -> Result<Response<Body>, ApiError>
where
    R: Future<Output = Result<bytes::Bytes, ApiError>>,
{
    if parts.version != Version::HTTP_2 {
        let why = "gRPC needs HTTP/2; this request came by an older version, perhaps through a proxy that speaks no HTTP/2";
        return Err(ApiError::new(400, "invalid_request_error", ErrorCode::Unsupported, why));
    }
    let path = parts.uri.path();
    let most = settings.config.http.max_body;
    let found = CALLS.iter().find(|(known, ..)| *known == path && parts.method == http::Method::POST);
    let Some((.., counts)) = found else {
        let why = format!("there is no call {path}; gRPC's reflection lists those that are here");
        return Err(ApiError::new(405, "invalid_request_error", ErrorCode::NotFound, why));
    };
    let Some(caller) = caller else {
        let service = HealthService::from_health_reporter(state.health.clone());
        return Ok(sent(HealthServer::new(service), parts, Body::new(body)).await);
    };
    if *counts {
        call.enter(&caller)?;
    }
    match path {
        REFLECTION => {
            Ok(sent(reflection(tonic_reflection::server::Builder::build_v1)?, parts, Body::new(body)).await)
        }
        OLD_REFLECTION => {
            Ok(sent(reflection(tonic_reflection::server::Builder::build_v1alpha)?, parts, Body::new(body))
                .await)
        }
        _ => {
            // Only sequences are asked over time; a whole body is bounded in size and time.
            let body = match path.ends_with("/Sequences") {
                true => Body::new(body),
                false => Body::new(Full::new(read(body).await?)),
            };
            let gate: Arc<dyn Gate> = Arc::new(CallGate(Arc::clone(call)));
            let models = Visible::new(&state.catalog, caller.clone(), call);
            let calls = Calls {
                call: Arc::clone(call),
                caller,
                gate,
                models: Arc::new(models),
                max_body: most,
                draining: state.draining.subscribe(),
            };
            let service = RealmServer::new(calls).max_decoding_message_size(most);
            Ok(sent(service, parts, body).await)
        }
    }
}

/// Gives a call to a service.
async fn sent<S>(mut service: S, parts: &Parts, body: Body) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    match service.call(Request::from_parts(parts.clone(), body)).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// Returns reflection of all services, made by `build`.
fn reflection<'a, S>(
    build: impl FnOnce(tonic_reflection::server::Builder<'a>) -> Result<S, tonic_reflection::server::Error>,
) -> Result<S, ApiError> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(realm_rpc::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    build(builder).map_err(|error| {
        tracing::error!("the protocol's description can't be read: {error}");
        ApiError::new(
            500,
            "server_error",
            ErrorCode::Internal,
            "the server failed to read its protocol's description",
        )
    })
}

/// The health of a server that takes requests.
pub(crate) async fn healthy(health: &HealthReporter) {
    health.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
}

/// Tells those who watch the server's health that it takes no more requests, and ends their calls.
pub(crate) async fn draining(health: &HealthReporter) {
    let mut health = health.clone();
    for service in ["", SERVICE_NAME] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        // The watchers get the status before the end.
        health.clear_service_status(service).await;
    }
}

/// Returns the status of HTTP that metrics and logs have for an answer of gRPC, whose own is always 200.
pub(crate) fn logged<B>(answer: &Response<B>) -> http::StatusCode {
    status::logged(answer.headers())
}
