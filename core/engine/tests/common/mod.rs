//! Shared parts of this crate's tests.

#![allow(dead_code, reason = "no test wants all of it")]

use std::sync::Arc;

use realm_engine::{Chunk, Error, Finish, Limits, Request, Sampling, Tenant, Token};
use realm_tokenizer::Tokenizer;

/// A greedy request for `tokens` tokens after a text.
pub(crate) fn request(tokenizer: &Tokenizer, text: &str, tokens: usize) -> Request {
    Request {
        prompt: tokenizer.encode(text, true, true),
        sampling: Sampling::greedy(),
        max_tokens: Some(tokens),
        ..Request::default()
    }
}

/// A tenant without limits.
pub(crate) fn anybody() -> Arc<Tenant> {
    Arc::new(Tenant::new("anybody", Limits::default()).unwrap())
}

/// The whole output of a request.
pub(crate) struct Read {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) finish: Finish,
}

impl Read {
    /// Reads a generation to its end, which must not be an error.
    pub(crate) fn all(generation: impl Iterator<Item = Result<Chunk, Error>>) -> Self {
        let (mut text, mut tokens, mut finish) = (String::new(), Vec::new(), None);
        for chunk in generation {
            let chunk = chunk.unwrap();
            text += &chunk.text;
            tokens.extend(chunk.tokens);
            finish = chunk.finish;
        }
        Self { text, tokens, finish: finish.expect("an end") }
    }

    /// The ids of the generated tokens.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}
