//! A connection of HTTP/2 to one server, which is made again when it has broken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue};
use http::uri::{Scheme, Uri};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, crypto};
use tonic::Status;
use tonic::body::Body;

use crate::Error;
use crate::error::ErrorCode;

/// The longest time until a server has accepted a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// The time of silence after which a server with open calls is asked whether it is still there.
const PROBE: Duration = Duration::from_secs(30);

/// The bytes of an answer that come before they are read.
const STREAM: u32 = 256 << 10;

/// The bytes of all answers that come before they are read: so many that answers which are not read, as many
/// as a server has on a connection, stop no other.
const CONNECTION: u32 = 256 * STREAM;

/// Sends calls to one server. A clone shares the connection.
#[derive(Clone)]
pub(super) struct Channel(Arc<Shared>);

struct Shared {
    /// The scheme and the authority of the URL.
    origin: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// `Bearer …`, unless there is no key.
    key: Option<HeaderValue>,
    sender: tokio::sync::Mutex<Option<SendRequest<Body>>>,
}

impl Channel {
    /// Checks the URL and the key. Connects at the first call.
    pub(super) fn new(url: &str, key: &str) -> Result<Self, Error> {
        let invalid = |why: String| Error::new(ErrorCode::InvalidArgument, why);
        let form = || {
            invalid(format!(
                "`{url}` is no URL of a server; it is like `http://127.0.0.1:8080` or `https://llm.example.com`"
            ))
        };
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| form())?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(form()) };
        let secure = *scheme == Scheme::HTTPS;
        let has_path = !matches!(uri.path(), "" | "/" | "/v1") || uri.query().is_some();
        if !(secure || *scheme == Scheme::HTTP) || has_path || authority.as_str().contains('@') {
            return Err(form());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let origin = Uri::builder().scheme(scheme.clone()).authority(authority.clone()).path_and_query("/");
        let origin = origin.build().map_err(|_| form())?;
        let tls = if secure {
            Some((tls()?, ServerName::try_from(host.clone()).map_err(|_| form())?))
        } else {
            None
        };
        let bearer = |key: &str| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| invalid("the key has characters that no key has".to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let key = Some(key.trim()).filter(|key| !key.is_empty()).map(bearer).transpose()?;
        Ok(Self(Arc::new(Shared { origin, host, port, tls, key, sender: tokio::sync::Mutex::new(None) })))
    }

    pub(super) fn origin(&self) -> &Uri {
        &self.0.origin
    }
}

impl Shared {
    /// Returns the connection, after making one if there is none.
    async fn sender(self: &Arc<Self>) -> Result<SendRequest<Body>, Status> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let this = Arc::clone(self);
        let connecting = super::spawn(async move { tokio::time::timeout(PATIENCE, this.open()).await });
        let connecting = connecting.map_err(|error| Status::unavailable(error.message()))?;
        let unreachable = |why: &dyn std::fmt::Display| {
            Status::unavailable(format!(
                "the server {} can't be reached: {why}",
                self.origin.authority().map_or("", |a| a.as_str())
            ))
        };
        let sender = match connecting.await {
            Ok(Ok(Ok(sender))) => sender,
            Ok(Ok(Err(why))) => return Err(unreachable(&why)),
            Ok(Err(_)) => return Err(unreachable(&format!("no connection after {} s", PATIENCE.as_secs()))),
            Err(error) => return Err(unreachable(&error)),
        };
        *kept = Some(sender.clone());
        Ok(sender)
    }

    async fn open(&self) -> Result<SendRequest<Body>, String> {
        let stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        // Commands are small, and each is waited for.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => handshake(stream).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await.map_err(|error| error.to_string())?;
                handshake(stream).await
            }
        }
    }

    async fn send(self: Arc<Self>, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        let mut failed = match self.sender().await?.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        };
        // The connection had ended before the request was sent, for example since the server was restarted.
        match failed.take_message() {
            Some(request) => self.sender().await?.send_request(request).await.map_err(|error| broken(&error)),
            None => Err(broken(failed.error())),
        }
    }
}

fn broken(error: &hyper::Error) -> Status {
    Status::unavailable(format!("the connection to the server broke: {error}"))
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM)
        .initial_connection_window_size(CONNECTION)
        .keep_alive_interval(PROBE)
        .keep_alive_timeout(PATIENCE)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its failure is that of its calls.
    tokio::spawn(connection);
    Ok(sender)
}

/// Trusts the certificates that the system trusts.
fn tls() -> Result<TlsConnector, Error> {
    let failed = |error: tokio_rustls::rustls::Error| Error::new(ErrorCode::Io, format!("TLS: {error}"));
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(failed)?
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl tonic::codegen::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).send(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_servers_and_nothing_else() {
        for url in
            ["http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:1", "https://a.example/v1"]
        {
            assert!(Channel::new(url, "rk_a").is_ok(), "{url}");
        }
        for url in [
            "127.0.0.1:8080",
            "ftp://a",
            "http://",
            "unix:/a",
            "http://a/b",
            "http://me@a",
            "",
            "http://a?b=c",
        ] {
            let error = Channel::new(url, "").err().unwrap_or_else(|| panic!("{url}"));
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{url}");
        }
        assert!(Channel::new("http://a", "rk_\n").is_err());
    }
}
