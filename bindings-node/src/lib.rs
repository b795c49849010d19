//! The native half of `realm` for Node: it converts arguments, calls the `realm` crate and converts results. `ts/` makes
//! of it what users see: iterators, streams, signals, errors by class.
//!
//! What is small or seldom (options, metrics) passes as JSON; chunks and arrays of numbers as what they are. Promises are
//! futures on napi's tokio, so nothing waits on Node's thread.

mod call;
mod chat;
mod environment;
mod error;
mod generation;
pub mod grants;
mod handle;
pub mod hub;
pub mod lists;
mod load;
mod metrics;
mod model;
mod options;
mod processors;
mod protocol;
pub mod runtime;
mod sequence;
mod tenant;
mod tokenizer;

/// The package's version.
#[napi_derive::napi]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
