//! Realm runs many isolated tenants' AI programs on one copy of a model's weights.
//!
//! ```no_run
//! use realm::{Message, Realm, Request};
//!
//! let realm = Realm::builder().build()?;
//! let model = realm.load_model("qwen2.5-coder-0.5b")?;
//! let request = Request::chat([Message::user("What is the capital of France?")]).temperature(0.0);
//! println!("{}", model.generate(request)?.text);
//! # Ok::<(), realm::Error>(())
//! ```
//!
//! - [`Realm`]: the runtime; one per process is normal.
//! - [`Model`]: one set of weights, loaded once, shared by all tenants.
//! - [`Request`]: a prompt or a conversation, and how to answer it.
//! - [`Adapter`]: a LoRA adapter that requests may name, loaded and unloaded while other requests run.
//! - [`Tenant`]: an identity with [`Limits`]; [`Tenant::model`] returns a model as that tenant sees it.
//! - [`Program`]: a WebAssembly component that answers a tenant's requests in a sandbox; [`Grants`] say what
//!   it may do.
//! - [`Generation`]: a running request, a stream of [`Chunk`]s that threads can loop over too. Dropping it
//!   cancels the request.
//! - [`PreparedRequest`]: a request that is tokenized and not started yet, for callers that count tokens
//!   first.
//! - [`ToolCall`]: a call of one of the request's tools, parsed from the model's text.
//! - [`SharedGeneration`]: a generation that one thread may cancel while another waits for it.
//! - [`ChatSession`]: a conversation that keeps its messages, runs tools and makes room in the context.
//! - [`Model::generate_many`], [`Model::embed_many`]: lists in one call.
//! - [`LogitsProcessor`]: a function that changes logits before a token is chosen.
//! - [`Sequence`]: a token sequence that the caller drives, one forward pass at a time.
//! - [`Metrics`]: counters and gauges of a model; [`Realm::prometheus`] returns those of all models as text
//!   for Prometheus.
//! - [`Error`]: one type with a stable [`code`](Error::code).
//!
//! Calls that wait for a model exist twice: the plain name blocks the thread, and the name with `_async`
//! returns a future that needs no particular runtime. [`unblock`] turns any other blocking call into a
//! future.
//!
//! # Features
//!
//! - `sandbox`, on by default: [`Program`], [`Grants`] and the other items for tenants' programs. With
//!   `default-features = false` the crate serves models without programs, and builds without wasmtime.
//! - `remote`, on by default: `Realm::connect`, for models of a server.
#![forbid(unsafe_code)]

mod adapter;
mod answer;
mod background;
mod chat;
mod chunk;
mod commons;
mod completion;
mod device;
mod error;
mod frontend;
mod generate;
mod generation;
mod gpus;
#[cfg(feature = "remote")]
mod grpc;
mod history;
mod identity;
mod info;
mod inspect;
mod load;
mod load_adapter;
mod log;
mod logits_processor;
mod many;
mod metrics;
mod model;
mod numbers;
mod options;
mod placement;
mod prepared;
mod processors;
#[cfg(feature = "sandbox")]
mod program;
#[cfg(not(feature = "sandbox"))]
#[path = "no_programs.rs"]
mod program;
mod progress;
mod prompt;
mod registry;
mod remote;
mod request;
mod response_format;
mod room;
mod runtime;
mod sequence;
mod shared_generation;
mod task;
mod tenant;
mod thought;
mod tools;
mod unblock;
mod weights;

pub use adapter::Adapter;
pub use chat::{ChatOptions, ChatSession, ChatTool, Overflow};
pub use chunk::{Chunk, Finish, FinishReason};
pub use completion::Completion;
pub use error::{Error, ErrorCode};
pub use generation::{Chunks, Generation};
pub use info::ModelInfo;
pub use inspect::{FileInfo, inspect};
pub use log::log_to;
pub use logits_processor::LogitsProcessor;
pub use model::Model;
pub use options::{EmbedOptions, LoadOptions};
pub use prepared::PreparedRequest;
#[cfg(feature = "sandbox")]
pub use program::Program;
pub use progress::{OnProgress, Progress, ProgressEvent, Stage};
pub use realm_compute::CacheType;
pub use realm_convert as convert;
pub use realm_engine::{
    Forwarded, Grammar, Histogram, KvPages, Level, Limits, MemoryCharge, MemoryKind, MemoryUse, Metrics,
    Output, Pooling, ProgramLimits, Requests, Sampling, Scored, Served, Speculation, TenantMetrics, Timings,
    Token, TokenLogprob, Tokens, Usage,
};
pub use realm_hub as hub;
#[cfg(feature = "sandbox")]
pub use realm_sandbox::{Contract, Grants, LogQueue, ProgramInfo, Random, Store};
pub use realm_tokenizer::{Tokenizer, Utf8Stream, template_names};
pub use request::{Message, Prompt, ReasoningFormat, Request, SharedPrefix};
pub use runtime::{Builder, Realm};
pub use sequence::Sequence;
pub use shared_generation::SharedGeneration;
pub use tenant::Tenant;
pub use tools::{ToolCall, ToolChoice};
pub use unblock::unblock;
