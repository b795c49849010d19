//! Shorter ways to write what programs do with sequences.

use crate::{Error, ErrorCode, Model, Result, Sequence, Token, TokenSet};

impl Sequence {
    /// A sequence of these tokens, with the request's adapter.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`append`](Self::append).
    pub fn of(model: &Model, tokens: &[Token]) -> Result<Self> {
        let sequence = Self::open(model)?;
        sequence.append(tokens)?;
        Ok(sequence)
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens may follow those that it has.
    ///
    /// # Errors
    /// `invalid-argument` for an empty sequence, `limit-exceeded` for a full one: a prompt that nothing can follow.
    pub fn room(&self) -> Result<u32> {
        let (len, context) = (self.len(), self.context_length());
        if len == 0 {
            return Err(Error::invalid("the prompt has no tokens"));
        }
        if len >= context {
            let why = format!("the prompt has {len} tokens and the context holds {context}: shorten it");
            return Err(Error::new(ErrorCode::LimitExceeded, why));
        }
        Ok(context - len)
    }
}

impl TokenSet {
    /// Whether no token is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
