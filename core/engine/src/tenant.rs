//! The owner of a request, and the limits on what it may use.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use realm_handover::Wakers;

use crate::queue::Queue;
use crate::{Error, MemoryLedger, members};

/// Limits on what a tenant may use. `None` means no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The tenant's factor in fair sharing of the computation while others want some too: a tenant of weight
    /// 3 gets three times as many tokens as one of weight 1. By default 1.
    pub weight: f32,
    /// The most requests that run at once; others wait.
    pub max_concurrent: Option<usize>,
    /// The most requests that wait for a place; one more is refused with `limit-exceeded`. By default 1024.
    pub max_queued: usize,
    /// The most tokens in the KV cache of one model, over all running requests. A request that reaches the
    /// limit alone ends there, as at the end of the context.
    pub kv_tokens: Option<usize>,
    /// The most tokens computed in a minute, of prompts and generated, over all models. A tenant that has
    /// used them up waits. Unused tokens accumulate up to one minute's worth.
    pub tokens_per_minute: Option<u32>,
    /// The longest time from a request's start to its end, including waiting; then it ends with
    /// `limit-exceeded`.
    pub request_timeout: Option<Duration>,
    /// The most bytes of memory that the tenant holds at once, of all kinds; requests beyond the limit are
    /// refused with `limit-exceeded`. By default 1 GiB.
    ///
    /// The kinds are those of [`MemoryKind`](crate::MemoryKind): requests, results that are not read,
    /// sequences, programs with all they hold, their stores and code. The KV cache's pages count by
    /// `kv_tokens` instead. 16 runs of programs at their own default limit fill the default.
    pub memory: usize,
    /// The names of the models that the tenant may use; by default all.
    pub models: Option<Vec<String>>,
    /// The names of the adapters that the tenant may use; by default all.
    pub adapters: Option<Vec<String>>,
    /// Limits on one run of one of the tenant's programs.
    pub program: ProgramLimits,
}

/// Limits on one run of a tenant's program. At a limit, the run ends with `limit-exceeded`, or the call that
/// would exceed the limit returns that error.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramLimits {
    /// The most bytes of memory of one run of a program. By default 64 MiB.
    ///
    /// Linear memories and tables count, and values that the run holds handles of, mainly logits.
    pub memory: usize,
    /// The longest time that one run of a program computes itself. By default 10 s.
    ///
    /// Time in models and time spent waiting do not count.
    pub cpu_time: Duration,
    /// The most handles that one run of a program holds at once: logits, sequences, grammars and so on. By
    /// default 1024.
    pub handles: usize,
    /// The most bytes of text that one run of a program sends. By default 16 MiB.
    pub output: usize,
}

impl Default for ProgramLimits {
    fn default() -> Self {
        Self { memory: 64 << 20, cpu_time: Duration::from_secs(10), handles: 1024, output: 16 << 20 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            weight: 1.0,
            max_concurrent: None,
            max_queued: 1024,
            kv_tokens: None,
            tokens_per_minute: None,
            request_timeout: None,
            memory: 1 << 30,
            models: None,
            adapters: None,
            program: ProgramLimits::default(),
        }
    }
}

impl Limits {
    /// Checks that all limits are in range.
    ///
    /// # Errors
    /// `InvalidArgument` with the field and its range.
    pub fn check(&self) -> Result<(), Error> {
        if !(0.001..=1000.0).contains(&self.weight) {
            let why = format!("the weight is {}; it must be from 0.001 to 1000", self.weight);
            return Err(Error::InvalidArgument(why));
        }
        let zero = [
            ("max_concurrent", self.max_concurrent == Some(0)),
            ("kv_tokens", self.kv_tokens == Some(0)),
            ("tokens_per_minute", self.tokens_per_minute == Some(0)),
            ("request_timeout", self.request_timeout == Some(Duration::ZERO)),
            ("memory", self.memory == 0),
            ("program.cpu_time", self.program.cpu_time.is_zero()),
            ("program.memory", self.program.memory == 0),
        ];
        match zero.iter().find(|(_, zero)| *zero) {
            Some((field, _)) => {
                Err(Error::InvalidArgument(format!("{field} is 0, so no request could ever run")))
            }
            None => Ok(()),
        }
    }
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
            members::changed();
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

    /// Takes a place in the tenant's queue, and in that of an engine.
    pub(crate) fn enqueue(self: &Arc<Self>, engine: Option<&Arc<Queue>>) -> Result<Place, Error> {
        let (queue, own_most) = {
            let limits = self.read();
            // Requests that can run at once wait only for the engine to notice them, so they need no place of
            // the queue.
            let places = limits.max_concurrent.map_or(1, |most| most.saturating_sub(self.running()));
            (limits.max_queued, limits.max_queued.saturating_add(places))
        };
        add_below(&self.waiting, own_most).map_err(|waiting| {
            Error::LimitExceeded(format!(
                "tenant `{}` has {} requests running and {waiting} waiting, as many as its limits allow; wait for some to end, or raise `max_queued` ({queue}) or `max_concurrent`",
                self.name,
                self.running(),
            ))
        })?;
        if !engine.is_none_or(|queue| queue.enter(self.id)) {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            let why = "as many requests wait for the model as may; try again later";
            return Err(Error::Overloaded(why.into()));
        }
        Ok(Place { tenant: Arc::clone(self), engine: engine.cloned(), running: false })
    }

    /// Takes a place in the tenant's queue for a request that a program answers, under the same limits as all
    /// requests.
    ///
    /// # Errors
    /// `LimitExceeded` if the tenant's queue is full.
    pub fn enter(self: &Arc<Self>) -> Result<Place, Error> {
        self.enqueue(None)
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
        members::changed();
    }
}

/// Adds one unless the count has reached `most`; the error then holds the count.
fn add_below(count: &AtomicUsize, most: usize) -> Result<(), usize> {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1)).map(drop)
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

/// A request's place in its tenant's queue or among the running requests. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    tenant: Arc<Tenant>,
    /// The queue of the engine, shared with other tenants.
    engine: Option<Arc<Queue>>,
    running: bool,
}

impl Place {
    /// Moves the request from the queue to the running ones; returns `false` if `max_concurrent` of the
    /// tenant's requests run.
    pub(crate) fn start(&mut self) -> bool {
        if !self.running {
            let most = self.tenant.read().max_concurrent.unwrap_or(usize::MAX);
            self.running = add_below(&self.tenant.running, most).is_ok();
            if self.running {
                self.leave_queue();
            }
        }
        self.running
    }

    /// Waits until the tenant has room for one more running request, and takes it.
    pub async fn started(&mut self) {
        let tenant = Arc::clone(&self.tenant);
        tenant.wakers.until(|| if self.start() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Moves the request back to the waiting ones.
    pub fn wait(&mut self) {
        if std::mem::take(&mut self.running) {
            self.tenant.waiting.fetch_add(1, Ordering::AcqRel);
            if let Some(queue) = &self.engine {
                queue.enter_again(self.tenant.id);
            }
            self.leave_running();
        }
    }

    /// Lets another request run, which [`started`](Self::started) may be waiting for.
    fn leave_running(&self) {
        self.tenant.running.fetch_sub(1, Ordering::AcqRel);
        self.tenant.wakers.wake_all();
    }

    fn leave_queue(&self) {
        self.tenant.waiting.fetch_sub(1, Ordering::AcqRel);
        if let Some(queue) = &self.engine {
            queue.leave(self.tenant.id);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.running {
            self.leave_running();
        } else {
            self.leave_queue();
        }
    }
}

/// A token bucket that holds one minute's worth. It may go below zero, since the cost of a step is known only
/// when it is done.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, per_minute: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * per_minute / 60.0).min(per_minute);
        self.at = self.at.max(now);
    }

    fn charge(&mut self, tokens: f64, per_minute: f64, now: Instant) {
        self.refill(per_minute, now);
        self.tokens -= tokens;
    }

    fn wait(&mut self, per_minute: f64, now: Instant) -> Duration {
        self.refill(per_minute, now);
        if self.tokens >= 1.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.tokens) / per_minute * 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_and_saves_up_a_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut bucket = Bucket { tokens: 600.0, at: start };
        bucket.charge(700.0, 600.0, at(0));
        assert_eq!(bucket.wait(600.0, at(0)), Duration::from_secs_f64(10.1));
        assert_eq!(bucket.wait(600.0, at(11)), Duration::ZERO);
        bucket.charge(0.0, 600.0, at(1000));
        assert_eq!(bucket.tokens, 600.0);
    }

    #[test]
    fn limits_that_let_nothing_run_are_refused() {
        for bad in [
            Limits { weight: 0.0, ..Limits::default() },
            Limits { weight: f32::NAN, ..Limits::default() },
            Limits { max_concurrent: Some(0), ..Limits::default() },
            Limits { tokens_per_minute: Some(0), ..Limits::default() },
        ] {
            assert!(Tenant::new("a", bad).is_err());
        }
    }

    #[test]
    fn the_queue_is_bounded_and_its_error_says_what_to_do() {
        let limits = Limits { max_concurrent: Some(1), max_queued: 2, ..Limits::default() };
        let tenant = Arc::new(Tenant::new("acme", limits).unwrap());
        let queue = |most| Some(Arc::new(Queue::new(most, Arc::default())));
        let many = queue(9);
        let mut places: Vec<Place> = (0..3).map(|_| tenant.enqueue(many.as_ref()).unwrap()).collect();
        assert!(tenant.enqueue(many.as_ref()).is_err() && places[0].start() && !places[1].start());
        let error = tenant.enqueue(many.as_ref()).unwrap_err().to_string();
        assert!(error.contains("acme") && error.contains("max_queued"), "{error}");
        drop(places.remove(0));
        assert!(places[0].start());
        let (none, one) = (queue(0), queue(1));
        assert!(matches!(tenant.enqueue(none.as_ref()), Err(Error::Overloaded(_))));
        for _ in 0..2 {
            // Dropping the place frees it.
            tenant.enqueue(one.as_ref()).unwrap();
        }
        places.clear();
        assert_eq!((tenant.running(), tenant.waiting()), (0, 0));
    }
}
