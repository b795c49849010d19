//! A program's output, to the requester and to the application.

use crate::bindings::imports::realm::tenant::{capabilities, output};
use crate::{Level, Result, Token};

/// Sends a piece of the answer: text, and the tokens that it was made of, which count for its usage (none for
/// text that the model did not write). Waits while the reader is slow.
///
/// # Errors
/// `limit-exceeded` beyond the bytes that a request may send.
pub fn emit(text: impl AsRef<str>, tokens: &[Token]) -> Result<()> {
    output::emit(text.as_ref(), tokens)
}

/// Writes to the application's log. Does nothing if the tenant has no grant for logging, so that a program
/// may always log.
pub fn log(level: Level, message: impl AsRef<str>) {
    // A missing grant is no reason to fail.
    let _ = capabilities::log(level, message.as_ref());
}

/// Calls a tool of the application, with arguments and a result that serde converts. Waits for the result.
///
/// # Errors
/// Those of [`call`](crate::call), and `invalid-argument` for a result of another form.
#[cfg(feature = "json")]
pub fn call_json<R: serde::de::DeserializeOwned>(name: &str, arguments: &impl serde::Serialize) -> Result<R> {
    let answer = capabilities::call(name, &serde_json::to_string(arguments)?)?;
    Ok(serde_json::from_str(&answer)?)
}
