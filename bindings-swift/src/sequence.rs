//! Token sequences that the caller drives.

use std::sync::Arc;

use realm::unblock;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::{RealmError, Result};

/// Which results of a forward are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Output {
    /// Only keys and values: what comes later wants the results.
    Nothing,
    /// The logits after the last token, `[vocabulary]`.
    LastLogits,
    /// The logits after every new token, `[new tokens, vocabulary]`.
    Logits,
    /// The last hidden state of every new token, `[new tokens, hidden]`.
    Hidden,
}

/// The results of a forward.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Forwarded {
    /// Row by row, `[rows * width]`: 32-bit floats as they lie in memory; `values` has them as numbers.
    pub bytes: Vec<u8>,
    /// Rows there are.
    pub rows: u64,
    /// Numbers in a row.
    pub width: u64,
    /// How many of the sequence's tokens were found in the prefix cache for this forward.
    pub cached: u64,
}

/// A token sequence with its KV cache. While it rests its part of the cache may be given to others; it is computed again when it is
/// needed. When nobody holds it any more, its part is free. Used by one task at a time: a call while another runs throws
/// `InvalidArgument`.
#[derive(uniffi::Object)]
pub struct TokenSequence(Arc<Mutex<realm::Sequence>>);

impl TokenSequence {
    /// The sequence, unless somebody uses it. Waiting instead would hold up a thread of Swift's pool, and with enough who wait
    /// nobody would be left to take the forward's result.
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
    /// Adds tokens at the end; the next forward computes them. Throws `InvalidArgument` for tokens outside the vocabulary,
    /// `LimitExceeded` beyond the context; then nothing was added.
    pub fn append(&self, tokens: Vec<u32>) -> Result<()> {
        Ok(self.borrow()?.append(&tokens)?)
    }

    /// Computes what was appended since the last forward, or the last token again if nothing was. Throws `InvalidArgument` for an
    /// empty sequence, and what ended the forward early.
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

    /// Its tokens.
    pub fn tokens(&self) -> Result<Vec<u32>> {
        Ok(self.borrow()?.tokens().to_vec())
    }

    /// Tokens that it may have at most.
    pub fn context_length(&self) -> Result<u64> {
        Ok(self.borrow()?.context_length() as u64)
    }

    /// Another sequence with the same tokens. Both share what is computed until they differ.
    pub fn fork(&self) -> Result<Arc<TokenSequence>> {
        Ok(Arc::new(self.borrow()?.fork()?.into()))
    }

    /// Drops the tokens from the `length`th on.
    pub fn truncate(&self, length: u64) -> Result<()> {
        Ok(self.borrow()?.truncate(length as usize)?)
    }

    /// Tokens, keys and values as bytes, for `Model.restoreSequence` with the same model on the same kind of device. What was appended
    /// after the last forward is not part of them.
    pub async fn save(self: Arc<Self>) -> Result<Vec<u8>> {
        let sequence = self.borrow()?;
        Ok(unblock(move || sequence.save()).await?)
    }
}
