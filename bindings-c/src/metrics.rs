//! Metrics.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;

use crate::choice::{choice, known};
use crate::memory::{free, put, text_of};

/// A reading of a model's counters and gauges.
pub struct Metrics {
    metrics: realm::Metrics,
    tenants: Vec<CString>,
}

impl From<realm::Metrics> for Metrics {
    fn from(metrics: realm::Metrics) -> Self {
        Self { tenants: metrics.tenants.iter().map(|tenant| text_of(&tenant.name)).collect(), metrics }
    }
}

/// Counters and gauges of one tenant, or of all. Counters start when the model is loaded.
#[repr(C)]
#[derive(Clone, Copy)]
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
    /// Requests that have had their first token.
    pub first_tokens: u64,
    /// The sum of their waiting times for it, in seconds.
    pub first_token_seconds: f64,
    /// The sum of the seconds that requests waited for a place in the batch.
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
    /// All pages.
    pub total: usize,
    /// Pages held by sequences.
    pub used: usize,
    /// Pages held by no sequence, kept for prompts that begin alike.
    pub remembered: usize,
    /// Empty pages.
    pub free: usize,
    /// The bytes of one page.
    pub page_bytes: usize,
}

/// Writes the counters and gauges of all tenants to `served`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_served(metrics: *const Metrics, served: *mut Served) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(metrics) = (unsafe { metrics.as_ref() }) else { return false };
    // SAFETY: the caller's place for it, or NULL.
    unsafe { put(served, Served::from(&metrics.metrics.served)) };
    true
}

/// Writes the KV cache's numbers of pages to `pages`; false for NULL.
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

/// Returns the number of forward passes so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_steps(metrics: *const Metrics) -> u64 {
    // SAFETY: an object of ours, or NULL.
    unsafe { metrics.as_ref() }.map_or(0, |metrics| metrics.metrics.step_seconds.count())
}

/// A measurement with a distribution.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Histogram {
    /// The rows of a forward pass.
    BatchRows,
    /// The sequences in a forward pass.
    BatchSequences,
    /// The seconds of a step.
    StepSeconds,
    /// The seconds that requests waited for a place in the batch.
    QueueSeconds,
    /// The seconds from a request's arrival to its first token.
    FirstTokenSeconds,
    /// The seconds between a request's tokens.
    InterTokenSeconds,
}

choice!(Histogram {
    BatchRows,
    BatchSequences,
    StepSeconds,
    QueueSeconds,
    FirstTokenSeconds,
    InterTokenSeconds
});

/// Returns the quantile `q`, from 0 to 1: the value that this part of all values does not exceed; not a
/// number if there are no values.
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

/// Returns the number of tenants.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_metrics_tenants(metrics: *const Metrics) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { metrics.as_ref() }.map_or(0, |metrics| metrics.tenants.len())
}

/// Writes the counters and gauges of tenant `index` to `served`, and returns its name, which belongs to the
/// metrics; NULL if `index` is out of range.
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
