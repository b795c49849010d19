//! Counters and gauges of an engine.
//!
//! - [`Metrics`] and its parts: a reading, plain numbers that add up.
//! - [`ledger`]: the atomic counters of the engine's thread. No reader can block it.
//! - [`meter`]: the events that one request reports to the ledger.
//! - [`histogram`]: distributions of measured values.

mod histogram;
mod ledger;
mod meter;
mod run;
mod tally;

pub use histogram::Histogram;
pub(crate) use ledger::Ledger;
pub(crate) use meter::Meter;
pub use run::{RunEnd, RunMeter};
pub(crate) use tally::{Load, Outcome, Tally};

/// A reading of one engine. Counters run from the engine's start and never fall. Gauges of running, waiting
/// and pages are at most 50 ms old while the engine computes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// Counters over all tenants, including those that are gone.
    pub served: Served,
    /// Rows of a forward pass: the tokens that it computed.
    pub batch_rows: Histogram,
    /// Sequences in a forward pass.
    pub batch_sequences: Histogram,
    /// Seconds of a step: commands, choice of rows, forward pass, sampling, and delivery of results.
    pub step_seconds: Histogram,
    /// Seconds of all forward passes.
    pub forward_seconds: f64,
    /// Pages of the KV cache.
    pub kv: KvPages,
    /// The existing tenants by name. Tenants of one name are added up. At most
    /// [`MAX_TENANTS`](Self::MAX_TENANTS) tenants, the first ones, are listed.
    pub tenants: Vec<TenantMetrics>,
}

/// A reading of one tenant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TenantMetrics {
    /// The tenant's name.
    pub name: String,
    /// The tenant's counters and gauges.
    pub served: Served,
}

/// Counters and gauges of one tenant, or of all together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Served {
    /// Tokens since the start.
    pub tokens: Tokens,
    /// Requests that have ended.
    pub requests: Requests,
    /// The number of times that a request gave up its pages for others and was computed again.
    pub preemptions: u64,
    /// Seconds that requests waited for a place in the batch.
    pub queue_seconds: Histogram,
    /// Seconds from a request's arrival to its first token.
    pub first_token_seconds: Histogram,
    /// Seconds between tokens. Tokens that arrive together share the time since the previous one equally.
    pub inter_token_seconds: Histogram,
    /// Sequences in the batch now.
    pub running: usize,
    /// Requests that wait now.
    pub waiting: usize,
    /// Pages of the KV cache that sequences hold now. A page that several sequences share counts for each.
    pub kv_pages: usize,
}

/// Tokens since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Prompt tokens that were computed. Tokens that programs append to their sequences are among them.
    pub prompt: u64,
    /// Prompt tokens that were found in the prefix cache.
    pub cached: u64,
    /// Generated tokens.
    pub generated: u64,
    /// Tokens that were computed again because their pages had been given to others.
    pub recomputed: u64,
    /// Drafts: tokens that were computed on the chance that they follow.
    pub drafted: u64,
    /// Drafts that were accepted. They are among the generated tokens.
    pub accepted: u64,
}

/// Requests that have ended, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Requests that have their results.
    pub finished: u64,
    /// Requests whose caller stopped waiting.
    pub cancelled: u64,
    /// Requests that exceeded their tenant's `request_timeout`.
    pub timed_out: u64,
    /// Requests that found no place in a queue.
    pub refused: u64,
    /// Requests that ended because a forward pass failed or their grammar could not be followed any further.
    pub failed: u64,
}

/// Pages of a KV cache. The total is the sum of `used`, `remembered` and `free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvPages {
    /// All pages.
    pub total: usize,
    /// Pages that sequences hold. A page that several sequences share counts once.
    pub used: usize,
    /// Pages that only the prefix cache holds, for prompts that begin alike.
    pub remembered: usize,
    /// Empty pages.
    pub free: usize,
    /// Bytes of one page.
    pub page_bytes: usize,
}

impl Metrics {
    /// The most tenants that are listed at once. Further tenants count only in the totals, until some tenants
    /// are gone.
    pub const MAX_TENANTS: usize = 512;

    /// The fraction of the engine's time that was not spent in forward passes, from 0 to 1; `None` before the
    /// first step.
    pub fn scheduler_share(&self) -> Option<f64> {
        let all = self.step_seconds.sum;
        (all > 0.0).then(|| 1.0 - self.forward_seconds / all)
    }

    /// Adds another engine's reading.
    pub fn add(&mut self, other: &Self) {
        self.served.add(&other.served);
        self.batch_rows.add(&other.batch_rows);
        self.batch_sequences.add(&other.batch_sequences);
        self.step_seconds.add(&other.step_seconds);
        self.forward_seconds += other.forward_seconds;
        self.kv.total += other.kv.total;
        self.kv.used += other.kv.used;
        self.kv.remembered += other.kv.remembered;
        self.kv.free += other.kv.free;
        self.kv.page_bytes = self.kv.page_bytes.max(other.kv.page_bytes);
        for tenant in &other.tenants {
            self.add_tenant(tenant.clone());
        }
    }

    fn add_tenant(&mut self, tenant: TenantMetrics) {
        match self.tenants.binary_search_by(|other| other.name.cmp(&tenant.name)) {
            Ok(at) => self.tenants[at].served.add(&tenant.served),
            Err(at) => self.tenants.insert(at, tenant),
        }
    }
}

impl Served {
    /// Adds another reading.
    pub fn add(&mut self, other: &Self) {
        self.tokens.prompt += other.tokens.prompt;
        self.tokens.cached += other.tokens.cached;
        self.tokens.generated += other.tokens.generated;
        self.tokens.recomputed += other.tokens.recomputed;
        self.tokens.drafted += other.tokens.drafted;
        self.tokens.accepted += other.tokens.accepted;
        self.requests.finished += other.requests.finished;
        self.requests.cancelled += other.requests.cancelled;
        self.requests.timed_out += other.requests.timed_out;
        self.requests.refused += other.requests.refused;
        self.requests.failed += other.requests.failed;
        self.preemptions += other.preemptions;
        self.queue_seconds.add(&other.queue_seconds);
        self.first_token_seconds.add(&other.first_token_seconds);
        self.inter_token_seconds.add(&other.inter_token_seconds);
        self.running += other.running;
        self.waiting += other.waiting;
        self.kv_pages += other.kv_pages;
    }
}
