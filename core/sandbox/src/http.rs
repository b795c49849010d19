//! HTTP requests of programs: to granted hosts only, with their memory on the tenant's account.
//!
//! A request's handle, with its headers and its body as far as that is written, counts with all handles of
//! WASI ([`Wasi::charge_handles`](crate::wasi::Wasi::charge_handles)). From when it is sent until its
//! connection is closed, it counts here, with the most that the connection may hold; and so does an answer,
//! until it is read or dropped.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use realm_engine::{MemoryCharge, MemoryKind, MemoryLedger};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{Error as HttpError, FieldMap, RequestOptions, WasiBody, WasiHttpHooks};

/// The most bytes of a request's body in one write, and the most bytes that wait to be sent: two such writes.
const CHUNK: usize = 64 << 10;
const BODY: usize = 2 * CHUNK;

/// The bytes of a connection: its task, its socket, and its first buffers. Measured as the growth of a
/// process with 160 of them (`ledger` of the sandbox's tests). TLS adds keys, certificates and a record in
/// either direction.
const CONNECTION: usize = 16 << 10;
const TLS: usize = 64 << 10;

/// The bytes that hyper reads of an answer at first, and at most: twice as many whenever it could have read
/// more.
const FIRST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 8192 + 4096 * 100;

/// The bytes of a field besides its name and its value: an entry of a table, two allocations.
const FIELD: usize = 160;

/// Sends requests to granted hosts.
pub(crate) struct Http {
    hosts: Vec<String>,
    connections: Arc<Semaphore>,
    ledger: MemoryLedger,
}

impl Http {
    /// `connections` are the places that the tenant's programs may use at once, and `ledger` is the tenant's
    /// account.
    pub(crate) fn new(hosts: &[String], connections: &Arc<Semaphore>, ledger: &MemoryLedger) -> Self {
        Self { hosts: hosts.to_vec(), connections: Arc::clone(connections), ledger: ledger.clone() }
    }

    fn allows(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        self.hosts.iter().any(|host| match host.strip_prefix("*.") {
            None => *host == authority,
            Some(domain) => {
                authority.strip_suffix(domain).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
            }
        })
    }
}

/// The default way to send requests.
struct AnyHost;

impl WasiHttpHooks for AnyHost {}

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>), HttpError>;

impl WasiHttpHooks for Http {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        errors: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let allowed = request.uri().authority().is_some_and(|authority| {
            // A URL with a user part is refused: that part could look like a granted host.
            !authority.as_str().contains('@') && self.allows(authority.as_str())
        });
        if !allowed {
            return Box::new(std::future::ready(Err(HttpError::HttpRequestDenied)));
        }
        let connections = Arc::clone(&self.connections);
        let Ok(mut charge) = self.ledger.charge(MemoryKind::Transfers, request_memory(&request)) else {
            return Box::new(std::future::ready(Err(HttpError::InternalError(Some(NO_MEMORY.into())))));
        };
        let ledger = self.ledger.clone();
        Box::new(async move {
            let permit = connections.acquire_owned().await.map_err(|_| HttpError::ConnectionLimitReached)?;
            let tls = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
            let room = charge.grow(CONNECTION + if tls { TLS } else { 0 });
            room.map_err(|_| HttpError::InternalError(Some(NO_MEMORY.into())))?;
            let (response, io) = Box::into_pin(AnyHost.send_request(request, options, errors)).await?;
            let io = async move {
                // Until the connection is closed.
                let (_permit, _charge) = (permit, charge);
                Box::into_pin(io).await
            };
            Ok((response.map(|body| Answer::of(body, &ledger)), Box::new(io) as Box<_>))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

const NO_MEMORY: &str = "the tenant's memory is used up (the limit `memory`)";

/// The body of an answer, with the bytes that are read ahead.
struct Answer {
    body: WasiBody,
    charge: MemoryCharge,
    /// The bytes that arrived so far.
    received: usize,
}

impl Answer {
    fn of(body: WasiBody, ledger: &MemoryLedger) -> WasiBody {
        let charge = ledger.open(MemoryKind::Transfers);
        let mut this = Self { body, charge, received: 0 };
        this.count(0);
        WasiBody::new(this)
    }

    /// Counts a piece of `piece` bytes, and the bytes read meanwhile, about as many as were received before:
    /// even beyond the limit, since both are in memory already.
    fn count(&mut self, piece: usize) {
        self.received = self.received.saturating_add(piece);
        let ahead = self.received.saturating_add(FIRST_READ).min(LARGEST_READ);
        self.charge.set(size_of::<Self>() + ahead + piece.max(FIRST_READ));
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(piece))) => {
                let len = piece.data_ref().map_or(0, Bytes::len);
                self.count(len);
            }
            Poll::Ready(_) => self.charge.set(size_of::<Self>()),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns the bytes of memory of a request that waits to be sent.
fn request_memory(request: &Request<WasiBody>) -> usize {
    let uri = request.uri();
    let uri = uri.authority().map_or(0, |authority| authority.as_str().len())
        + uri.path().len()
        + uri.query().map_or(0, str::len);
    let body = if request.body().is_end_stream() { 0 } else { BODY };
    size_of::<Request<WasiBody>>() + request.method().as_str().len() + uri + fields(request.headers()) + body
}

fn fields(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum()
}

/// Returns the bytes of memory that a handle's value takes outside of itself, if it is one of `wasi:http`'s.
pub(crate) fn memory_of(value: &dyn Any) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
    if let Some(request) = value.downcast_ref::<HostOutgoingRequest>() {
        let method = if let Method::Other(name) = &request.method { name.capacity() } else { 0 };
        let scheme = if let Some(Scheme::Other(name)) = &request.scheme { name.capacity() } else { 0 };
        let place = text(&request.authority) + text(&request.path_with_query);
        return method + scheme + place + fields(&request.headers);
    }
    if let Some(map) = value.downcast_ref::<FieldMap>() {
        return fields(map);
    }
    if let Some(response) = value.downcast_ref::<HostIncomingResponse>() {
        return fields(&response.headers);
    }
    // The most bytes that may be written to it before it is sent.
    if value.is::<HostOutgoingBody>() { BODY } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_granted_hosts_are_allowed() {
        let http = Http {
            hosts: vec!["api.example.com".into(), "*.example.org".into(), "localhost:80".into()],
            connections: Arc::new(Semaphore::new(1)),
            ledger: MemoryLedger::new("acme", 0),
        };
        for host in ["api.example.com", "API.example.com", "a.example.org", "a.b.example.org", "localhost:80"]
        {
            assert!(http.allows(host), "{host}");
        }
        for host in [
            "example.com",
            "evilapi.example.com",
            "example.org",
            "evilexample.org",
            ".example.org",
            "localhost",
            "localhost:8080",
        ] {
            assert!(!http.allows(host), "{host}");
        }
    }
}
