//! The functions that programs call, one module for each interface of the contract.

#![allow(unreachable_pub, reason = "generated bindings re-export what handles are")]

pub(crate) mod capabilities;
pub(crate) mod layers;
pub(crate) mod logits;
pub(crate) mod models;
pub(crate) mod output;
pub(crate) mod sequences;
mod store;

use crate::Error;

/// The most bytes of a text that one call works on, so that the call is short and its result is not much
/// larger.
const MAX_TEXT: usize = 1 << 20;

/// The most tokens that one call works on: their text may be a hundred times as long.
const MAX_TOKENS: usize = 1 << 16;

/// Refuses a text that is too long to work on.
fn check_text(text: &str) -> Result<(), Error> {
    if text.len() <= MAX_TEXT {
        return Ok(());
    }
    Err(Error::limit(format!("a text of {} bytes; one call takes {MAX_TEXT} at most", text.len())))
}

/// Refuses a list of tokens that is too long to work on.
fn check_tokens(tokens: &[u32]) -> Result<(), Error> {
    if tokens.len() <= MAX_TOKENS {
        return Ok(());
    }
    Err(Error::limit(format!("{} tokens; one call takes {MAX_TOKENS} at most", tokens.len())))
}

/// Parses a JSON text.
fn json(text: &str, what: &str) -> Result<serde_json::Value, Error> {
    check_text(text)?;
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("{what}: {error}")))
}
