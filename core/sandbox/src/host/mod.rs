//! The functions that programs call, interface by interface as in the contract.

#![allow(unreachable_pub, reason = "generated bindings re-export what handles are")]

pub(crate) mod capabilities;
pub(crate) mod layers;
pub(crate) mod logits;
pub(crate) mod models;
pub(crate) mod output;
pub(crate) mod sequences;
mod store;
