//! From a socket to requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Door;
use super::watched::Watched;
use crate::state::State;

/// The most requests at once on one connection of HTTP/2.
const STREAMS: u32 = 256;

/// The time after which a silent peer is asked whether it is still there.
const PROBE: Duration = Duration::from_secs(60);

/// Serves a connection to its end.
pub(crate) async fn serve(
    state: Arc<State>,
    door: Door,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    watcher: Watcher,
) {
    state.metrics.connections.inc();
    let _open = Open(Arc::clone(&state));
    // Both only make a connection better: each token is sent at once, and a dead peer is noticed.
    let _ = stream.set_nodelay(true);
    let probes = socket2::TcpKeepalive::new().with_time(PROBE).with_interval(PROBE / 4);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&probes);
    let settings = state.settings();
    let limits = &settings.config.http;
    match tls {
        None => requests(&state, door, stream, watcher).await,
        Some(tls) => {
            let handshake = tokio::time::timeout(limits.header_timeout, tls.accept(stream)).await;
            // A client that speaks no TLS is told so by TLS itself.
            if let Ok(Ok(stream)) = handshake {
                requests(&state, door, stream, watcher).await;
            }
        }
    }
}

async fn requests<S>(state: &Arc<State>, door: Door, stream: S, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = state.settings().config.http.clone();
    let stream = Watched::new(stream, limits.header_timeout, limits.write_timeout);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_headers)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.max_headers).unwrap_or(u32::MAX))
        .keep_alive_interval(PROBE)
        .keep_alive_timeout(limits.header_timeout);
    let service = service_fn(|request| {
        let state = Arc::clone(state);
        async move { Ok::<_, Infallible>(super::serve(state, door, request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // A connection that fails is the client's matter: it left, or spoke no HTTP.
    let _ = watcher.watch(connection).await;
}

struct Open(Arc<State>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}
