//! The owner of a request.
//!
//! - [`limits`]: the limits on what it may use.
//! - [`place`]: the places of its requests in queues and among those that run.
//! - [`bucket`]: the tokens that it may compute per minute.

mod bucket;
mod limits;
mod place;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use realm_handover::Wakers;

use crate::{Error, MemoryLedger};

use bucket::Bucket;
pub use limits::{Limits, ProgramLimits};
pub use place::Place;

/// The number of changes of the set of tenants and of their weights, in the whole process.
static CHANGES: AtomicU64 = AtomicU64::new(1);

/// Notes that a tenant is new or gone, or that its weight has changed.
pub(crate) fn changed() {
    CHANGES.fetch_add(1, Ordering::Release);
}

/// Returns the number of changes of the set of tenants and of their weights.
pub(crate) fn changes() -> u64 {
    CHANGES.load(Ordering::Acquire)
}

/// An identity with limits. Engines know tenants by their `id`, so two tenants of the same name share
/// nothing.
#[derive(Debug)]
pub struct Tenant {
    id: u64,
    name: String,
    limits: RwLock<Limits>,
    memory: MemoryLedger,
    bucket: Mutex<Bucket>,
    running: AtomicUsize,
    waiting: AtomicUsize,
    /// Tasks that wait until one of the tenant's requests ends.
    wakers: Wakers,
    /// Commands about the tenant's sequences that no engine has carried out yet, and tasks that wait for room
    /// among them.
    commands: AtomicUsize,
    room: Wakers,
}

/// The most commands that a tenant may have waiting for engines; further ones make it wait. More than one
/// step carries out would only hold memory.
const MOST_COMMANDS: usize = 64;

impl Tenant {
    /// Creates a tenant with these limits.
    ///
    /// # Errors
    /// `InvalidArgument` for limits that are out of range.
    pub fn new(name: impl Into<String>, limits: Limits) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        limits.check()?;
        let bucket = Bucket { tokens: limits.tokens_per_minute.unwrap_or(0).into(), at: Instant::now() };
        let name = name.into();
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            memory: MemoryLedger::new(name.clone(), limits.memory),
            name,
            limits: RwLock::new(limits),
            bucket: Mutex::new(bucket),
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            wakers: Wakers::default(),
            commands: AtomicUsize::new(0),
            room: Wakers::default(),
        })
    }

    /// The number by which engines know the tenant.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The tenant's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a copy of the tenant's limits.
    pub fn limits(&self) -> Limits {
        self.read().clone()
    }

    /// Changes the limits from the next step on. Requests that run or wait stay.
    ///
    /// # Errors
    /// `InvalidArgument` for limits that are out of range; the old ones then stay.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Error> {
        limits.check()?;
        self.memory.set_limit(limits.memory);
        let mut own = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        let weighs_as_much = own.weight == limits.weight;
        *own = limits;
        drop(own);
        if !weighs_as_much {
            changed();
        }
        Ok(())
    }

    /// The tenant's account of memory, over all models and programs.
    pub fn memory(&self) -> &MemoryLedger {
        &self.memory
    }

    /// The number of requests that run now, over all models.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// The number of requests that wait now, over all models.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Reads the limits without a copy.
    pub(crate) fn read(&self) -> impl std::ops::Deref<Target = Limits> {
        self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time until tokens may be computed again; zero if they may now.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let Some(rate) = self.read().tokens_per_minute else { return Duration::ZERO };
        self.bucket().wait(rate.into(), now)
    }

    /// Counts computed tokens against `tokens_per_minute`.
    pub(crate) fn charge(&self, tokens: f64, now: Instant) {
        let Some(rate) = self.read().tokens_per_minute else { return };
        self.bucket().charge(tokens, rate.into(), now);
    }

    /// Waits until fewer than 64 commands about the tenant's sequences wait for engines. Callers that open,
    /// fork or truncate sequences wait for this first, so that commands do not pile up faster than an engine
    /// carries them out.
    pub async fn ready(&self) {
        let ask = || {
            let has_room = self.commands.load(Ordering::Acquire) < MOST_COMMANDS;
            if has_room { Poll::Ready(()) } else { Poll::Pending }
        };
        self.room.until(ask).await;
    }

    /// Waits like [`ready`](Self::ready), for threads. Blocks, except in code that an engine calls, which
    /// would wait for itself.
    pub fn ready_blocking(&self) {
        if !realm_handover::is_calling_out() {
            realm_handover::block_on(self.ready());
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        changed();
    }
}

/// A command about one of a tenant's sequences on its way to the engine, until this is dropped.
pub(crate) struct Sent(pub(crate) Arc<Tenant>);

impl Sent {
    pub(crate) fn new(tenant: &Arc<Tenant>) -> Self {
        tenant.commands.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(tenant))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // Waiting tasks are woken when half of the commands are done, not for each one.
        if self.0.commands.fetch_sub(1, Ordering::AcqRel) == MOST_COMMANDS / 2 {
            self.0.room.wake_all();
        }
    }
}
