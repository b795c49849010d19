//! One call, from its arrival to the last byte of its answer.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use realm::{ErrorCode, Usage};
use realm_protocol::{ApiError, Gate, Permit};

use crate::catalog::{Lease, LiveTenant};
use crate::keys::{LiveKey, Used};
use crate::limits::{Entered, Reservation};
use crate::state::State;

/// The caller of a request.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) key: Option<Arc<LiveKey>>,
    pub(crate) tenant: Arc<LiveTenant>,
    pub(crate) tenant_name: Arc<str>,
}

/// What is known of a call. When the last holder drops it, the call has ended: its place in the limits is
/// free, and it is counted and logged.
pub(crate) struct Call {
    state: Arc<State>,
    /// The request's id, which the answer carries too.
    pub(crate) id: String,
    method: String,
    /// The path, if it is one of the server's; no other text of the caller's goes into metrics and logs.
    route: &'static str,
    began: Instant,
    key: OnceLock<Arc<LiveKey>>,
    tenant: OnceLock<Arc<str>>,
    place: OnceLock<Entered>,
    /// Keep the models loaded that the call has found.
    leases: Mutex<Vec<Lease>>,
    status: AtomicU16,
    complete: AtomicBool,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
}

/// The status in metrics and logs of a call whose client left before there was an answer.
const CLIENT_LEFT: u16 = 499;

impl Call {
    /// Begins a call; `route` is its name in metrics and logs.
    pub(crate) fn begin(state: &Arc<State>, method: &http::Method, route: &'static str) -> Arc<Self> {
        state.metrics.active.inc();
        Arc::new(Self {
            state: Arc::clone(state),
            id: request_id(),
            method: method.as_str().chars().take(16).collect(),
            route,
            began: Instant::now(),
            key: OnceLock::new(),
            tenant: OnceLock::new(),
            place: OnceLock::new(),
            leases: Mutex::default(),
            status: AtomicU16::new(CLIENT_LEFT),
            complete: AtomicBool::new(false),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
        })
    }

    /// Records the caller, which authentication has found.
    pub(crate) fn is_from(&self, key: Option<&Arc<LiveKey>>, tenant: &str) {
        // Authentication runs once.
        let _ = self.tenant.set(tenant.into());
        if let Some(key) = key {
            let _ = self.key.set(Arc::clone(key));
        }
    }

    /// The public part of the caller's key.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.key.get().map(|key| &*key.key.id)
    }

    /// The route's name.
    pub(crate) fn route(&self) -> &'static str {
        self.route
    }

    /// Keeps a model loaded until the call ends.
    pub(crate) fn holds(&self, lease: Lease) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        // A call that opens many sequences finds its model each time.
        if !leases.iter().any(|held| Arc::ptr_eq(held, &lease)) {
            leases.push(lease);
        }
    }

    /// Checks that the caller's key is still valid, for calls that go on for hours.
    ///
    /// # Errors
    /// Status 401 if it was revoked, or has expired, since the call began.
    pub(crate) fn is_still_allowed(&self) -> Result<(), ApiError> {
        match (&self.state.keys, self.key.get()) {
            (Some(keys), Some(key)) if !keys.still_has(key, crate::keys::now()) => {
                let why = "the API key was revoked or has expired since the call began; begin another one with a new key";
                Err(ApiError::new(401, "authentication_error", ErrorCode::Denied, why)
                    .code("invalid_api_key"))
            }
            _ => Ok(()),
        }
    }

    /// Takes the call's place in the limits of its tenant and its key.
    pub(crate) fn enter(&self, caller: &Caller) -> Result<(), ApiError> {
        let key = caller.key.as_ref().map(|key| Arc::clone(&key.account));
        let accounts = std::iter::once(Arc::clone(&caller.tenant.account)).chain(key).collect();
        // A call enters once.
        let _ = self.place.set(crate::limits::enter(accounts, Instant::now())?);
        Ok(())
    }

    pub(crate) fn place(&self) -> Option<&Entered> {
        self.place.get()
    }

    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// Records that the client was given the whole answer.
    pub(crate) fn completed(&self) {
        self.complete.store(true, Ordering::Relaxed);
    }

    fn used(&self) -> Used {
        Used {
            requests: 1,
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            cached_tokens: self.cached_tokens.load(Ordering::Relaxed),
            generated_tokens: self.generated_tokens.load(Ordering::Relaxed),
        }
    }

    /// Returns the line of the access log: lengths and ids, no texts.
    fn line(&self, status: u16, took: Duration, used: &Used) -> String {
        serde_json::json!({
            "time": crate::log::timestamp(),
            "id": self.id,
            "method": self.method,
            "route": self.route,
            "status": status,
            "complete": self.complete.load(Ordering::Relaxed),
            "seconds": (took.as_secs_f64() * 1e6).round() / 1e6,
            "tenant": self.tenant.get().map(|tenant| &**tenant),
            "key": self.key_id(),
            "prompt_tokens": used.prompt_tokens,
            "cached_tokens": used.cached_tokens,
            "generated_tokens": used.generated_tokens,
        })
        .to_string()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (state, took) = (Arc::clone(&self.state), self.began.elapsed());
        let (status, used) = (self.status.load(Ordering::Relaxed), self.used());
        state.metrics.active.dec();
        state.metrics.ended(self.route, status, took);
        if self.place.get().is_some()
            && let Some(key) = self.key_id()
        {
            state.ledger.add(key, &used);
        }
        if let Some(log) = &state.log {
            log.write(self.line(status, took, &used));
        }
    }
}

/// Admits the work of one call by the limits of its caller.
pub(crate) struct CallGate(pub(crate) Arc<Call>);

impl Gate for CallGate {
    fn admit(&self, prompt_tokens: usize, max_tokens: usize) -> Result<Box<dyn Permit>, ApiError> {
        let call = &self.0;
        let reserved = match call.place() {
            Some(place) => Some(place.reserve(prompt_tokens, max_tokens, Instant::now())?),
            None => None,
        };
        call.prompt_tokens.fetch_add(prompt_tokens as u64, Ordering::Relaxed);
        Ok(Box::new(Metered { call: Arc::clone(call), reserved }))
    }

    fn shown(&self, error: ApiError) -> ApiError {
        if error.status() < 500 {
            return error;
        }
        // What failed here may name files and addresses of this machine.
        tracing::error!(request = %self.0.id, code = error.realm_code(), "{}", error.message());
        let why = format!("the server failed; its log says why, under the request's id {}", self.0.id);
        ApiError::new(error.status(), "server_error", ErrorCode::Internal, why)
    }
}

struct Metered {
    call: Arc<Call>,
    reserved: Option<Reservation>,
}

impl Permit for Metered {
    fn generated(&mut self, tokens: usize) {
        self.call.generated_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        if let Some(reserved) = &mut self.reserved {
            reserved.used(tokens);
        }
    }

    fn finished(&mut self, usage: &Usage) {
        // The choices after the first find their whole prompt computed; that is no saving of the caller's.
        let cached = &self.call.cached_tokens;
        let most = self.call.prompt_tokens.load(Ordering::Relaxed);
        let _ = cached.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            (before == 0).then_some((usage.cached_tokens as u64).min(most))
        });
    }
}

/// Returns a new id: `req_` and 96 random bits.
fn request_id() -> String {
    let mut bytes = [0; 12];
    // Without random numbers of the system, ids repeat; they are for people alone.
    let _ = getrandom::fill(&mut bytes);
    let mut id = String::with_capacity(28);
    id.push_str("req_");
    for byte in bytes {
        use std::fmt::Write;
        // Writing to a string never fails.
        let _ = write!(id, "{byte:02x}");
    }
    id
}
