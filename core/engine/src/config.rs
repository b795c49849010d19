//! How an engine is built.

use realm_compute::{CacheType, PAGE_TOKENS};
use realm_model::Weights;

use crate::kv::pages_for;
use crate::{Error, Speculation};

/// How an engine is built.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Tokens that the KV cache holds, over all requests; `None` for what fits in `kv_memory`.
    pub kv_tokens: Option<usize>,
    /// Tokens that one request may have; `None` for what the model was trained for, or less where the cache holds less.
    pub context_length: Option<usize>,
    /// Bytes of the KV cache; `None` for a quarter of the memory that is free, 8 GiB at most. Pages take memory when
    /// they are first used.
    pub kv_memory: Option<u64>,
    /// How the KV cache holds numbers.
    pub cache_type: CacheType,
    /// Rows of prompts in one forward pass while nobody else generates.
    pub prefill_chunk: usize,
    /// Rows of prompts in one forward pass while somebody generates: the most that a long prompt holds others up.
    pub shared_prefill_chunk: usize,
    /// Sequences that generate in one forward pass at most; if there are more, tenants take turns by their weights.
    pub decode_rows: usize,
    /// Sequences that run at once, each with pages of the KV cache.
    pub max_running: usize,
    /// Requests that wait, over all tenants; one more is refused as `overloaded`.
    pub max_queued: usize,
    /// Whether beginnings of prompts are computed once and remembered.
    pub prefix_cache: bool,
    /// Where drafts come from, for requests that do not say.
    pub speculation: Speculation,
    /// How many drafts a sequence has; `None` for as many as pay.
    pub fixed_drafts: Option<usize>,
    /// Chunks that a generation's channel holds before the request waits for its reader.
    pub channel: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            kv_tokens: None,
            context_length: None,
            kv_memory: None,
            cache_type: CacheType::F32,
            prefill_chunk: 512,
            shared_prefill_chunk: 128,
            decode_rows: 32,
            max_running: 256,
            max_queued: 4096,
            prefix_cache: true,
            speculation: Speculation::default(),
            fixed_drafts: None,
            channel: 64,
        }
    }
}

/// More tokens than this no request may have: the position is a number of 32 bits, and a page table is a list.
const LONGEST: usize = 1 << 24;

impl EngineConfig {
    /// Tokens that one request may have, if the KV cache holds them, with a model that was trained for `trained`.
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
        (free_memory() / 4).min(8 << 30)
    }

    /// Pages of the KV cache.
    pub(crate) fn pages(&self, weights: &dyn Weights) -> usize {
        let model = weights.config();
        let layout = model.cache_layout();
        let page_bytes = weights.page_bytes(self.cache_type).max(1) as u64;
        // One sequence always fits: one of the length that was asked for, or else however short.
        let least = pages_for(&layout, self.context_length.unwrap_or(PAGE_TOKENS), self.prefill_chunk);
        if let Some(tokens) = self.kv_tokens {
            return (layout.groups() * tokens.div_ceil(PAGE_TOKENS)).max(least);
        }
        let memory = self.kv_memory.unwrap_or_else(Self::default_kv_memory);
        // More than this nobody could use.
        let most = layout.groups() * (self.max_running * model.context_length).div_ceil(PAGE_TOKENS);
        ((memory / page_bytes) as usize).clamp(least, most.max(least))
    }
}

/// Bytes of memory that this process could still take; 8 GiB where the system does not say.
fn free_memory() -> u64 {
    let kib = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemAvailable:"));
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // A container's own limit, where it is set (cgroup v2).
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, now)| most.saturating_sub(now));
    system.map_or(8 << 30, |kib| kib * 1024).min(group.unwrap_or(u64::MAX))
}
