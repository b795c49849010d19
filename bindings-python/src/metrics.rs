//! What a model has done and how it stands.

use pyo3::prelude::*;
use realm::MemoryKind;

use crate::record::record;

record! {
    /// How often a value fell into a range.
    Histogram {
        /// For each range its upper bound, which belongs to it, and how many values fell into it; the last bound is
        /// infinite.
        buckets: Vec<(f64, u64)>,
        /// Of all values.
        sum: f64,
        /// Of values.
        count: u64,
    }
}

record! {
    /// Tokens by kind.
    Tokens {
        /// Of prompts, computed.
        prompt: u64,
        /// Of prompts, found in the prefix cache.
        cached: u64,
        /// Generated.
        generated: u64,
        /// Computed once more, because their pages had been given to others.
        recomputed: u64,
        /// Computed on the chance that they follow.
        drafted: u64,
        /// Of the drafted, those that turned out right.
        accepted: u64,
    }
}

record! {
    /// Requests that have ended, by outcome.
    Requests {
        /// They have their results.
        finished: u64,
        /// Nobody waited for them any more.
        cancelled: u64,
        /// Their tenant's `request_timeout` was over.
        timed_out: u64,
        /// No place in a queue.
        refused: u64,
        /// A forward pass failed, or a grammar could not be followed any further.
        failed: u64,
    }
}

record! {
    /// What was done for somebody.
    Served {
        /// Tokens.
        tokens: Py<Tokens>,
        /// Requests that have ended.
        requests: Py<Requests>,
        /// How often a request gave its pages up for others.
        preemptions: u64,
        /// Seconds that requests waited for a place in the batch.
        queue_seconds: Py<Histogram>,
        /// Seconds from a request's arrival to its first token.
        first_token_seconds: Py<Histogram>,
        /// Seconds between tokens.
        inter_token_seconds: Py<Histogram>,
        /// Sequences in the batch now.
        running: usize,
        /// Requests that wait now.
        waiting: usize,
        /// Pages of the KV cache that sequences hold now; one that several share counts for each.
        kv_pages: usize,
    }
}

record! {
    /// Bytes of memory that a tenant causes, by what they are for.
    MemoryUse {
        /// Requests that wait or run: prompts, stop strings, biases, grammars, fields.
        requests: usize,
        /// Chunks and answers that no reader has taken yet.
        results: usize,
        /// Sequences: their tokens and what the engine knows of them; also snapshots while they are taken or restored.
        sequences: usize,
        /// Runs of programs: instances, linear memories, tables and stacks.
        programs: usize,
        /// What programs hold handles of: logits, tensors, caches, samplers, grammars.
        handles: usize,
        /// Strings and lists on their way between a program and the host.
        transfers: usize,
        /// Stores of programs in memory, and copies of what those on disk keep.
        stores: usize,
        /// Compiled code of programs, the bytes of those that are being compiled, and compiled grammars.
        code: usize,
        /// Lines of programs' logs that the application has not taken yet.
        logs: usize,
        /// All of these.
        total: usize,
    }
}

impl MemoryUse {
    pub(crate) fn of(memory: realm::MemoryUse) -> Self {
        let of = |kind| memory.of(kind);
        Self {
            requests: of(MemoryKind::Requests),
            results: of(MemoryKind::Results),
            sequences: of(MemoryKind::Sequences),
            programs: of(MemoryKind::Programs),
            handles: of(MemoryKind::Handles),
            transfers: of(MemoryKind::Transfers),
            stores: of(MemoryKind::Stores),
            code: of(MemoryKind::Code),
            logs: of(MemoryKind::Logs),
            total: memory.total(),
        }
    }
}

record! {
    /// The KV cache.
    KvPages {
        /// All there are.
        total: usize,
        /// Held by sequences; one that several share counts once.
        used: usize,
        /// Held by nobody, but remembered for prompts that begin alike.
        remembered: usize,
        /// Empty.
        free: usize,
        /// Bytes of one page.
        page_bytes: usize,
    }
}

record! {
    /// What was done for a tenant.
    TenantMetrics {
        /// Its name.
        name: String,
        /// What was done for it.
        served: Py<Served>,
    }
}

record! {
    /// What a model has done and how it stands.
    Metrics {
        /// Over all tenants.
        served: Py<Served>,
        /// Tokens that a forward pass computed.
        batch_rows: Py<Histogram>,
        /// Sequences in a forward pass.
        batch_sequences: Py<Histogram>,
        /// Seconds of a step.
        step_seconds: Py<Histogram>,
        /// Seconds of all forward passes.
        forward_seconds: f64,
        /// The KV cache.
        kv: Py<KvPages>,
        /// Tenants there are, by name.
        tenants: Vec<Py<TenantMetrics>>,
    }
}

impl Histogram {
    fn new(py: Python<'_>, histogram: realm::Histogram) -> PyResult<Py<Self>> {
        let count = histogram.count();
        Py::new(py, Self { buckets: histogram.buckets, sum: histogram.sum, count })
    }
}

impl Served {
    pub(crate) fn new(py: Python<'_>, served: realm::Served) -> PyResult<Py<Self>> {
        let realm::Tokens { prompt, cached, generated, recomputed, drafted, accepted } = served.tokens;
        let realm::Requests { finished, cancelled, timed_out, refused, failed } = served.requests;
        let served = Self {
            tokens: Py::new(py, Tokens { prompt, cached, generated, recomputed, drafted, accepted })?,
            requests: Py::new(py, Requests { finished, cancelled, timed_out, refused, failed })?,
            preemptions: served.preemptions,
            queue_seconds: Histogram::new(py, served.queue_seconds)?,
            first_token_seconds: Histogram::new(py, served.first_token_seconds)?,
            inter_token_seconds: Histogram::new(py, served.inter_token_seconds)?,
            running: served.running,
            waiting: served.waiting,
            kv_pages: served.kv_pages,
        };
        Py::new(py, served)
    }
}

impl Metrics {
    pub(crate) fn new(py: Python<'_>, metrics: realm::Metrics) -> PyResult<Self> {
        let realm::KvPages { total, used, remembered, free, page_bytes } = metrics.kv;
        let mut tenants = Vec::new();
        for realm::TenantMetrics { name, served } in metrics.tenants {
            tenants.push(Py::new(py, TenantMetrics { name, served: Served::new(py, served)? })?);
        }
        Ok(Self {
            served: Served::new(py, metrics.served)?,
            batch_rows: Histogram::new(py, metrics.batch_rows)?,
            batch_sequences: Histogram::new(py, metrics.batch_sequences)?,
            step_seconds: Histogram::new(py, metrics.step_seconds)?,
            forward_seconds: metrics.forward_seconds,
            kv: Py::new(py, KvPages { total, used, remembered, free, page_bytes })?,
            tenants,
        })
    }
}
