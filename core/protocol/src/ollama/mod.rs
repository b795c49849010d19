//! Ollama's types, and their mapping to requests and back.
//!
//! - [`OllamaRequest`]: a body of `/api/chat` or `/api/generate` as a [`realm::Request`].
//! - `stream`: answers, whole and in lines.

mod request;
mod stream;

pub use request::OllamaRequest;
pub(crate) use stream::{LineWriter, whole};

/// Returns a model's name without ollama's tag of the newest version, which its clients add.
pub(crate) fn plain_name(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}
