//! The policy level: Realm generates, and calls the policy at each token.

use std::cell::RefCell;

use crate::{FinishReason, Logits, Observed, Request, Result, Token};

/// A policy, whose functions Realm calls while it generates. One value serves one request, so its fields
/// belong to that request.
///
/// ```no_run
/// use realm_tenant::*;
///
/// /// Answers without the letter e.
/// struct Lipogram(TokenSet);
///
/// #[realm_tenant::policy]
/// impl Policy for Lipogram {
///     fn begin(_: Request) -> Result<Self> {
///         Ok(Self(TokenSet::matching(&Model::current(), "[eE]")?))
///     }
///     fn sample(&mut self, logits: &Logits) -> Result<Option<Token>> {
///         logits.ban(&self.0)?;
///         Ok(None)
///     }
/// }
/// # fn main() {}
/// ```
pub trait Policy: Sized + 'static {
    /// Begins a request, before the first token.
    ///
    /// # Errors
    /// An error refuses the request.
    fn begin(request: Request) -> Result<Self>;

    /// Chooses the next token, or changes the logits and returns `None`: then Realm chooses by the request's
    /// sampling.
    ///
    /// # Errors
    /// An error ends the request.
    fn sample(&mut self, logits: &Logits) -> Result<Option<Token>> {
        let _ = logits;
        Ok(None)
    }

    /// Observes a chosen token; `text` is the text that it adds to the answer (empty while a character is
    /// unfinished).
    ///
    /// # Errors
    /// An error ends the request.
    fn observe(&mut self, token: Token, text: String) -> Result<Observed> {
        let _ = token;
        Ok(Observed::pass(text))
    }

    /// Ends the request, after the last token; returns text that was held back.
    ///
    /// # Errors
    /// An error ends the request.
    fn end(&mut self, reason: FinishReason) -> Result<String> {
        let _ = reason;
        Ok(String::new())
    }
}

impl Observed {
    /// Sends this text, and continues.
    pub fn pass(text: impl Into<String>) -> Self {
        Self { text: text.into(), stop: false }
    }

    /// Sends this text, and ends the answer.
    pub fn stop(text: impl Into<String>) -> Self {
        Self { text: text.into(), stop: true }
    }
}

/// The place of an instance's policy between calls.
pub struct State<P>(RefCell<Option<P>>);

impl<P: Policy> State<P> {
    /// Creates a state without a policy.
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// Begins a new policy.
    pub fn begin(&self, request: Request) -> Result<()> {
        *self.0.borrow_mut() = Some(P::begin(request)?);
        Ok(())
    }

    /// Calls the policy that began.
    pub fn ask<T>(&self, hook: impl FnOnce(&mut P) -> Result<T>) -> Result<T> {
        let mut policy = self.0.borrow_mut();
        hook(policy.as_mut().ok_or("the policy was asked before it began")?)
    }
}

impl<P: Policy> Default for State<P> {
    fn default() -> Self {
        Self::new()
    }
}
