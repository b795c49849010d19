//! Token sequences that the caller drives.

use std::sync::Arc;

use realm::unblock;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::{RealmError, Result};

/// The results of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Output {
    /// Only keys and values; a later forward pass returns results.
    Nothing,
    /// The logits after the last token, `[vocabulary]`.
    LastLogits,
    /// The logits after every new token, `[new tokens, vocabulary]`.
    Logits,
    /// The last hidden state of every new token, `[new tokens, hidden]`.
    Hidden,
}

/// The results of a forward pass.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Forwarded {
    /// The numbers, row by row, `[rows * width]`, as 32-bit floats in memory order; `values` returns them as
    /// numbers.
    pub bytes: Vec<u8>,
    /// The number of rows.
    pub rows: u64,
    /// The number of values in a row.
    pub width: u64,
    /// The number of the sequence's tokens that were found in the prefix cache for this forward pass.
    pub cached: u64,
}

/// A token sequence with its KV cache. While it is idle, Realm may give its part of the cache to others and
/// compute it again when it is needed. When its last reference is released, its part is freed. One task may
/// use it at a time: a call while another runs throws `InvalidArgument`.
#[derive(uniffi::Object)]
pub struct TokenSequence(Arc<Mutex<realm::Sequence>>);

impl TokenSequence {
    /// Borrows the sequence, unless another call uses it. Waiting instead would block a thread of Swift's
    /// pool, and with enough waiting threads none would be left to take the forward pass's result.
    fn borrow(&self) -> Result<OwnedMutexGuard<realm::Sequence>> {
        let busy = |_| RealmError::invalid("another call of this TokenSequence is running; wait for it");
        Arc::clone(&self.0).try_lock_owned().map_err(busy)
    }
}

impl From<realm::Sequence> for TokenSequence {
    fn from(sequence: realm::Sequence) -> Self {
        Self(Arc::new(Mutex::new(sequence)))
    }
}

#[uniffi::export]
impl TokenSequence {
    /// Adds tokens at the end; the next forward pass computes them. Throws `InvalidArgument` for tokens
    /// outside the vocabulary, `LimitExceeded` beyond the context; no token is added then.
    pub fn append(&self, tokens: Vec<u32>) -> Result<()> {
        Ok(self.borrow()?.append(&tokens)?)
    }

    /// Computes the tokens appended since the last forward pass, or the last token again if there are none.
    /// Throws `InvalidArgument` for an empty sequence, and the error that ended the forward pass early.
    #[uniffi::method(default(output = None))]
    pub async fn forward(self: Arc<Self>, output: Option<Output>) -> Result<Forwarded> {
        let output = match output {
            Some(Output::Nothing) => realm::Output::Nothing,
            Some(Output::LastLogits) | None => realm::Output::LastLogits,
            Some(Output::Logits) => realm::Output::Logits,
            Some(Output::Hidden) => realm::Output::Hidden,
        };
        let forwarded = self.borrow()?.forward_async(output).await?;
        Ok(Forwarded {
            bytes: forwarded.values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
            rows: forwarded.rows().len() as u64,
            width: forwarded.width as u64,
            cached: forwarded.cached as u64,
        })
    }

    /// Returns the sequence's tokens.
    pub fn tokens(&self) -> Result<Vec<u32>> {
        Ok(self.borrow()?.tokens().to_vec())
    }

    /// Returns the longest length that the sequence may have, in tokens.
    pub fn context_length(&self) -> Result<u64> {
        Ok(self.borrow()?.context_length() as u64)
    }

    /// Creates another sequence with the same tokens. Both share the computed part until they differ.
    pub fn fork(&self) -> Result<Arc<TokenSequence>> {
        Ok(Arc::new(self.borrow()?.fork()?.into()))
    }

    /// Drops the tokens from index `length` on.
    pub fn truncate(&self, length: u64) -> Result<()> {
        Ok(self.borrow()?.truncate(length as usize)?)
    }

    /// Returns tokens, keys and values as bytes, for `Model.restoreSequence` with the same model on the same
    /// kind of device. Tokens appended after the last forward pass are not included.
    pub async fn save(self: Arc<Self>) -> Result<Vec<u8>> {
        let sequence = self.borrow()?;
        Ok(unblock(move || sequence.save()).await?)
    }
}
