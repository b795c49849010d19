//! A client of gRPC, as any other language's is: it shares nothing with the remote mode of `realm`.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use realm_rpc::v1;
use realm_rpc::v1::realm_client::RealmClient;
use realm_server::keys::{Key, Scope, Secret};
use realm_server::{Config, Rates};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::body::Body;

use crate::common::{MODEL, Memory, eventually, model, start_with};

pub(crate) type Client = RealmClient<Wire>;

/// The thread that drives connections, and calls that a test waits for.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A connection of HTTP/2 that gives a key with each request.
#[derive(Clone)]
pub(crate) struct Wire(SendRequest<Body>, String);

impl tonic::codegen::Service<Request<Body>> for Wire {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if !self.1.is_empty() {
            request.headers_mut().insert("authorization", format!("Bearer {}", self.1).parse().unwrap());
        }
        Box::pin(self.0.send_request(request))
    }
}

fn origin(address: SocketAddr) -> Uri {
    format!("http://localhost:{}/", address.port()).parse().unwrap()
}

pub(crate) async fn wire(address: SocketAddr, key: &str) -> (Wire, Uri) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let opened = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = opened.unwrap();
    tokio::spawn(connection);
    (Wire(sender, key.to_owned()), origin(address))
}

pub(crate) async fn client(address: SocketAddr, key: &str) -> Client {
    let (wire, origin) = wire(address, key).await;
    RealmClient::with_origin(wire, origin)
}

/// Sends the bytes of a message to a path; returns the headers, with those behind the answer.
pub(crate) async fn send(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    message: &[u8],
) -> HeaderMap {
    let (Wire(mut sender, _), origin) = wire(address, "").await;
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let uri = format!("{}{}", origin.to_string().trim_end_matches('/'), path);
    let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Body::new(Full::new(Bytes::from(framed)));
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let mut all = answer.headers().clone();
    if let Some(trailers) = answer.into_body().collect().await.unwrap().trailers() {
        all.extend(trailers.clone());
    }
    all
}

/// A greedy text of a given number of tokens.
pub(crate) fn story(model: &str, tokens: u64) -> v1::GenerateRequest {
    v1::GenerateRequest {
        model: model.to_owned(),
        prompt: Some(v1::generate_request::Prompt::Text("Once upon a time".to_owned())),
        sampling: Some(v1::Sampling { temperature: Some(0.0), ..v1::Sampling::default() }),
        max_tokens: Some(tokens),
        ignore_eos: true,
        ..v1::GenerateRequest::default()
    }
}

/// A question with an answer that is known.
pub(crate) fn question(model: &str) -> v1::GenerateRequest {
    let message = v1::Message {
        role: "user".to_owned(),
        content: "What is the capital of France? Answer in one sentence.".to_owned(),
        json: None,
    };
    let prompt = v1::generate_request::Prompt::Conversation(v1::Conversation { messages: vec![message] });
    v1::GenerateRequest { prompt: Some(prompt), ignore_eos: false, ..story(model, 16) }
}

/// Requests that the model has running or waiting.
pub(crate) fn at_work() -> usize {
    let all = model().metrics().served;
    all.running + all.waiting
}

/// Waits on a thread of its own, so that connections go on.
pub(crate) async fn soon(what: &'static str, is_so: impl Fn() -> bool + Send + 'static) {
    tokio::task::spawn_blocking(move || eventually(what, is_so)).await.unwrap();
}

pub(crate) fn key(store: &Memory, tenant: &str, scopes: &[Scope], rates: Rates) -> Secret {
    let (mut key, secret) = Key::create(tenant).unwrap();
    (key.scopes, key.rates) = (scopes.to_vec(), rates);
    store.keys.lock().unwrap().push(key);
    secret
}

pub(crate) fn with_keys(config: Config, store: &Memory) -> crate::common::Running {
    start_with(config, vec![(MODEL.to_owned(), model())], Some(Box::new(store.clone())))
}

pub(crate) fn metadata<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
    status.metadata().get(name)?.to_str().ok()
}
