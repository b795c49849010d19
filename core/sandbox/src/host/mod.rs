//! The functions that programs call, one module for each interface of the contract.

pub(crate) mod capabilities;
pub(crate) mod layers;
pub(crate) mod logits;
pub(crate) mod models;
pub(crate) mod output;
pub(crate) mod sequences;
mod store;
pub(crate) mod wasi;

use crate::bindings::realm::tenant::types::{Error, Host};
use crate::error::HostError;
use crate::state::State;

impl Host for State {
    fn convert_error(&mut self, error: HostError) -> wasmtime::Result<Error> {
        match error {
            HostError::Seen(error) => Ok(error.into()),
            HostError::Fatal(error) => Err(error),
        }
    }
}
