//! Metrics.

/// A distribution of measured values.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Distribution {
    /// The number of values.
    pub count: u64,
    /// The sum of all values.
    pub sum: f64,
    /// The upper bounds of ranges; the last one is infinite. Empty if there are no values yet.
    pub bounds: Vec<f64>,
    /// The number of values in each range.
    pub counts: Vec<u64>,
}

impl From<&realm::Histogram> for Distribution {
    fn from(histogram: &realm::Histogram) -> Self {
        let (bounds, counts) = histogram.buckets.iter().copied().unzip();
        Self { count: histogram.count(), sum: histogram.sum, bounds, counts }
    }
}

/// The counters and gauges of one tenant, or of all. Counters start when the model is loaded.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Served {
    /// Tokens of prompts that were computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens computed again, because their pages had been given to others.
    pub recomputed_tokens: u64,
    /// Tokens computed on the chance that they follow.
    pub draft_tokens: u64,
    /// Those of the draft tokens that were accepted.
    pub accepted_tokens: u64,
    /// Requests that have their results.
    pub finished: u64,
    /// Requests that were cancelled, or whose reader left.
    pub cancelled: u64,
    /// Requests that reached their time limit.
    pub timed_out: u64,
    /// Requests that were refused because a queue was full.
    pub refused: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The number of times that a request gave its pages up for others.
    pub preemptions: u64,
    /// Sequences in the batch now.
    pub running: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// Pages of the KV cache that sequences hold now.
    pub kv_pages: u64,
    /// Seconds that requests waited for a place in the batch.
    pub queue_seconds: Distribution,
    /// Seconds from a request's arrival to its first token.
    pub first_token_seconds: Distribution,
    /// Seconds between a request's tokens.
    pub inter_token_seconds: Distribution,
}

impl From<&realm::Served> for Served {
    fn from(served: &realm::Served) -> Self {
        let (tokens, requests) = (served.tokens, served.requests);
        Self {
            prompt_tokens: tokens.prompt,
            cached_tokens: tokens.cached,
            generated_tokens: tokens.generated,
            recomputed_tokens: tokens.recomputed,
            draft_tokens: tokens.drafted,
            accepted_tokens: tokens.accepted,
            finished: requests.finished,
            cancelled: requests.cancelled,
            timed_out: requests.timed_out,
            refused: requests.refused,
            failed: requests.failed,
            preemptions: served.preemptions,
            running: served.running as u64,
            waiting: served.waiting as u64,
            kv_pages: served.kv_pages as u64,
            queue_seconds: (&served.queue_seconds).into(),
            first_token_seconds: (&served.first_token_seconds).into(),
            inter_token_seconds: (&served.inter_token_seconds).into(),
        }
    }
}

/// The bytes of memory that a tenant holds, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct MemoryUse {
    /// Requests that wait or run: prompts, stop strings, biases, grammars, fields.
    pub requests: u64,
    /// Chunks and answers that no reader has taken yet.
    pub results: u64,
    /// Sequences: their tokens and the engine's data about them; also snapshots while they are taken or
    /// restored.
    pub sequences: u64,
    /// Runs of programs: instances, linear memories, tables and stacks.
    pub programs: u64,
    /// Values behind programs' handles: logits, tensors, caches, samplers, grammars.
    pub handles: u64,
    /// Strings and lists on their way between a program and the host.
    pub transfers: u64,
    /// Stores of programs in memory, and copies of the entries of those on disk.
    pub stores: u64,
    /// Compiled code of programs, the bytes of those that are being compiled, and compiled grammars.
    pub code: u64,
    /// Lines of programs' logs that the application has not taken yet.
    pub logs: u64,
    /// The sum of all kinds.
    pub total: u64,
}

impl From<realm::MemoryUse> for MemoryUse {
    fn from(memory: realm::MemoryUse) -> Self {
        let of = |kind| memory.of(kind) as u64;
        Self {
            requests: of(realm::MemoryKind::Requests),
            results: of(realm::MemoryKind::Results),
            sequences: of(realm::MemoryKind::Sequences),
            programs: of(realm::MemoryKind::Programs),
            handles: of(realm::MemoryKind::Handles),
            transfers: of(realm::MemoryKind::Transfers),
            stores: of(realm::MemoryKind::Stores),
            code: of(realm::MemoryKind::Code),
            logs: of(realm::MemoryKind::Logs),
            total: memory.total() as u64,
        }
    }
}

/// Pages of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct KvPages {
    /// All pages.
    pub total: u64,
    /// Pages held by sequences.
    pub used: u64,
    /// Pages held by no sequence, kept for prompts that begin alike.
    pub remembered: u64,
    /// Empty pages.
    pub free: u64,
    /// The bytes of one page.
    pub page_bytes: u64,
}

/// The counters and gauges of one tenant.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct TenantMetrics {
    /// The tenant's name.
    pub name: String,
    /// Its counters and gauges.
    pub served: Served,
}

/// A reading of a model's counters and gauges.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Metrics {
    /// The counters and gauges over all tenants.
    pub served: Served,
    /// The rows of a forward pass.
    pub batch_rows: Distribution,
    /// The sequences in a forward pass.
    pub batch_sequences: Distribution,
    /// The seconds of a step.
    pub step_seconds: Distribution,
    /// The KV cache.
    pub kv: KvPages,
    /// The tenants.
    pub tenants: Vec<TenantMetrics>,
}

impl From<realm::Metrics> for Metrics {
    fn from(metrics: realm::Metrics) -> Self {
        let kv = metrics.kv;
        let tenant = |tenant: &realm::TenantMetrics| TenantMetrics {
            name: tenant.name.clone(),
            served: (&tenant.served).into(),
        };
        Self {
            served: (&metrics.served).into(),
            batch_rows: (&metrics.batch_rows).into(),
            batch_sequences: (&metrics.batch_sequences).into(),
            step_seconds: (&metrics.step_seconds).into(),
            kv: KvPages {
                total: kv.total as u64,
                used: kv.used as u64,
                remembered: kv.remembered as u64,
                free: kv.free as u64,
                page_bytes: kv.page_bytes as u64,
            },
            tenants: metrics.tenants.iter().map(tenant).collect(),
        }
    }
}
