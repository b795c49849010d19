//! How an engine is built.

use std::time::Duration;

use realm_compute::{CacheType, PAGE_TOKENS};
use realm_model::{ModelConfig, Weights};

use crate::kv::pages_for;
use crate::{Error, SnapshotKey, Speculation, available_memory};

/// How an engine is built.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Tokens that the KV cache holds, over all requests; 0 for one request of the model's own context
    /// length, `None` for what fits in `kv_memory`.
    pub kv_tokens: Option<usize>,
    /// Tokens that one request may have; `None` for what the model was trained for, or less where the cache
    /// holds less.
    pub context_length: Option<usize>,
    /// Bytes of the KV cache; `None` for a quarter of the memory that is free, 8 GiB at most. Pages take
    /// memory when they are first used.
    pub kv_memory: Option<u64>,
    /// How the KV cache holds numbers.
    pub cache_type: CacheType,
    /// The most rows of prompts in one forward pass while no sequence generates.
    pub prefill_chunk: usize,
    /// The most rows of prompts in one forward pass while sequences generate.
    pub shared_prefill_chunk: usize,
    /// How long a forward pass may take for the sake of prompts; `None` for the rows above, however long they
    /// take.
    pub pass_times: Option<PassTimes>,
    /// Sequences that generate in one forward pass at most; if there are more, tenants take turns by their
    /// weights.
    pub decode_rows: usize,
    /// Sequences that run at once, each with pages of the KV cache.
    pub max_running: usize,
    /// Requests that wait, over all tenants; one more is refused as `overloaded`. Half of the places are the
    /// tenants' parts, by their weights and at least one for each: within its part a tenant is never refused.
    pub max_queued: usize,
    /// Whether beginnings of prompts are computed once and remembered.
    pub prefix_cache: bool,
    /// Where drafts come from, for requests that do not say.
    pub speculation: Speculation,
    /// How many drafts a sequence has; `None` for as many as pay.
    pub fixed_drafts: Option<usize>,
    /// The key that saved sequences are signed with; `None` for a key of the engine's own, which no other
    /// engine knows.
    pub snapshot_key: Option<SnapshotKey>,
    /// Chunks that a generation's channel holds before the request waits for its reader.
    pub channel: usize,
}

/// How long a forward pass may take for the sake of prompts. Beside sequences that other tenants generate a
/// pass takes at most about twice as long as without prompts, or longer by as much as the prompts' tenants
/// weigh more.
#[derive(Debug, Clone, Copy)]
pub struct PassTimes {
    /// While no sequence generates: the time that a request waits at most which comes while a prompt is
    /// computed.
    pub alone: Duration,
    /// Beside sequences of the same tenant, or with prompts of several tenants.
    pub beside_own: Duration,
}

impl Default for PassTimes {
    fn default() -> Self {
        Self { alone: Duration::from_millis(250), beside_own: Duration::from_millis(100) }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            kv_tokens: None,
            context_length: None,
            kv_memory: None,
            cache_type: CacheType::default(),
            prefill_chunk: 512,
            shared_prefill_chunk: 128,
            pass_times: None,
            decode_rows: 32,
            max_running: 256,
            max_queued: 4096,
            prefix_cache: true,
            speculation: Speculation::default(),
            fixed_drafts: None,
            snapshot_key: None,
            channel: 64,
        }
    }
}

/// More tokens than this no request may have: the position is a number of 32 bits, and a page table is a
/// list.
const LONGEST: usize = 1 << 24;

impl EngineConfig {
    /// Tokens that one request may have, if the KV cache holds them, with a model that was trained for
    /// `trained`.
    ///
    /// # Errors
    /// `InvalidArgument` for none or too many.
    pub(crate) fn longest(&self, trained: usize) -> Result<usize, Error> {
        let longest = self.context_length.unwrap_or(trained);
        if !(1..=LONGEST).contains(&longest) {
            let why = format!("context_length is {longest}; it must be from 1 to {LONGEST}");
            return Err(Error::InvalidArgument(why));
        }
        if longest > trained {
            tracing::warn!(
                "context_length is {longest}, and the model was trained for {trained} tokens: beyond, texts get worse"
            );
        } else if let Some(tokens) = self.kv_tokens.filter(|&tokens| tokens > longest) {
            tracing::warn!(
                "kv_tokens is {tokens} for all requests together; one has {longest} of them at most, unless \
                 `context_length` says more"
            );
        }
        Ok(longest)
    }

    /// Bytes of the KV cache on the CPU where `kv_memory` is `None`.
    pub fn default_kv_memory() -> u64 {
        (available_memory().unwrap_or(8 << 30) / 4).min(8 << 30)
    }

    /// Pages of the KV cache.
    pub(crate) fn pages(&self, weights: &dyn Weights) -> usize {
        let model = weights.config();
        if let Some(pages) = self.wanted_pages(model) {
            return pages;
        }
        let memory = self.kv_memory.unwrap_or_else(Self::default_kv_memory);
        self.pages_in(memory, model, weights.page_bytes(self.cache_type))
    }

    /// Bytes of the KV cache that a model is loaded with at least: those that `kv_tokens` or `kv_memory` ask
    /// for and, where neither does, the least that one sequence runs with. `page_bytes` are those of one
    /// page.
    pub fn least_kv_bytes(&self, model: &ModelConfig, page_bytes: usize) -> u64 {
        let pages = self
            .wanted_pages(model)
            .unwrap_or_else(|| self.pages_in(self.kv_memory.unwrap_or(0), model, page_bytes));
        (pages as u64).saturating_mul(page_bytes as u64)
    }

    /// One sequence always fits: one of the length that was asked for, or else however short.
    fn least_pages(&self, model: &ModelConfig) -> usize {
        pages_for(&model.cache_layout(), self.context_length.unwrap_or(PAGE_TOKENS), self.prefill_chunk)
    }

    /// Pages of `kv_tokens`.
    fn wanted_pages(&self, model: &ModelConfig) -> Option<usize> {
        let layout = model.cache_layout();
        let pages = match self.kv_tokens? {
            0 => pages_for(&layout, self.context_length.unwrap_or(model.context_length), self.prefill_chunk),
            tokens => layout.groups().saturating_mul(tokens.div_ceil(PAGE_TOKENS)),
        };
        Some(pages.max(self.least_pages(model)))
    }

    /// Pages that `memory` bytes hold, within what makes sense.
    fn pages_in(&self, memory: u64, model: &ModelConfig, page_bytes: usize) -> usize {
        let least = self.least_pages(model);
        // More than this no company of requests can use.
        let longest = self.context_length.unwrap_or(model.context_length);
        let most =
            model.cache_layout().groups() * self.max_running.saturating_mul(longest).div_ceil(PAGE_TOKENS);
        ((memory / page_bytes.max(1) as u64) as usize).clamp(least, most.max(least))
    }
}
