//! Metrics.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;

use crate::choice::known;
use crate::memory::{free, put, text_of};

/// A reading of what a model has done and how it stands.
pub struct Metrics {
    metrics: realm::Metrics,
    tenants: Vec<CString>,
}

impl From<realm::Metrics> for Metrics {
    fn from(metrics: realm::Metrics) -> Self {
        Self { tenants: metrics.tenants.iter().map(|tenant| text_of(&tenant.name)).collect(), metrics }
    }
}

/// What was done for one tenant, or for all. Counts are since the model was loaded.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Served {
    /// Tokens of prompts, computed.
    pub prompt_tokens: u64,
    /// Tokens of prompts, found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens computed once more, because their pages had been given to others.
    pub recomputed_tokens: u64,
    /// Tokens computed on the chance that they follow.
    pub draft_tokens: u64,
    /// Of these, those that turned out right.
    pub accepted_tokens: u64,
    /// Requests that have their results.
    pub finished: u64,
    /// Requests that nobody waited for any more.
    pub cancelled: u64,
    /// Requests whose time was over.
    pub timed_out: u64,
    /// Requests without a place in a queue.
    pub refused: u64,
    /// Requests that failed.
    pub failed: u64,
    /// How often a request gave its pages up for others.
    pub preemptions: u64,
    /// Sequences in the batch now.
    pub running: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// Pages of the KV cache that sequences hold now.
    pub kv_pages: u64,
    /// Requests that have had their first token.
    pub first_tokens: u64,
    /// Seconds that they waited for it, added up.
    pub first_token_seconds: f64,
    /// Seconds that requests waited for a place in the batch, added up.
    pub queue_seconds: f64,
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
            first_tokens: served.first_token_seconds.count(),
            first_token_seconds: served.first_token_seconds.sum,
            queue_seconds: served.queue_seconds.sum,
        }
    }
}

/// Pages of a KV cache.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KvPages {
    /// All there are.
    pub total: usize,
    /// Held by sequences.
    pub used: usize,
    /// Held by nobody, but remembered for prompts that begin alike.
    pub remembered: usize,
    /// Empty.
    pub free: usize,
    /// Bytes of one page.
    pub page_bytes: usize,
}

/// Writes what was done for all tenants to `served`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_served(metrics: *const Metrics, served: *mut Served) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(metrics) = (unsafe { metrics.as_ref() }) else { return false };
    // SAFETY: the caller's place for it, or NULL.
    unsafe { put(served, Served::from(&metrics.metrics.served)) };
    true
}

/// Writes how the KV cache stands to `pages`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_kv(metrics: *const Metrics, pages: *mut KvPages) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(metrics) = (unsafe { metrics.as_ref() }) else { return false };
    let kv = metrics.metrics.kv;
    let said = KvPages {
        total: kv.total,
        used: kv.used,
        remembered: kv.remembered,
        free: kv.free,
        page_bytes: kv.page_bytes,
    };
    // SAFETY: the caller's place for it, or NULL.
    unsafe { put(pages, said) };
    true
}

/// Forward passes so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_steps(metrics: *const Metrics) -> u64 {
    // SAFETY: an object of ours, or NULL.
    unsafe { metrics.as_ref() }.map_or(0, |metrics| metrics.metrics.step_seconds.count())
}

/// What is measured as a distribution.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Histogram {
    /// Rows of a forward pass.
    BatchRows,
    /// Sequences in a forward pass.
    BatchSequences,
    /// Seconds of a step.
    StepSeconds,
    /// Seconds that requests waited for a place in the batch.
    QueueSeconds,
    /// Seconds from a request's arrival to its first token.
    FirstTokenSeconds,
    /// Seconds between a request's tokens.
    InterTokenSeconds,
}

/// The value that a part `q` of all values, from 0 to 1, do not exceed; not a number where there are no values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_quantile(
    metrics: *const Metrics,
    of: MaybeUninit<Histogram>,
    q: f64,
) -> f64 {
    // SAFETY: an object of ours, or NULL.
    let Some(Metrics { metrics, .. }) = (unsafe { metrics.as_ref() }) else { return f64::NAN };
    let Some(of) = known(of) else { return f64::NAN };
    let histogram = match of {
        Histogram::BatchRows => &metrics.batch_rows,
        Histogram::BatchSequences => &metrics.batch_sequences,
        Histogram::StepSeconds => &metrics.step_seconds,
        Histogram::QueueSeconds => &metrics.served.queue_seconds,
        Histogram::FirstTokenSeconds => &metrics.served.first_token_seconds,
        Histogram::InterTokenSeconds => &metrics.served.inter_token_seconds,
    };
    histogram.quantile(q).unwrap_or(f64::NAN)
}

/// How many tenants there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_tenants(metrics: *const Metrics) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { metrics.as_ref() }.map_or(0, |metrics| metrics.tenants.len())
}

/// Writes what was done for one of the tenants to `served`, and returns its name, which belongs to the metrics; NULL if there are not
/// so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_tenant(
    metrics: *const Metrics,
    index: usize,
    served: *mut Served,
) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    let Some(metrics) = (unsafe { metrics.as_ref() }) else { return std::ptr::null() };
    let Some(tenant) = metrics.metrics.tenants.get(index) else { return std::ptr::null() };
    // SAFETY: the caller's place for it, or NULL.
    unsafe { put(served, Served::from(&tenant.served)) };
    metrics.tenants[index].as_ptr()
}

/// Frees metrics.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_free(metrics: *mut Metrics) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(metrics) }
}
