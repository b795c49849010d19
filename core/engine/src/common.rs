//! The state that an engine shares with its handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::adapter::Adapters;
use crate::members::Members;
use crate::metrics::Ledger;
use crate::queue::Queue;
use crate::snapshot::SnapshotFormat;
use crate::{Error, Speculation, StepHooks, Tenant};

/// The state that an engine shares with its handles.
pub(crate) struct Common {
    pub(crate) vocabulary: usize,
    pub(crate) groups: usize,
    /// The format of saved sequences.
    pub(crate) snapshots: SnapshotFormat,
    /// Tokens that one request may have, given the size of the KV cache.
    pub(crate) context: usize,
    /// Tokens that one request may have if the KV cache does not limit it.
    pub(crate) longest: usize,
    /// Tokens of the context that the model was trained for.
    pub(crate) trained: usize,
    pub(crate) speculation: Speculation,
    pub(crate) draft_model: bool,
    pub(crate) ids: AtomicU64,
    pub(crate) adapters: Arc<Adapters>,
    /// Pages that no request uses, as of the last step.
    pub(crate) free_pages: AtomicUsize,
    /// Tenants that have a guaranteed part of the engine.
    pub(crate) members: Arc<Members>,
    /// The places of waiting requests.
    pub(crate) waiting: Arc<Queue>,
    pub(crate) ledger: Arc<Ledger>,
    /// The places in steps where programs compute.
    pub(crate) hooks: StepHooks,
}

impl Common {
    /// Bytes of a page of the KV cache.
    pub(crate) fn page_bytes(&self) -> usize {
        self.ledger.page_bytes()
    }

    /// Returns a new id. Ids ascend in order of arrival.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Tokens that a sequence of the tenant may have.
    pub(crate) fn limit(&self, tenant: &Tenant) -> usize {
        tenant.read().kv_tokens.map_or(self.context, |tokens| tokens.min(self.context))
    }

    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), Error> {
        match tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            None => Ok(()),
            Some(token) => {
                let why = format!("token {token} is not in the vocabulary of {} tokens", self.vocabulary);
                Err(Error::InvalidArgument(why))
            }
        }
    }

    /// Checks a prompt and returns how many tokens its sequence may have.
    pub(crate) fn check_prompt(&self, tenant: &Tenant, prompt: &[u32], room: usize) -> Result<usize, Error> {
        if prompt.is_empty() {
            return Err(Error::InvalidArgument("the prompt has no tokens".into()));
        }
        self.check_tokens(prompt)?;
        let (len, context, limit) = (prompt.len(), self.context, self.limit(tenant));
        if len + room <= limit {
            return Ok(limit);
        }
        let Self { longest, trained, .. } = *self;
        let what_to_do = if limit < context {
            format!("and tenant `{}` may have {limit}: shorten it, or raise `kv_tokens`", tenant.name())
        } else if context < longest {
            format!(
                "and the KV cache holds a context of {context}: shorten it, or load the model with more `kv_tokens`"
            )
        } else if longest == trained {
            format!(
                "and the model was trained for a context of {context}: shorten it, or load the model with a larger \
                 `context_length`, with which texts get worse from there on"
            )
        } else {
            format!(
                "and the model was loaded with a `context_length` of {context}: shorten it, or load it with a larger one"
            )
        };
        Err(Error::LimitExceeded(format!("the prompt has {len} tokens {what_to_do}")))
    }
}
