#![doc = include_str!("../README.md")]
//!
//! # Overview
//!
//! | to | see |
//! |---|---|
//! | answer requests | [`run`], [`Request`], [`emit`], [`FinishReason`] |
//! | answer as Realm itself would, with steps of your own between | [`Answer`] |
//! | be asked at each token instead | [`policy`], [`Policy`] |
//! | turn text into tokens and back | [`Model`], [`TextDecoder`] |
//! | compute | [`Sequence`], [`forward_each`] |
//! | choose tokens | [`Logits`], [`TokenSet`], [`Sampler`], [`Matcher`] |
//! | compute layer by layer | [`layers`] |
//! | reach what the application granted | [`call`], [`run_program`], [`log`], [`now`], [`random`], [`store`] |
//!
//! Every call is synchronous: while a call waits, the instance sleeps, and Realm computes the call's rows in
//! one batch with those of other requests. Resources are handles to objects on Realm's side; dropping a
//! handle frees the object.

mod answer;
#[doc(hidden)]
pub mod bindings;
mod error;
mod output;
mod policy;
mod program;
mod request;
mod sequence;

pub use answer::{Answer, Step};
pub use bindings::imports::realm::tenant::capabilities::{Level, call, now, random, run_program};
pub use bindings::imports::realm::tenant::layers;
pub use bindings::imports::realm::tenant::logits::{Candidate, Logits, Matcher, Sampler, TokenSet};
pub use bindings::imports::realm::tenant::models::{Model, ModelInfo, Piece, TextDecoder};
pub use bindings::imports::realm::tenant::sequences::{Adapter, Sequence, forward_each};
pub use bindings::imports::realm::tenant::store;
pub use bindings::imports::realm::tenant::types::{
    Conversation, FinishReason, Grammar, Message, Prompt, Request, Sampling, Token,
};
pub use bindings::policy::exports::realm::tenant::policy::Observed;
pub use error::{Error, ErrorCode, Result};
#[cfg(feature = "json")]
pub use output::call_json;
pub use output::{emit, log};
pub use policy::Policy;
pub use realm_tenant_macros::{policy, run};

/// For the attributes only; not part of the public interface.
#[doc(hidden)]
pub mod private {
    pub use crate::bindings::policy::exports::realm::tenant::policy::Guest as PolicyGuest;
    pub use crate::bindings::program::exports::realm::tenant::program::Guest as ProgramGuest;
    pub use crate::policy::State;
    pub use crate::program::{Outcome, finished};
}
