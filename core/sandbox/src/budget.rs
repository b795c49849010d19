//! The limits of a run, and its use of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use realm_engine::{MemoryCharge, MemoryKind, MemoryLedger, ProgramLimits};

use crate::pace::Pace;
use crate::turn::Turn;
use crate::{Error, ErrorKind, thread_time};

/// The account of one run, and of the programs that it runs in turn.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: ProgramLimits,
    pub(crate) pace: Arc<Pace>,
    /// The tenant's account of memory, which includes everything that the run holds.
    pub(crate) ledger: MemoryLedger,
    memory: AtomicUsize,
    output: AtomicUsize,
    pub(crate) time: Time,
    pub(crate) turn: Turn,
    /// The error that ends the run, if it occurred in a call that could not return it.
    ended: OnceLock<Error>,
}

impl Budget {
    pub(crate) fn new(limits: ProgramLimits, pace: Arc<Pace>, ledger: MemoryLedger) -> Arc<Self> {
        let (memory, output) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (time, turn, ended) = (Time::new(), Turn::default(), OnceLock::new());
        Arc::new(Self { limits, pace, ledger, memory, output, time, turn, ended })
    }

    pub(crate) fn limits(&self) -> &ProgramLimits {
        &self.limits
    }

    /// Takes `bytes` from the budget; returns whether there were enough.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limits.memory);
        self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes bytes for the value behind a handle, until the charge is dropped.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Error> {
        let mut charge = Charge { held: self.ledger.open(MemoryKind::Handles), budget: Arc::clone(self) };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Takes bytes for data on its way between the program and the host, until the charge is dropped. They
    /// count only against the tenant's account: the run's limit bounds the data of a call anyway.
    pub(crate) fn charge_transfer(&self, bytes: usize) -> Result<MemoryCharge, Error> {
        Ok(self.ledger.charge(MemoryKind::Transfers, bytes)?)
    }

    /// Counts bytes of output.
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

    /// Ends the run with this error, at the clock's next tick.
    pub(crate) fn end(&self, error: Error) {
        // Only the first error is kept.
        let _ = self.ended.set(error);
    }

    /// Returns the error that ends the guest, if it may not continue.
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

/// Bytes taken from a budget, which go back when the charge is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    held: MemoryCharge,
}

impl Charge {
    /// Takes `bytes` more; changes nothing if there are not enough.
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

    /// Grows the charge to `bytes`; changes nothing if there are not enough.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Error> {
        match bytes.saturating_sub(self.held.bytes()) {
            0 => Ok(()),
            more => self.grow(more),
        }
    }

    /// Sets the charge to `bytes`; changes nothing if there are not enough.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Error> {
        let extra = self.held.bytes().saturating_sub(bytes);
        if extra > 0 {
            drop(self.split(extra));
        }
        self.grow_to(bytes)
    }

    /// Splits `bytes` off, as a charge of their own.
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

/// The time that a run has computed: that its threads had a core, not that it waited for results or for a
/// core that others used.
#[derive(Debug)]
pub(crate) struct Time {
    epoch: Instant,
    /// Nanoseconds in polls that have ended.
    used: AtomicU64,
    /// The start of the current poll, in nanoseconds since `epoch`; 0 if there is none.
    began: AtomicU64,
    /// The same on its thread's clock of computing time, which only that thread can compare with.
    began_computing: AtomicU64,
    pub(crate) cancelled: AtomicBool,
}

impl Time {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            used: AtomicU64::new(0),
            began: AtomicU64::new(0),
            began_computing: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Reads this thread's clock of computing time, or the time of day where there is none.
    fn computed(&self) -> u64 {
        thread_time::computed().map_or_else(|| self.now(), |time| time.as_nanos() as u64)
    }

    /// Begins a poll on this thread.
    pub(crate) fn begin(&self) {
        self.began_computing.store(self.computed(), Ordering::Relaxed);
        self.began.store(self.now().max(1), Ordering::Relaxed);
    }

    /// Ends the poll on the thread that began it; returns the time that it computed.
    pub(crate) fn end(&self) -> Duration {
        let computed = self.current();
        self.used.fetch_add(computed, Ordering::Relaxed);
        self.began.store(0, Ordering::Relaxed);
        Duration::from_nanos(computed)
    }

    /// Returns the nanoseconds that the current poll has computed.
    fn current(&self) -> u64 {
        match self.began.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.computed().saturating_sub(self.began_computing.load(Ordering::Relaxed)),
        }
    }

    /// Returns the length of the current poll so far, with the time in which its thread had no core.
    pub(crate) fn poll(&self) -> Duration {
        match self.began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_nanos(self.now().saturating_sub(began)),
        }
    }

    /// Returns the run's computing time, the current poll included: for the thread that runs it, or while no
    /// thread does.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed) + self.current())
    }

    /// Returns the time since the run began.
    pub(crate) fn age(&self) -> Duration {
        self.epoch.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn time_without_a_core_is_not_computing_time() {
        let time = Time::new();
        time.begin();
        std::thread::sleep(Duration::from_millis(60));
        assert!(time.poll() >= Duration::from_millis(60));
        assert!(time.used() < Duration::from_millis(50) && time.end() < Duration::from_millis(50));
        assert!(time.used() < Duration::from_millis(50));
    }
}
