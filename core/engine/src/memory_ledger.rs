//! The memory that a tenant causes: one account for each tenant, by kinds, with a limit.
//!
//! All code that allocates memory for a tenant holds a [`MemoryCharge`] for it, which gives its bytes back
//! when it is dropped. A charge differs from what the allocator takes by at most a few bytes, so a tenant's
//! total is the memory that the process would save without the tenant. The account leaves out the weights and
//! the pages of the KV cache, which is allocated when a model is loaded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Error;

/// The purpose of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryKind {
    /// Requests that wait or run: prompts, stop strings, biases, grammars, fields.
    Requests,
    /// Chunks, events and answers that no reader has taken yet.
    Results,
    /// Sequences: their tokens and the engine's records of them; also snapshots while they are taken or
    /// restored.
    Sequences,
    /// Runs of programs: instances, linear memories, tables and stacks.
    Programs,
    /// Values that programs hold handles of: logits, tensors, caches, samplers, guides through grammars,
    /// WASI's resources.
    Handles,
    /// Strings and lists on their way between a program and the host, and HTTP requests with their
    /// connections and answers.
    Transfers,
    /// Stores of programs in memory, and the keys of stores on disk.
    Stores,
    /// Compiled code of programs, the bytes of those that are being compiled, and compiled grammars.
    Code,
    /// Lines of programs' logs that the application has not taken yet.
    Logs,
}

impl MemoryKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Requests,
        Self::Results,
        Self::Sequences,
        Self::Programs,
        Self::Handles,
        Self::Transfers,
        Self::Stores,
        Self::Code,
        Self::Logs,
    ];

    /// The kind's name, the same in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Results => "results",
            Self::Sequences => "sequences",
            Self::Programs => "programs",
            Self::Handles => "handles",
            Self::Transfers => "transfers",
            Self::Stores => "stores",
            Self::Code => "code",
            Self::Logs => "logs",
        }
    }
}

/// A reading of a tenant's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUse {
    by_kind: [usize; MemoryKind::ALL.len()],
}

impl MemoryUse {
    /// Returns the bytes of one kind.
    pub fn of(&self, kind: MemoryKind) -> usize {
        self.by_kind[kind as usize]
    }

    /// Returns the bytes of all kinds together.
    pub fn total(&self) -> usize {
        self.by_kind.iter().sum()
    }

    /// Iterates over the kinds with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (MemoryKind, usize)> + '_ {
        MemoryKind::ALL.into_iter().map(|kind| (kind, self.of(kind)))
    }

    /// Adds another tenant's reading.
    pub fn add(&mut self, other: &Self) {
        self.by_kind.iter_mut().zip(other.by_kind).for_each(|(sum, bytes)| *sum += bytes);
    }
}

/// A tenant's account of memory. Cloning it is cheap and shares the account.
#[derive(Clone)]
pub struct MemoryLedger(Arc<Account>);

struct Account {
    /// The tenant's name, for messages.
    tenant: String,
    /// The limit, in bytes.
    limit: AtomicUsize,
    total: AtomicUsize,
    by_kind: [AtomicUsize; MemoryKind::ALL.len()],
}

impl MemoryLedger {
    /// Creates an empty account with a limit in bytes.
    pub fn new(tenant: impl Into<String>, limit: usize) -> Self {
        let account = Account {
            tenant: tenant.into(),
            limit: AtomicUsize::new(limit),
            total: AtomicUsize::new(0),
            by_kind: Default::default(),
        };
        Self(Arc::new(account))
    }

    /// Changes the limit. Bytes that are already held stay.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the bytes that are held now.
    pub fn read(&self) -> MemoryUse {
        let mut reading = MemoryUse::default();
        for (to, from) in reading.by_kind.iter_mut().zip(&self.0.by_kind) {
            *to = from.load(Ordering::Relaxed);
        }
        reading
    }

    /// Returns whether this is a clone of `other`, the same account.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Takes bytes until the charge is dropped.
    ///
    /// # Errors
    /// `LimitExceeded` if the tenant would hold more than its limit.
    pub fn charge(&self, kind: MemoryKind, bytes: usize) -> Result<MemoryCharge, Error> {
        let mut charge = self.open(kind);
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Opens a charge of 0 bytes, which can grow.
    pub fn open(&self, kind: MemoryKind) -> MemoryCharge {
        MemoryCharge { ledger: self.clone(), kind, bytes: 0 }
    }

    /// The most bytes that may be held.
    pub fn limit(&self) -> usize {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// The bytes that may be taken before the limit is reached.
    pub fn room(&self) -> usize {
        let account = &*self.0;
        account.limit.load(Ordering::Relaxed).saturating_sub(account.total.load(Ordering::Relaxed))
    }

    fn take(&self, kind: MemoryKind, bytes: usize) -> Result<(), Error> {
        let account = &*self.0;
        let limit = account.limit.load(Ordering::Relaxed);
        let add = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= limit);
        account.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|held| {
            Error::LimitExceeded(format!(
                "tenant `{}` holds {held} bytes of memory and would hold {bytes} more for {}, and may hold {limit}: give \
                 something up first, or raise the limit `memory`",
                account.tenant,
                kind.as_str(),
            ))
        })?;
        account.by_kind[kind as usize].fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn add(&self, kind: MemoryKind, bytes: usize) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
        self.0.by_kind[kind as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, kind: MemoryKind, bytes: usize) {
        self.0.total.fetch_sub(bytes, Ordering::Relaxed);
        self.0.by_kind[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read().iter().map(|(kind, bytes)| (kind.as_str(), bytes))).finish()
    }
}

/// Bytes on a tenant's account; they go back when this is dropped.
///
/// ```
/// use realm_engine::{MemoryKind, MemoryLedger};
///
/// let ledger = MemoryLedger::new("acme", 1000);
/// let mut charge = ledger.charge(MemoryKind::Results, 600)?;
/// assert!(charge.grow(500).is_err());
/// charge.shrink(200);
/// charge.grow(500)?;
/// assert_eq!(ledger.read().of(MemoryKind::Results), 900);
/// drop(charge);
/// assert_eq!(ledger.read().total(), 0);
/// # Ok::<(), realm_engine::Error>(())
/// ```
pub struct MemoryCharge {
    ledger: MemoryLedger,
    kind: MemoryKind,
    bytes: usize,
}

impl MemoryCharge {
    /// The bytes that the charge holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The account that the charge is on.
    pub fn ledger(&self) -> &MemoryLedger {
        &self.ledger
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// `LimitExceeded` if the tenant would hold more than its limit; the charge then stays as it was.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        self.ledger.take(self.kind, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes more bytes even beyond the limit, for memory that is already allocated or has another bound. The
    /// tenant's next requests for memory are refused until it is below its limit again.
    pub fn add(&mut self, bytes: usize) {
        self.ledger.add(self.kind, bytes);
        self.bytes += bytes;
    }

    /// Gives bytes back, at most all that the charge holds.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.ledger.give_back(self.kind, bytes);
        self.bytes -= bytes;
    }

    /// Sets the bytes that the charge holds, even beyond the limit.
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.add(more),
            None => self.shrink(self.bytes - bytes),
        }
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.ledger.give_back(self.kind, self.bytes);
    }
}

impl fmt::Debug for MemoryCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes for {}", self.bytes, self.kind.as_str())
    }
}

/// A value on its way to a reader, with the charge for its memory. The charge ends when the reader takes the
/// value.
#[derive(Debug)]
pub struct Charged<T> {
    value: T,
    charge: MemoryCharge,
}

impl<T> Charged<T> {
    /// Pairs a value with the charge for its memory.
    pub fn new(value: T, charge: MemoryCharge) -> Self {
        Self { value, charge }
    }

    /// Returns the value and gives the charge's bytes back.
    pub fn into_inner(self) -> T {
        drop(self.charge);
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_count_by_kind_and_go_back() {
        let ledger = MemoryLedger::new("acme", usize::MAX);
        let mut logs = ledger.charge(MemoryKind::Logs, 7).unwrap();
        let mut code = ledger.open(MemoryKind::Code);
        code.set(100);
        code.set(40);
        logs.shrink(3);
        let held = ledger.read();
        assert_eq!((held.of(MemoryKind::Logs), held.of(MemoryKind::Code), held.total()), (4, 40, 44));
        let named: Vec<_> = held.iter().filter(|(_, bytes)| *bytes > 0).collect();
        assert_eq!(named, [(MemoryKind::Code, 40), (MemoryKind::Logs, 4)]);
        drop((logs, code));
        assert_eq!(ledger.read(), MemoryUse::default());
    }

    #[test]
    fn the_limit_holds_over_all_kinds_and_its_error_has_the_figures() {
        let ledger = MemoryLedger::new("acme", 100);
        let mut results = ledger.charge(MemoryKind::Results, 90).unwrap();
        let error = ledger.charge(MemoryKind::Handles, 11).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded(_)));
        let error = error.to_string();
        for part in ["`acme`", "90 bytes", "11 more for handles", "may hold 100", "`memory`"] {
            assert!(error.contains(part), "{error}");
        }
        // Memory that is already allocated counts beyond the limit, and stands in the way of the next charge.
        results.add(20);
        assert_eq!((ledger.read().total(), ledger.room()), (110, 0));
        assert!(results.grow(1).is_err());
        assert_eq!(results.bytes(), 110);
        ledger.set_limit(111);
        assert!(results.grow(1).is_ok() && results.grow(usize::MAX).is_err());
    }
}
