//! What a run may use, and what it has used.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use realm_engine::{MemoryCharge, MemoryKind, MemoryLedger, ProgramLimits};

use crate::pace::Pace;
use crate::{Error, ErrorKind};

/// The account of one run, and of the programs that it runs in turn.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: ProgramLimits,
    pub(crate) pace: Arc<Pace>,
    /// The tenant's account of memory, where all that the run holds counts too.
    pub(crate) ledger: MemoryLedger,
    memory: AtomicUsize,
    output: AtomicUsize,
    pub(crate) time: Time,
    /// Why the run has to end, if something was found where nobody could be told.
    ended: OnceLock<Error>,
}

impl Budget {
    pub(crate) fn new(limits: ProgramLimits, pace: Arc<Pace>, ledger: MemoryLedger) -> Arc<Self> {
        let (memory, output) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limits, pace, ledger, memory, output, time: Time::new(), ended: OnceLock::new() })
    }

    pub(crate) fn limits(&self) -> &ProgramLimits {
        &self.limits
    }

    /// Takes so many bytes, if they are there.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limits.memory);
        self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes bytes for what a handle stands for, until the charge is dropped.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Error> {
        let mut charge = Charge { held: self.ledger.open(MemoryKind::Handles), budget: Arc::clone(self) };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Takes bytes for what is on its way between the program and the host, until the charge is dropped. They are the
    /// tenant's alone: what a call carries is bounded by the run's limit anyway.
    pub(crate) fn carry(&self, bytes: usize) -> Result<MemoryCharge, Error> {
        Ok(self.ledger.charge(MemoryKind::Transfers, bytes)?)
    }

    /// Counts bytes that go out.
    pub(crate) fn send(&self, bytes: usize) -> Result<(), Error> {
        let add = |sent: usize| sent.checked_add(bytes).filter(|&sum| sum <= self.limits.output);
        match self.output.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::limit(format!(
                "the program would send more than {} bytes (the limit `program.output`)",
                self.limits.output
            ))),
        }
    }

    /// The run ends with this error, at the clock's next tick.
    pub(crate) fn end(&self, error: Error) {
        // The first one says why.
        let _ = self.ended.set(error);
    }

    /// Says why the guest may not go on, if it may not.
    pub(crate) fn check_time(&self) -> Result<(), Error> {
        if let Some(error) = self.ended.get() {
            return Err(error.clone());
        }
        if self.time.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"));
        }
        let used = self.time.used();
        if used <= self.limits.cpu_time {
            return Ok(());
        }
        Err(Error::limit(format!(
            "the program computed for longer than {:?} (the limit `program.cpu_time`)",
            self.limits.cpu_time
        )))
    }
}

/// Bytes taken from a budget; they go back when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    held: MemoryCharge,
}

impl Charge {
    /// Takes more bytes; if there are not so many, nothing changes.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        if !self.budget.take(bytes) {
            return Err(Error::limit(format!(
                "the program would hold more than {} bytes; drop handles first, or raise the limit `program.memory`",
                self.budget.limits.memory
            )));
        }
        self.held.grow(bytes).inspect_err(|_| self.budget.give_back(bytes))?;
        Ok(())
    }

    /// Takes what it has not yet of so many bytes; if there are not so many, nothing changes.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Error> {
        match bytes.saturating_sub(self.held.bytes()) {
            0 => Ok(()),
            more => self.grow(more),
        }
    }

    /// Holds so many bytes from now on; if there are not so many, nothing changes.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Error> {
        let extra = self.held.bytes().saturating_sub(bytes);
        if extra > 0 {
            drop(self.split(extra));
        }
        self.grow_to(bytes)
    }

    /// Splits bytes off, as a charge of their own.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.held.bytes());
        self.held.shrink(bytes);
        let mut held = self.held.ledger().open(MemoryKind::Handles);
        held.add(bytes);
        Self { budget: Arc::clone(&self.budget), held }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.held.bytes());
    }
}

/// How long a run has computed, without what it waited for.
#[derive(Debug)]
pub(crate) struct Time {
    epoch: Instant,
    /// Nanoseconds in polls that have ended.
    used: AtomicU64,
    /// When the poll that runs began, in nanoseconds since `epoch`; 0 if none runs.
    began: AtomicU64,
    pub(crate) cancelled: AtomicBool,
}

impl Time {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            used: AtomicU64::new(0),
            began: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// A poll begins.
    pub(crate) fn begin(&self) {
        self.began.store(self.now().max(1), Ordering::Relaxed);
    }

    /// It has ended; says how long it took.
    pub(crate) fn end(&self) -> Duration {
        let took = self.poll();
        self.used.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.began.store(0, Ordering::Relaxed);
        took
    }

    /// How long the poll that runs has taken so far.
    pub(crate) fn poll(&self) -> Duration {
        match self.began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_nanos(self.now().saturating_sub(began)),
        }
    }

    /// All of it.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed)) + self.poll()
    }

    /// How long ago the run began.
    pub(crate) fn age(&self) -> Duration {
        self.epoch.elapsed()
    }
}
