//! Anthropic's types, and their mapping to requests and back.
//!
//! - [`MessagesRequest`]: a body of `/v1/messages` as a [`realm::Request`].
//! - `content`: messages and their blocks.
//! - [`types`]: whole answers.
//! - `stream`: answers as named events.

mod content;
mod request;
mod stream;
pub mod types;

pub use request::MessagesRequest;
pub(crate) use stream::MessageWriter;

use realm::{FinishReason, Token, Tokenizer};

/// Finds out which stop sequence ended a text: the engine removes it from the text and does not say.
#[derive(Debug, Default)]
pub(crate) struct StopFinder {
    stops: Vec<String>,
    /// The last bytes that the tokens spell, at least as many as the longest sequence has.
    tail: Vec<u8>,
    ended_by_token: bool,
}

impl StopFinder {
    pub(crate) fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), ..Self::default() }
    }

    /// Reads the tokens of a chunk.
    pub(crate) fn read(&mut self, tokens: &[Token], tokenizer: &Tokenizer) {
        if self.stops.is_empty() {
            return;
        }
        for token in tokens {
            self.ended_by_token = tokenizer.end_tokens().contains(&token.id);
            // Ids come from the model, and so from its vocabulary.
            let _ = tokenizer.push_bytes(token.id, true, &mut self.tail);
        }
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        // A token of up to some hundred bytes may follow the sequence's beginning.
        let keep = 2 * longest + 1024;
        if self.tail.len() > 2 * keep {
            self.tail.drain(..self.tail.len() - keep);
        }
    }

    /// Returns the sequence that ended the text, if one did.
    pub(crate) fn found(&self, reason: FinishReason) -> Option<&str> {
        if reason != FinishReason::Stop || self.ended_by_token {
            return None;
        }
        let last = |stop: &&String| self.tail.windows(stop.len()).rposition(|part| part == stop.as_bytes());
        let ended = self.stops.iter().filter(|stop| !stop.is_empty() && last(stop).is_some());
        ended.max_by_key(last).map(String::as_str)
    }
}

/// Returns the reason of an end in Anthropic's words.
fn stop_reason(reason: FinishReason, stop: Option<&str>) -> &'static str {
    match (reason, stop) {
        (FinishReason::Length, _) => "max_tokens",
        (FinishReason::ToolCalls, _) => "tool_use",
        (_, Some(_)) => "stop_sequence",
        _ => "end_turn",
    }
}
