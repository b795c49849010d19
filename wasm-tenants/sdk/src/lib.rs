#![doc = include_str!("../README.md")]
//!
//! # Where is what
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
//! Every call is synchronous: while one waits, the instance sleeps, and what it waits for is computed in one batch with
//! everybody else's. Resources are handles of things on Realm's side; dropping one gives it back.

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

/// For the attributes alone.
#[doc(hidden)]
pub mod private {
    pub use crate::bindings::policy::exports::realm::tenant::policy::Guest as PolicyGuest;
    pub use crate::bindings::program::exports::realm::tenant::program::Guest as ProgramGuest;
    pub use crate::policy::State;
    pub use crate::program::{Outcome, finished};
}
