//! Shortcuts for common operations on sequences.

use crate::{Error, ErrorCode, Model, Result, Sequence, Token, TokenSet};

impl Sequence {
    /// Makes a sequence of these tokens, with the request's adapter.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`append`](Self::append).
    pub fn of(model: &Model, tokens: &[Token]) -> Result<Self> {
        let sequence = Self::open(model)?;
        sequence.append(tokens)?;
        Ok(sequence)
    }

    /// Returns whether the sequence has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of tokens that may still follow.
    ///
    /// # Errors
    /// `invalid-argument` for an empty sequence, `limit-exceeded` for a full one: a prompt that no token can
    /// follow.
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
    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
