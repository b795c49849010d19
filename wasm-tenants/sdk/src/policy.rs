//! The policy level: Realm generates, and asks at each token.

use std::cell::RefCell;

use crate::{FinishReason, Logits, Observed, Request, Result, Token};

/// A policy: what Realm asks while it generates. One value serves one request, so that its fields are that request's.
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
    /// Before the first token.
    ///
    /// # Errors
    /// One refuses the request.
    fn begin(request: Request) -> Result<Self>;

    /// Chooses the next token, or changes the logits and returns none: then Realm chooses as the request says.
    ///
    /// # Errors
    /// One ends the request.
    fn sample(&mut self, logits: &Logits) -> Result<Option<Token>> {
        let _ = logits;
        Ok(None)
    }

    /// A token was chosen; `text` is what it adds to the answer (empty while a character is unfinished).
    ///
    /// # Errors
    /// One ends the request.
    fn observe(&mut self, token: Token, text: String) -> Result<Observed> {
        let _ = token;
        Ok(Observed::pass(text))
    }

    /// After the last token: text that was held back.
    ///
    /// # Errors
    /// One ends the request.
    fn end(&mut self, reason: FinishReason) -> Result<String> {
        let _ = reason;
        Ok(String::new())
    }
}

impl Observed {
    /// Sends this text, and goes on.
    pub fn pass(text: impl Into<String>) -> Self {
        Self { text: text.into(), stop: false }
    }

    /// Sends this text, and ends.
    pub fn stop(text: impl Into<String>) -> Self {
        Self { text: text.into(), stop: true }
    }
}

/// Where an instance keeps its policy between hooks.
pub struct State<P>(RefCell<Option<P>>);

impl<P: Policy> State<P> {
    /// No policy yet.
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// Begins with a new one.
    pub fn begin(&self, request: Request) -> Result<()> {
        *self.0.borrow_mut() = Some(P::begin(request)?);
        Ok(())
    }

    /// Asks the one that began.
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
