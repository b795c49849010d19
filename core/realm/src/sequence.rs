//! Token sequences that the caller drives.

use std::sync::Arc;

use realm_engine::{Forwarded, LoadedModel, Output};

use crate::{Error, Model};

/// A token sequence with its KV cache. Its forward passes share batches with other requests. While the
/// sequence is idle, Realm may give its part of the cache to others and compute it again when it is needed.
/// Dropping the sequence frees its part.
pub struct Sequence {
    inner: realm_engine::Sequence,
    /// Keeps the engine running while the sequence exists.
    model: Arc<LoadedModel>,
}

impl Sequence {
    /// The tokens of the sequence.
    pub fn tokens(&self) -> &[u32] {
        self.inner.tokens()
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Returns whether the sequence has no tokens.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// The longest length that the sequence may have, in tokens.
    pub fn context_length(&self) -> usize {
        self.inner.context_length()
    }

    /// Adds tokens at the end; the next forward pass computes them.
    ///
    /// # Errors
    /// `invalid-argument` for tokens outside the vocabulary, `limit-exceeded` beyond the context; no token is
    /// added then.
    pub fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        Ok(self.inner.append(tokens)?)
    }

    /// Computes the tokens appended since the last forward pass, or the last token again if there are none.
    /// Blocks.
    ///
    /// # Errors
    /// `invalid-argument` for an empty sequence, and the error that ended the forward pass early.
    pub fn forward(&mut self, output: Output) -> Result<Forwarded, Error> {
        Ok(self.inner.forward(output)?)
    }

    /// Same as [`forward`](Self::forward), for tasks. Dropping the future cancels the forward pass; the
    /// tokens stay appended.
    ///
    /// # Errors
    /// Same as [`forward`](Self::forward).
    pub async fn forward_async(&mut self, output: Output) -> Result<Forwarded, Error> {
        Ok(self.inner.forward_async(output).await?)
    }

    /// Creates another sequence with the same tokens. Both share the computed part until they differ.
    ///
    /// # Errors
    /// `internal` if the engine has failed.
    pub fn fork(&self) -> Result<Self, Error> {
        self.inner.tenant().ready_blocking();
        Ok(Self { inner: self.inner.fork()?, model: Arc::clone(&self.model) })
    }

    /// Drops the tokens from index `len` on.
    ///
    /// # Errors
    /// `internal` if the engine has failed.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        self.inner.tenant().ready_blocking();
        Ok(self.inner.truncate(len)?)
    }

    /// Returns tokens, keys and values as bytes, signed with the realm's
    /// [`snapshot_key`](crate::Builder::snapshot_key).
    /// [`Model::restore_sequence`](Model::restore_sequence) restores them with the same model on the
    /// same kind of device. Tokens appended after the last forward pass are not included. Blocks.
    ///
    /// # Errors
    /// `internal` if the device could not be read.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        Ok(self.inner.save()?)
    }
}

impl Model {
    /// Creates an empty sequence that the caller drives, one forward pass at a time.
    ///
    /// # Errors
    /// `internal` if the engine has failed. With an [adapter](Self::adapted), `invalid-argument` if it
    /// belongs to another model and `limit-exceeded` if the tenant may not use it.
    pub fn sequence(&self) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.loaded.engine.sequence(&self.tenant.inner, self.adapter.clone(), 0)?;
        Ok(Sequence { inner, model: Arc::clone(&self.loaded) })
    }

    /// Restores a sequence from the bytes of [`Sequence::save`], written by this realm or by another one with
    /// the same [`snapshot_key`](crate::Builder::snapshot_key). A sequence saved with an
    /// [adapter](Self::adapted) needs a model with the same adapter and the same factor.
    ///
    /// # Errors
    /// `invalid-argument` for bytes that are not signed with the realm's key or were changed since, and for
    /// bytes of another model, device, cache type or adapter; `limit-exceeded` if the sequence is longer than
    /// the context.
    pub fn restore_sequence(&self, bytes: &[u8]) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.loaded.engine.restore(&self.tenant.inner, self.adapter.clone(), bytes)?;
        Ok(Sequence { inner, model: Arc::clone(&self.loaded) })
    }

    /// Restores a sequence that a realm with another key saved; for one with the same key use
    /// [`restore_sequence`](Self::restore_sequence). The format of the bytes is checked in full, so they
    /// cannot harm another request. But Realm cannot check that the keys and values in them are those that
    /// the model computes for the tokens. Therefore they never enter the prefix cache, where the tenant's
    /// other requests would find them, and saving the sequence again saves only its tokens.
    ///
    /// # Errors
    /// `invalid-argument` for anything but a saved sequence of this model, device, cache type and adapter;
    /// `limit-exceeded` if the sequence is longer than the context.
    pub fn restore_foreign_sequence(&self, bytes: &[u8]) -> Result<Sequence, Error> {
        self.tenant.inner.ready_blocking();
        let inner = self.loaded.engine.restore_foreign(&self.tenant.inner, self.adapter.clone(), bytes)?;
        Ok(Sequence { inner, model: Arc::clone(&self.loaded) })
    }
}
