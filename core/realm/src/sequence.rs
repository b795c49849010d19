//! Token sequences that the caller drives.

use std::sync::Arc;

use realm_engine::{Forwarded, LoadedModel, Output};
use realm_handover::block_on;

use crate::error::ErrorCode;
use crate::model::Inner;
use crate::remote::{RemoteModel, Saved, ServedSequence};
use crate::{Error, Model};

/// A token sequence with its KV cache. Its forward passes share batches with other requests. While the
/// sequence is idle, Realm may give its part of the cache to others and compute it again when it is needed.
/// Dropping the sequence frees its part.
pub struct Sequence {
    place: Place,
}

/// The party that computes.
enum Place {
    Local {
        inner: realm_engine::Sequence,
        /// Keeps the engine running while the sequence exists.
        model: Arc<LoadedModel>,
    },
    Remote(Remote),
}

/// A sequence of a server, and what is known of it here.
struct Remote {
    served: Box<dyn ServedSequence>,
    tokens: Vec<u32>,
    /// The number of tokens that the server has been told of. The next call tells it of the rest.
    told: usize,
    vocabulary: usize,
}

impl Remote {
    /// Checks tokens as the engine does, and keeps them until the next call.
    fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            let why = format!("token {token} is not in the vocabulary of {} tokens", self.vocabulary);
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let (length, most) = (self.tokens.len() + tokens.len(), self.served.context_length());
        if length > most {
            let why = format!(
                "the sequence would have {length} tokens and may have {most}: truncate it, or load the model with a longer context"
            );
            return Err(Error::new(ErrorCode::LimitExceeded, why));
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    async fn forward(&mut self, output: Output) -> Result<Forwarded, Error> {
        let (before, all) = (self.told, self.tokens.len());
        // Both are sent at once, and run in this order.
        let told = (before < all).then(|| self.served.append(self.tokens[before..].to_vec()));
        self.told = all;
        let forwarded = self.served.forward(output, all);
        if let Some(told) = told
            && let Err(error) = told.await
        {
            self.told = before;
            return Err(error);
        }
        forwarded.await
    }

    fn truncate(&mut self, length: usize) -> Result<(), Error> {
        if length < self.told {
            block_on(self.served.truncate(length))?;
            self.told = length;
        }
        self.tokens.truncate(length);
        Ok(())
    }

    fn fork(&self) -> Result<Self, Error> {
        let served = block_on(self.served.fork())?;
        Ok(Self { served, tokens: self.tokens.clone(), told: self.told, vocabulary: self.vocabulary })
    }
}

impl Sequence {
    fn local(inner: realm_engine::Sequence, model: &Arc<LoadedModel>) -> Self {
        Self { place: Place::Local { inner, model: Arc::clone(model) } }
    }

    /// The tokens of the sequence.
    pub fn tokens(&self) -> &[u32] {
        match &self.place {
            Place::Local { inner, .. } => inner.tokens(),
            Place::Remote(remote) => &remote.tokens,
        }
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens().len()
    }

    /// Returns whether the sequence has no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens().is_empty()
    }

    /// The longest length that the sequence may have, in tokens.
    pub fn context_length(&self) -> usize {
        match &self.place {
            Place::Local { inner, .. } => inner.context_length(),
            Place::Remote(remote) => remote.served.context_length(),
        }
    }

    /// Adds tokens at the end; the next forward pass computes them.
    ///
    /// # Errors
    /// `invalid-argument` for tokens outside the vocabulary, `limit-exceeded` beyond the context; no token is
    /// added then.
    pub fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        match &mut self.place {
            Place::Local { inner, .. } => Ok(inner.append(tokens)?),
            Place::Remote(remote) => remote.append(tokens),
        }
    }

    /// Computes the tokens appended since the last forward pass, or the last token again if there are none.
    /// Blocks.
    ///
    /// # Errors
    /// `invalid-argument` for an empty sequence, and the error that ended the forward pass early.
    pub fn forward(&mut self, output: Output) -> Result<Forwarded, Error> {
        match &mut self.place {
            Place::Local { inner, .. } => Ok(inner.forward(output)?),
            Place::Remote(remote) => block_on(remote.forward(output)),
        }
    }

    /// Same as [`forward`](Self::forward), for tasks. Dropping the future cancels the forward pass; the
    /// tokens stay appended.
    ///
    /// # Errors
    /// Same as [`forward`](Self::forward).
    pub async fn forward_async(&mut self, output: Output) -> Result<Forwarded, Error> {
        match &mut self.place {
            Place::Local { inner, .. } => Ok(inner.forward_async(output).await?),
            Place::Remote(remote) => remote.forward(output).await,
        }
    }

    /// Creates another sequence with the same tokens. Both share the computed part until they differ.
    ///
    /// # Errors
    /// `internal` if the engine has failed.
    pub fn fork(&self) -> Result<Self, Error> {
        match &self.place {
            Place::Local { inner, model } => {
                inner.tenant().ready_blocking();
                Ok(Self::local(inner.fork()?, model))
            }
            Place::Remote(remote) => Ok(Self { place: Place::Remote(remote.fork()?) }),
        }
    }

    /// Drops the tokens from index `len` on.
    ///
    /// # Errors
    /// `internal` if the engine has failed.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        match &mut self.place {
            Place::Local { inner, .. } => {
                inner.tenant().ready_blocking();
                Ok(inner.truncate(len)?)
            }
            Place::Remote(remote) => remote.truncate(len),
        }
    }

    /// Returns tokens, keys and values as bytes, signed with the realm's
    /// [`snapshot_key`](crate::Builder::snapshot_key), or the server's.
    /// [`Model::restore_sequence`](Model::restore_sequence) restores them with the same model on the
    /// same kind of device. Tokens appended after the last forward pass are not included. Blocks.
    ///
    /// # Errors
    /// `internal` if the device could not be read.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        match &self.place {
            Place::Local { inner, .. } => Ok(inner.save()?),
            Place::Remote(remote) => block_on(remote.served.save()),
        }
    }
}

impl Model {
    /// Creates an empty sequence that the caller drives, one forward pass at a time.
    ///
    /// # Errors
    /// `internal` if the engine has failed. With an [adapter](Self::adapted), `invalid-argument` if it
    /// belongs to another model and `limit-exceeded` if the tenant may not use it.
    pub fn sequence(&self) -> Result<Sequence, Error> {
        match &self.inner {
            Inner::Local(model) => {
                model.tenant.inner.ready_blocking();
                let inner = model.loaded.engine.sequence(&model.tenant.inner, model.engine_adapter()?, 0)?;
                Ok(Sequence::local(inner, &model.loaded))
            }
            Inner::Remote(model) => model.sequence(None),
        }
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
        match &self.inner {
            Inner::Local(model) => {
                model.tenant.inner.ready_blocking();
                let inner =
                    model.loaded.engine.restore(&model.tenant.inner, model.engine_adapter()?, bytes)?;
                Ok(Sequence::local(inner, &model.loaded))
            }
            Inner::Remote(model) => model.sequence(Some(Saved { bytes: bytes.to_vec(), foreign: false })),
        }
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
        match &self.inner {
            Inner::Local(model) => {
                model.tenant.inner.ready_blocking();
                let adapter = model.engine_adapter()?;
                let inner = model.loaded.engine.restore_foreign(&model.tenant.inner, adapter, bytes)?;
                Ok(Sequence::local(inner, &model.loaded))
            }
            Inner::Remote(model) => model.sequence(Some(Saved { bytes: bytes.to_vec(), foreign: true })),
        }
    }
}

impl RemoteModel {
    fn sequence(&self, saved: Option<Saved>) -> Result<Sequence, Error> {
        let (served, tokens) = block_on(self.served.sequence(&self.adapter, saved))?;
        let (told, vocabulary) = (tokens.len(), self.served.info().vocabulary);
        Ok(Sequence { place: Place::Remote(Remote { served, tokens, told, vocabulary }) })
    }
}
