//! The counters of an engine.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::histogram::Recorder;
use super::tally::{Outcome, Tally};
use super::{KvPages, Metrics, Served, TenantMetrics};
use crate::Tenant;

/// Tallies by tenant id. A tally lives here as long as its tenant.
type Tallies = HashMap<u64, (Weak<Tenant>, Arc<Tally>), FxBuildHasher>;

/// All counters of one engine. Requests carry the tally of their tenant, so that a step takes no lock.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) total: Tally,
    tenants: Mutex<Tallies>,
    rows: Recorder,
    sequences: Recorder,
    step: Recorder,
    /// Nanoseconds in forward passes.
    forward: AtomicU64,
    pages: usize,
    page_bytes: usize,
    free: AtomicUsize,
    remembered: AtomicUsize,
}

impl Ledger {
    pub(crate) fn new(pages: usize, page_bytes: usize) -> Self {
        Self {
            total: Tally::new(),
            tenants: Mutex::default(),
            rows: Recorder::sizes(),
            sequences: Recorder::sizes(),
            step: Recorder::times(),
            forward: AtomicU64::new(0),
            pages,
            page_bytes,
            free: AtomicUsize::new(pages),
            remembered: AtomicUsize::new(0),
        }
    }

    fn tenants(&self) -> MutexGuard<'_, Tallies> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a tenant's tally; `None` beyond [`Metrics::MAX_TENANTS`](super::Metrics::MAX_TENANTS) tenants.
    pub(super) fn of(&self, tenant: &Arc<Tenant>) -> Option<Arc<Tally>> {
        let mut tenants = self.tenants();
        if let Some((_, tally)) = tenants.get(&tenant.id()) {
            return Some(Arc::clone(tally));
        }
        if tenants.len() >= Metrics::MAX_TENANTS {
            tenants.retain(|_, (tenant, _)| tenant.strong_count() > 0);
        }
        if tenants.len() >= Metrics::MAX_TENANTS {
            return None;
        }
        let tally = Arc::new(Tally::new());
        tenants.insert(tenant.id(), (Arc::downgrade(tenant), Arc::clone(&tally)));
        Some(tally)
    }

    /// Counts a request that found no place in a queue.
    pub(crate) fn refused(&self, tenant: &Arc<Tenant>) {
        self.total.count(Outcome::Refused);
        if let Some(tally) = self.of(tenant) {
            tally.count(Outcome::Refused);
        }
    }

    pub(crate) fn step(&self, rows: usize, sequences: usize, whole: Duration, forward: Duration) {
        self.rows.record(rows as u64, 1);
        self.sequences.record(sequences as u64, 1);
        self.step.record_time(whole, 1);
        let nanoseconds = u64::try_from(forward.as_nanos()).unwrap_or(u64::MAX);
        self.forward.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Bytes of a page of the KV cache.
    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    pub(crate) fn set_pages(&self, free: usize, remembered: usize) {
        self.free.store(free, Ordering::Relaxed);
        self.remembered.store(remembered, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Metrics {
        let present: Vec<_> = {
            let mut tenants = self.tenants();
            tenants.retain(|_, (tenant, _)| tenant.strong_count() > 0);
            tenants.values().cloned().collect()
        };
        let (free, remembered) = (self.free.load(Ordering::Relaxed), self.remembered.load(Ordering::Relaxed));
        let mut metrics = Metrics {
            served: self.total.read(),
            batch_rows: self.rows.read(),
            batch_sequences: self.sequences.read(),
            step_seconds: self.step.read(),
            forward_seconds: Duration::from_nanos(self.forward.load(Ordering::Relaxed)).as_secs_f64(),
            kv: KvPages {
                total: self.pages,
                // `free` and `remembered` may be of different moments.
                used: self.pages.saturating_sub(free + remembered),
                remembered,
                free,
                page_bytes: self.page_bytes,
            },
            tenants: Vec::new(),
        };
        for (tenant, tally) in present {
            if let Some(tenant) = tenant.upgrade() {
                let name = tenant.name().to_owned();
                metrics.add_tenant(TenantMetrics { name, served: tally.read() });
            }
        }
        metrics
    }

    /// Reads one tenant's counters.
    pub(crate) fn read_tenant(&self, tenant: &Tenant) -> Served {
        let tally = self.tenants().get(&tenant.id()).map(|(_, tally)| Arc::clone(tally));
        tally.map(|tally| tally.read()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn tenants_beyond_the_most_count_in_the_totals_until_others_go() {
        let ledger = Ledger::new(1, 1);
        let tenant = |i: usize| Arc::new(Tenant::new(format!("t{i}"), Limits::default()).unwrap());
        let mut many: Vec<_> = (0..=Metrics::MAX_TENANTS).map(tenant).collect();
        many.iter().for_each(|tenant| ledger.refused(tenant));
        let metrics = ledger.read();
        assert_eq!(metrics.tenants.len(), Metrics::MAX_TENANTS);
        assert_eq!(metrics.served.requests.refused as usize, many.len());
        let last = many.swap_remove(Metrics::MAX_TENANTS);
        assert_eq!(ledger.read_tenant(&last), Served::default());
        many.pop();
        ledger.refused(&last);
        assert_eq!(ledger.read_tenant(&last).requests.refused, 1);
        drop(many);
        let left: Vec<_> = ledger.read().tenants.into_iter().map(|tenant| tenant.name).collect();
        assert_eq!(left, [last.name()]);
    }
}
