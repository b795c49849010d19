//! Runs many tenants' requests on one model: batching, fairness, the paged KV cache, sampling, streams.
//!
//! ```
//! use std::sync::Arc;
//!
//! use realm_compute::cpu::CpuBackend;
//! use realm_engine::{Engine, EngineConfig, Limits, Request, Tenant};
//! use realm_model::Transformer;
//! use realm_tokenizer::Tokenizer;
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
//! let file = realm_gguf::Gguf::open(path)?;
//! let tokenizer = Arc::new(Tokenizer::from_metadata(file.metadata())?);
//! let model = Arc::new(Transformer::load(Arc::new(CpuBackend::new(1)?), &file, &mut |_, _| {})?);
//! let engine = Engine::new(&model, Arc::clone(&tokenizer), &EngineConfig::default())?;
//!
//! let tenant = Arc::new(Tenant::new("acme", Limits { weight: 2.0, ..Limits::default() })?);
//! let prompt = tokenizer.encode("once", false, true);
//! for chunk in engine.generate(&tenant, Request { prompt, max_tokens: Some(8), ..Request::default() })? {
//!     print!("{}", chunk?.text);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Engine`]: one thread that steps a model; [`Request`]s join and leave its batch between steps.
//! - [`LoadedModel`]: an engine with the weights, the tokenizer and the chat template of its model.
//! - [`Tenant`]: the owner of a request, and the [`Limits`] on what it may use.
//! - [`MemoryLedger`]: one account for each tenant of the memory that it causes, with a limit.
//! - [`Adapter`]: a LoRA adapter that requests may name.
//! - [`Generation`]: the reader's end of a request, for threads and for tasks.
//! - [`Sequence`]: a token sequence that its owner drives forward by forward.
//! - [`LayerwiseSession`]: the forward pass layer by layer, for programs that put it together themselves.
//! - [`StepHooks`]: the places in an engine's steps where programs compute.
//! - [`Grammar`]: the texts that a generation may spell; a [`Guide`] follows one text through it.
//! - [`Sampling`] and [`Sampler`]: from logits to a token.
//! - [`Writing`]: a request's text, from logits to chunks.
//! - [`Metrics`]: counters and gauges of an engine.
//! - [`Speculation`]: the source of drafts, tokens that are computed on the chance that they follow.
//!
//! Inside, `scheduler` decides what runs, `task` holds the state of a running request, `kv` keeps account of
//! the KV cache's pages, and `speculate` makes drafts. Handles send `command`s to the engine's thread.
#![forbid(unsafe_code)]

mod adapter;
mod answer;
mod chunk;
mod command;
mod common;
mod config;
mod engine;
mod error;
mod generation;
mod guide;
mod inbox;
mod kv;
mod layerwise;
#[cfg(test)]
mod leak;
mod level;
mod loaded;
mod logits;
mod members;
mod memory;
mod memory_ledger;
mod metrics;
mod prices;
mod queue;
mod request;
mod sampling;
mod scheduler;
mod sequence;
mod snapshot;
mod speculate;
mod step_hooks;
mod stop;
mod task;
mod tenant;
mod text;
mod thought;
mod writing;

pub use adapter::Adapter;
pub use answer::Answer;
pub use chunk::{Chunk, Finish, FinishReason, Timings, Token, Usage};
pub use config::{EngineConfig, PassTimes};
pub use engine::Engine;
pub use error::Error;
pub use generation::Generation;
pub use guide::{Grammar, Guide};
pub use layerwise::LayerwiseSession;
pub use level::Level;
pub use loaded::{LoadedModel, Prompt, PromptError};
pub use logits::Logits;
pub use members::Members;
pub use memory::available_memory;
pub use memory_ledger::{Charged, MemoryCharge, MemoryKind, MemoryLedger, MemoryUse};
pub use metrics::{Histogram, KvPages, Metrics, Requests, RunEnd, RunMeter, Served, TenantMetrics, Tokens};
pub use request::{MAX_LOGPROBS, Request};
pub use sampling::{Sampler, Sampling, Scored, TokenLogprob, TokenMask, argmax, log_sum_exp, top};
pub use sequence::Sequence;
pub use snapshot::SnapshotKey;
pub use speculate::{Draft, Speculation};
pub use step_hooks::{Job, Step, StepHooks, TurnJob};
pub use stop::{MAX_STOP_BYTES, MAX_STOPS, check_stops};
pub use task::embed::Pooling;
pub use task::session::{Computed, Forwarded, Output};
pub use tenant::{Limits, Place, ProgramLimits, Tenant};
pub use text::TextStream;
pub use thought::Thought;
pub use writing::Writing;
