//! Counters and gauges of models and tenants.

use pyo3::prelude::*;
use realm::MemoryKind;

use crate::record::record;

record! {
    /// The numbers of values in ranges.
    Histogram {
        /// For each range its upper bound, which is part of the range, and the number of values in it; the
        /// last bound is infinite.
        buckets: Vec<(f64, u64)>,
        /// The sum of all values.
        sum: f64,
        /// The number of values.
        count: u64,
    }
}

record! {
    /// The numbers of tokens, by kind.
    Tokens {
        /// Tokens of prompts that were computed.
        prompt: u64,
        /// Tokens of prompts that were found in the prefix cache.
        cached: u64,
        /// Tokens generated.
        generated: u64,
        /// Tokens computed again, because their pages had been given to others.
        recomputed: u64,
        /// Tokens computed on the chance that they follow.
        drafted: u64,
        /// Those of the drafted tokens that were accepted.
        accepted: u64,
    }
}

record! {
    /// The numbers of ended requests, by outcome.
    Requests {
        /// Requests that have their results.
        finished: u64,
        /// Requests that were cancelled, or whose reader left.
        cancelled: u64,
        /// Requests that reached their tenant's `request_timeout`.
        timed_out: u64,
        /// Requests that were refused because a queue was full.
        refused: u64,
        /// Requests whose forward pass failed, or whose grammar could not be followed any further.
        failed: u64,
    }
}

record! {
    /// The counters and gauges of one tenant, or of all.
    Served {
        /// The numbers of tokens.
        tokens: Py<Tokens>,
        /// The numbers of ended requests.
        requests: Py<Requests>,
        /// The number of times that a request gave its pages up for others.
        preemptions: u64,
        /// The seconds that requests waited for a place in the batch.
        queue_seconds: Py<Histogram>,
        /// The seconds from a request's arrival to its first token.
        first_token_seconds: Py<Histogram>,
        /// The seconds between tokens.
        inter_token_seconds: Py<Histogram>,
        /// The number of sequences in the batch now.
        running: usize,
        /// The number of requests that wait now.
        waiting: usize,
        /// The number of pages of the KV cache that sequences hold now; a page that several share counts for
        /// each.
        kv_pages: usize,
    }
}

record! {
    /// The bytes of memory that a tenant holds, by kind.
    MemoryUse {
        /// Requests that wait or run: prompts, stop strings, biases, grammars, fields.
        requests: usize,
        /// Chunks and answers that no reader has taken yet.
        results: usize,
        /// Sequences: their tokens and the engine's data about them; also snapshots while they are taken or
        /// restored.
        sequences: usize,
        /// Runs of programs: instances, linear memories, tables and stacks.
        programs: usize,
        /// Values behind programs' handles: logits, tensors, caches, samplers, grammars.
        handles: usize,
        /// Strings and lists on their way between a program and the host.
        transfers: usize,
        /// Stores of programs in memory, and copies of the entries of those on disk.
        stores: usize,
        /// Compiled code of programs, the bytes of those that are being compiled, and compiled grammars.
        code: usize,
        /// Lines of programs' logs that the application has not taken yet.
        logs: usize,
        /// The sum of all kinds.
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
        /// All pages.
        total: usize,
        /// Pages held by sequences; a page that several share counts once.
        used: usize,
        /// Pages held by no sequence, kept for prompts that begin alike.
        remembered: usize,
        /// Empty pages.
        free: usize,
        /// The bytes of one page.
        page_bytes: usize,
    }
}

record! {
    /// The counters and gauges of one tenant.
    TenantMetrics {
        /// The tenant's name.
        name: String,
        /// Its counters and gauges.
        served: Py<Served>,
    }
}

record! {
    /// A reading of a model's counters and gauges.
    Metrics {
        /// The counters and gauges over all tenants.
        served: Py<Served>,
        /// The tokens that a forward pass computed.
        batch_rows: Py<Histogram>,
        /// The sequences in a forward pass.
        batch_sequences: Py<Histogram>,
        /// The seconds of a step.
        step_seconds: Py<Histogram>,
        /// The seconds of all forward passes.
        forward_seconds: f64,
        /// The KV cache.
        kv: Py<KvPages>,
        /// The tenants, by name.
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
