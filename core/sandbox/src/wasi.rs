//! WASI, for programs that were made with a WASI toolchain: as little of it as the tenant was granted.
//!
//! There are no files, no environment and no sockets. Clocks stand still, timers tell no time ([`timers`](crate::timers)) and
//! random numbers repeat unless they were granted. What a program writes to its standard error is kept, for the message it may end with.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::Semaphore;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::grants::{Grants, Random};
use crate::state::State;
use crate::timers::Timers;

/// Bytes that a program may write to its standard output and error; one more ends it.
const MAX_WRITTEN: usize = 1 << 20;

/// Bytes of that which an error quotes.
const QUOTED: usize = 2000;

/// An instance's WASI.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    stderr: MemoryOutputPipe,
    timers: Timers,
    http: Http,
    http_ctx: WasiHttpCtx,
}

impl Wasi {
    /// `connections` are those that the tenant's programs may have at once.
    pub(crate) fn new(grants: &Grants, connections: &Arc<Semaphore>) -> Self {
        let stderr = MemoryOutputPipe::new(MAX_WRITTEN);
        let mut builder = WasiCtxBuilder::new();
        builder.stderr(stderr.clone()).stdout(MemoryOutputPipe::new(MAX_WRITTEN));
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        builder.allow_blocking_current_thread(false);
        if !grants.clock {
            builder.wall_clock(Still).monotonic_clock(Still);
        }
        match grants.random {
            Some(Random::System) => {}
            Some(Random::Seed(seed)) => seeded(&mut builder, seed),
            None => seeded(&mut builder, 0),
        }
        Self {
            ctx: builder.build(),
            stderr,
            timers: Timers::default(),
            http: Http { hosts: grants.http.clone(), connections: Arc::clone(connections) },
            http_ctx: WasiHttpCtx::new(),
        }
    }

    /// The end of what was written to the standard error.
    pub(crate) fn complaint(&self) -> Option<String> {
        let bytes = self.stderr.contents();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(QUOTED)..]);
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    }
}

fn seeded(builder: &mut WasiCtxBuilder, seed: u64) {
    use rand::SeedableRng;
    builder.secure_random(rand::rngs::StdRng::seed_from_u64(seed));
    builder.insecure_random(rand::rngs::StdRng::seed_from_u64(seed ^ 1));
    builder.insecure_random_seed(u128::from(seed));
}

/// A clock that stands still.
struct Still;

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

impl State {
    /// The program's own time, where it was granted no clock.
    pub(crate) fn timers(&mut self) -> Timers {
        self.wasi().0.timers.clone()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (wasi, table) = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table }
    }
}

/// Lets requests to granted hosts through.
struct Http {
    hosts: Vec<String>,
    connections: Arc<Semaphore>,
}

impl Http {
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

/// How requests are sent if nobody says otherwise.
struct Anywhere;

impl WasiHttpHooks for Anywhere {}

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>), HttpError>;

impl WasiHttpHooks for Http {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        errors: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let allowed = request.uri().authority().is_some_and(|authority| {
            // Who is to be told in a URL is none of the host's name.
            !authority.as_str().contains('@') && self.allows(authority.as_str())
        });
        if !allowed {
            return Box::new(std::future::ready(Err(HttpError::HttpRequestDenied)));
        }
        let connections = Arc::clone(&self.connections);
        Box::new(async move {
            let permit = connections.acquire_owned().await.map_err(|_| HttpError::ConnectionLimitReached)?;
            let (response, io) = Box::into_pin(Anywhere.send_request(request, options, errors)).await?;
            let io = async move {
                // Until the connection is closed.
                let _permit = permit;
                Box::into_pin(io).await
            };
            Ok((response, Box::new(io) as Box<_>))
        })
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (wasi, table) = self.wasi();
        WasiHttpCtxView { hooks: &mut wasi.http, ctx: &mut wasi.http_ctx, table }
    }
}

/// Adds what there is of WASI.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_granted_hosts_are_allowed() {
        let http = Http {
            hosts: vec!["api.example.com".into(), "*.example.org".into(), "localhost:80".into()],
            connections: Arc::new(Semaphore::new(1)),
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
