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
pub(crate) use stream::{ChatWriter, CompletionWriter, Writer};

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use crate::models::seconds;

/// Largest `n`, as OpenAI's specification has it.
const MAX_CHOICES: usize = 128;

/// What all answers to one request have in common.
#[derive(Debug, Clone)]
pub struct Head {
    /// Names the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name, as the request gave it.
    pub model: String,
    /// The tier that the request was served at, if it asked for any.
    pub service_tier: Option<&'static str>,
}

impl Head {
    /// A new answer's head. `prefix` is that of the id, such as `chatcmpl-`.
    pub fn new(prefix: &str, model: impl Into<String>) -> Self {
        // The keys of std's hashes are random.
        let [high, low] = [0u8, 1].map(|half| RandomState::new().hash_one(half));
        let id = format!("{prefix}{high:016x}{low:016x}");
        Self { id, created: seconds(SystemTime::now()), model: model.into(), service_tier: None }
    }
}
