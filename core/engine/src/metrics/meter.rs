//! The events that one request reports.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::Span;
use tracing::field::Empty;

use super::ledger::Ledger;
use super::tally::{Outcome, Tally};
use crate::Tenant;

/// Counts for one request or one program's sequence, in the ledger and in its span.
pub(crate) struct Meter {
    ledger: Arc<Ledger>,
    tenant: Option<Arc<Tally>>,
    /// Covers a request from its arrival to its end. Programs' sequences have none.
    span: Span,
    /// True for a request, false for a program's sequence.
    request: bool,
    /// Tokens of the prompt. Later tokens were generated.
    prompt: usize,
    arrived: Instant,
    started: bool,
    last_token: Option<Instant>,
    /// The number of tokens at the beginning that were in the KV cache at some time. They are not counted
    /// twice.
    reached: usize,
    cached: usize,
    generated: usize,
}

impl Meter {
    pub(crate) fn request(
        ledger: &Arc<Ledger>,
        tenant: &Arc<Tenant>,
        kind: &'static str,
        prompt: usize,
    ) -> Self {
        let span = tracing::info_span!(
            "request",
            kind,
            tenant = tenant.name(),
            prompt_tokens = prompt,
            cached_tokens = Empty,
            generated_tokens = Empty,
            outcome = Empty,
        );
        Self::new(ledger, ledger.of(tenant), span, true, prompt)
    }

    pub(crate) fn session(ledger: &Arc<Ledger>, tenant: &Arc<Tenant>) -> Self {
        Self::new(ledger, ledger.of(tenant), Span::none(), false, usize::MAX)
    }

    fn new(
        ledger: &Arc<Ledger>,
        tenant: Option<Arc<Tally>>,
        span: Span,
        request: bool,
        prompt: usize,
    ) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            tenant,
            span,
            request,
            prompt,
            arrived: Instant::now(),
            started: false,
            last_token: None,
            reached: 0,
            cached: 0,
            generated: 0,
        }
    }

    /// Creates the meter of a fork of a program's sequence.
    pub(crate) fn fork(&self) -> Self {
        let other = Self::new(&self.ledger, self.tenant.clone(), Span::none(), false, usize::MAX);
        Self { reached: self.reached, ..other }
    }

    /// The tenant's counters; `None` if the request counts only in the totals.
    pub(crate) fn tenant(&self) -> Option<&Arc<Tally>> {
        self.tenant.as_ref()
    }

    fn tallies(&self) -> impl Iterator<Item = &Tally> {
        [Some(&self.ledger.total), self.tenant.as_deref()].into_iter().flatten()
    }

    /// Records that the request has a place in the batch, and `cached` of its tokens were in the prefix
    /// cache.
    pub(crate) fn started(&mut self, cached: usize) {
        if self.request && !self.started {
            self.started = true;
            let waited = self.arrived.elapsed();
            self.tallies().for_each(|tally| tally.queue.record_time(waited, 1));
        }
        self.found(cached);
    }

    /// Records that the first `cached` tokens are in the KV cache; counts those that were not computed for
    /// this sequence.
    pub(crate) fn found(&mut self, cached: usize) {
        let new = cached.saturating_sub(self.reached);
        if new > 0 {
            self.reached = cached;
            self.cached += new;
            self.tallies().for_each(|tally| {
                tally.cached.fetch_add(new as u64, Ordering::Relaxed);
            });
        }
    }

    /// Records that tokens `from .. to` were computed, and that they gave `generated` new ones.
    pub(crate) fn advanced(&mut self, from: usize, to: usize, generated: usize) {
        let recomputed = to.min(self.reached).saturating_sub(from) as u64;
        let prompt = to.min(self.prompt).saturating_sub(from.max(self.reached)) as u64;
        self.reached = self.reached.max(to);
        self.generated += generated;
        let now = Instant::now();
        let last = self.last_token;
        for tally in self.tallies() {
            if recomputed > 0 {
                tally.recomputed.fetch_add(recomputed, Ordering::Relaxed);
            }
            if prompt > 0 {
                tally.prompt.fetch_add(prompt, Ordering::Relaxed);
            }
            if generated > 0 {
                tally.generated.fetch_add(generated as u64, Ordering::Relaxed);
                match last {
                    None => tally.first_token.record_time(now - self.arrived, 1),
                    Some(last) => {
                        let each = (now - last) / u32::try_from(generated).unwrap_or(u32::MAX);
                        tally.inter_token.record_time(each, generated as u64);
                    }
                }
            }
        }
        if generated > 0 {
            self.last_token = Some(now);
        }
    }

    /// Records that `accepted` of `drafts` drafts were right.
    pub(crate) fn drafted(&self, drafts: usize, accepted: usize) {
        if drafts > 0 {
            for tally in self.tallies() {
                tally.drafted.fetch_add(drafts as u64, Ordering::Relaxed);
                tally.accepted.fetch_add(accepted as u64, Ordering::Relaxed);
            }
        }
    }

    /// Records that the tokens from index `len` on were removed.
    pub(crate) fn truncated(&mut self, len: usize) {
        self.reached = self.reached.min(len);
    }

    /// Records that the request gave up its pages.
    pub(crate) fn preempted(&self) {
        self.tallies().for_each(|tally| {
            tally.preemptions.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// Records the end of the request.
    pub(crate) fn ended(&self, outcome: Outcome) {
        if !self.request {
            return;
        }
        self.tallies().for_each(|tally| tally.count(outcome));
        if !self.span.is_disabled() {
            self.span.record("cached_tokens", self.cached);
            self.span.record("generated_tokens", self.generated);
            self.span.record("outcome", outcome.as_str());
        }
    }
}
