//! Runs many requests on one model: batching, sampling, streams.
//!
//! - [`Engine`]: one thread that steps a model; [`Request`]s join and leave its batch between steps.
//! - [`Generation`]: the reader's end of a request, for threads and for tasks.
//! - [`Sampling`] and [`Sampler`]: from logits to a token.
#![forbid(unsafe_code)]

mod engine;
mod error;
mod generation;
mod pages;
mod request;
mod sampling;
mod scheduler;
mod sequence;
mod stop;

pub use engine::{Engine, EngineConfig};
pub use error::Error;
pub use generation::Generation;
pub use request::{Chunk, Finish, FinishReason, MAX_LOGPROBS, Request, Timings, Token, Usage};
pub use sampling::{Sampler, Sampling, TokenLogprob};
