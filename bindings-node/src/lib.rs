//! The native half of `realm` for Node: it converts arguments, calls the `realm` crate and converts results.
//! `ts/` builds the public API on it: iterators, streams, signals, errors by class.
//!
//! Small or rare values (options, metrics) pass as JSON; chunks and arrays of numbers pass as native objects.
//! Promises are futures on napi's tokio, so Node's thread never waits.

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

/// Returns the package's version.
#[napi_derive::napi]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
