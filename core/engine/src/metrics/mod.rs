//! What an engine has done and how it stands, in numbers.
//!
//! - [`Metrics`] and its parts: a reading, plain numbers that add up.
//! - [`ledger`]: where the engine's thread counts, in atomics that no reader can hold up.
//! - [`meter`]: what one request reports to the ledger.
//! - [`histogram`]: how often values fell into ranges.

mod histogram;
mod ledger;
mod meter;
mod run;

pub use histogram::Histogram;
pub(crate) use ledger::{Ledger, Load, Tally};
pub(crate) use meter::{Meter, Outcome};
pub use run::{RunEnd, RunMeter};

/// A reading of one engine. Counts are since the engine's start and never fall; what runs, waits and holds pages is as of
/// a moment ago (50 ms while the engine computes).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// Over all tenants, those included that are gone.
    pub served: Served,
    /// Rows of a forward pass: tokens that it computed.
    pub batch_rows: Histogram,
    /// Sequences in a forward pass.
    pub batch_sequences: Histogram,
    /// Seconds of a step: commands, choice of rows, forward pass, sampling, handing out.
    pub step_seconds: Histogram,
    /// Seconds of all forward passes.
    pub forward_seconds: f64,
    /// The KV cache.
    pub kv: KvPages,
    /// Tenants there are, by name. Those of one name are added up; of very many only the first
    /// [`MAX_TENANTS`](Self::MAX_TENANTS) are told apart.
    pub tenants: Vec<TenantMetrics>,
}

/// A reading of one tenant's part.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TenantMetrics {
    /// Its name.
    pub name: String,
    /// What was done for it.
    pub served: Served,
}

/// What was done for one tenant, or for all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Served {
    /// Tokens.
    pub tokens: Tokens,
    /// Requests that have ended.
    pub requests: Requests,
    /// How often a request gave its pages up for others, to be computed again.
    pub preemptions: u64,
    /// Seconds that requests waited for a place in the batch.
    pub queue_seconds: Histogram,
    /// Seconds from a request's arrival to its first token.
    pub first_token_seconds: Histogram,
    /// Seconds between tokens. Tokens that come at once share the time since the last one before.
    pub inter_token_seconds: Histogram,
    /// Sequences in the batch now.
    pub running: usize,
    /// Requests that wait now.
    pub waiting: usize,
    /// Pages of the KV cache that sequences hold now; a page that several share counts for each.
    pub kv_pages: usize,
}

/// Tokens since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Of prompts, computed; tokens that programs append to their sequences are among them.
    pub prompt: u64,
    /// Of prompts, found in the prefix cache.
    pub cached: u64,
    /// Generated.
    pub generated: u64,
    /// Computed once more, because their pages had been given to others.
    pub recomputed: u64,
    /// Computed on the chance that they follow.
    pub drafted: u64,
    /// Of the drafted, those that turned out right; they are among the generated.
    pub accepted: u64,
}

/// Requests that have ended, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// They have their results.
    pub finished: u64,
    /// Nobody waited for them any more.
    pub cancelled: u64,
    /// Their tenant's `request_timeout` was over.
    pub timed_out: u64,
    /// No place in a queue.
    pub refused: u64,
    /// A forward pass failed, or a grammar could not be followed any further.
    pub failed: u64,
}

/// Pages of a KV cache. `used`, `remembered` and `free` ones make up the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvPages {
    /// All there are.
    pub total: usize,
    /// Held by sequences; one that several share counts once.
    pub used: usize,
    /// Held by nobody, but remembered for prompts that begin alike.
    pub remembered: usize,
    /// Empty.
    pub free: usize,
    /// Bytes of one page.
    pub page_bytes: usize,
}

impl Metrics {
    /// Tenants that are told apart at once; others only count in the totals, until some are gone.
    pub const MAX_TENANTS: usize = 512;

    /// The part of the engine's time that was not spent in forward passes, from 0 to 1; `None` before the first step.
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
