//! OpenAI's types, and their mapping to requests and back.
//!
//! - [`ChatRequest`] and [`CompletionRequest`]: a body as [`realm::Request`]s.
//! - [`EmbeddingRequest`]: a body as texts and tokens.
//! - [`types`]: answers, whole and in chunks.

mod chat;
mod completions;
mod embeddings;
mod guide;
mod logprobs;
mod messages;
mod options;
mod stream;
mod tools;
pub mod types;

pub use chat::ChatRequest;
pub use completions::CompletionRequest;
pub use embeddings::{EmbeddingInput, EmbeddingRequest};
pub(crate) use options::own;
pub(crate) use stream::{ChatWriter, CompletionWriter, Writer, json};

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use crate::models::seconds;

/// The largest `n`, the same as in OpenAI's specification.
const MAX_CHOICES: usize = 128;

/// The fields that all answers to one request have in common.
#[derive(Debug, Clone)]
pub struct Head {
    /// The answer's id.
    pub id: String,
    /// The time of the answer, in seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: String,
    /// The tier at which the request was served, if the request named one.
    pub service_tier: Option<&'static str>,
}

impl Head {
    /// Creates the head of a new answer. Its id begins with `prefix`, such as `chatcmpl-`.
    pub fn new(prefix: &str, model: impl Into<String>) -> Self {
        // std's hashes have random keys.
        let [high, low] = [0u8, 1].map(|half| RandomState::new().hash_one(half));
        let id = format!("{prefix}{high:016x}{low:016x}");
        Self { id, created: seconds(SystemTime::now()), model: model.into(), service_tier: None }
    }
}
