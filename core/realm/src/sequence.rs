//! A token sequence that its owner drives.

use std::sync::Arc;

use realm_engine::{Forwarded, Output};

use crate::Error;
use crate::model::Shared;

/// A token sequence with its KV cache. Its forwards share passes with everybody else's work. While it rests its part of
/// the cache may be given to others; it is computed again when it is needed. Dropping it frees its part.
pub struct Sequence {
    inner: realm_engine::Sequence,
    /// Keeps the engine running while somebody holds the sequence.
    model: Arc<Shared>,
}

impl Sequence {
    pub(crate) fn new(inner: realm_engine::Sequence, model: Arc<Shared>) -> Self {
        Self { inner, model }
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        self.inner.tokens()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Tokens that it may have at most.
    pub fn context_length(&self) -> usize {
        self.inner.context_length()
    }

    /// Adds tokens at the end; the next forward computes them.
    ///
    /// # Errors
    /// `invalid-argument` for tokens outside the vocabulary, `limit-exceeded` beyond the context; then nothing was added.
    pub fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        Ok(self.inner.append(tokens)?)
    }

    /// Computes what was appended since the last forward, or the last token again if nothing was. Blocks.
    ///
    /// # Errors
    /// `invalid-argument` for an empty sequence, and what ended the forward early.
    pub fn forward(&mut self, output: Output) -> Result<Forwarded, Error> {
        Ok(self.inner.forward(output)?)
    }

    /// As [`forward`](Self::forward), for tasks. Dropping the future gives the forward up; the tokens stay appended.
    ///
    /// # Errors
    /// As above.
    pub async fn forward_async(&mut self, output: Output) -> Result<Forwarded, Error> {
        Ok(self.inner.forward_async(output).await?)
    }

    /// Another sequence with the same tokens. Both share what is computed until they differ.
    ///
    /// # Errors
    /// `internal` if the engine has failed.
    pub fn fork(&self) -> Result<Self, Error> {
        self.inner.tenant().ready_blocking();
        Ok(Self { inner: self.inner.fork()?, model: Arc::clone(&self.model) })
    }

    /// Drops the tokens from the `len`th on.
    ///
    /// # Errors
    /// `internal` if the engine has failed.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        self.inner.tenant().ready_blocking();
        Ok(self.inner.truncate(len)?)
    }

    /// Tokens, keys and values as bytes, for [`Model::restore_sequence`](crate::Model::restore_sequence) with the same
    /// model on the same kind of device. They are signed with the realm's
    /// [`snapshot_key`](crate::Builder::snapshot_key). What was appended after the last forward is not part of them. Blocks.
    ///
    /// # Errors
    /// `internal` if the device could not be read.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(self.inner.save()?)
    }
}
