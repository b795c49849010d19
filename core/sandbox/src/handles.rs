//! The values behind the handles that programs hold.

#![allow(unreachable_pub, reason = "generated bindings re-export what handles are")]

use std::sync::Arc;

use realm_engine::{Guide, LayerwiseSession, LoadedModel, TextStream, TokenMask};
use realm_model::{ActivationId, CacheId};

use crate::Error;
use crate::budget::Charge;

/// The value behind a handle of a model.
pub struct Model(pub(crate) Arc<LoadedModel>);

/// The value behind a handle of a text decoder.
pub struct TextDecoder {
    pub(crate) stream: TextStream,
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) _charge: Charge,
}

/// The value behind a handle of logits.
pub struct Logits {
    pub(crate) inner: realm_engine::Logits,
    pub(crate) charge: Charge,
}

/// The value behind a handle of a token set.
pub struct TokenSet {
    pub(crate) tokens: TokenMask,
    pub(crate) _charge: Charge,
}

/// The value behind a handle of a sampler.
pub struct Sampler {
    pub(crate) inner: realm_engine::Sampler,
    pub(crate) vocabulary: usize,
    /// The bytes of the charge besides those that the sampler has grown to.
    pub(crate) given: usize,
    pub(crate) charge: Charge,
}

impl Sampler {
    /// Charges for the sampler's growth.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        self.charge.grow_to(self.given + self.inner.memory())
    }

    /// Lets the sampler choose or record a token; refuses if its memory cannot be charged for.
    pub(crate) fn act<T>(&mut self, act: impl FnOnce(&mut realm_engine::Sampler) -> T) -> Result<T, Error> {
        self.settle()?;
        let result = act(&mut self.inner);
        self.settle().inspect_err(|_| self.inner.shed())?;
        Ok(result)
    }
}

/// The value behind a handle of a grammar's matcher.
pub struct Matcher {
    pub(crate) guide: Guide,
    pub(crate) vocabulary: usize,
    pub(crate) charge: Charge,
}

impl Matcher {
    /// Returns the guide, if its memory can be charged for: it grows with the text that it has read.
    pub(crate) fn guide(&mut self) -> Result<&mut Guide, Error> {
        self.charge.grow_to(size_of::<Self>() + self.guide.memory())?;
        Ok(&mut self.guide)
    }
}

/// The value behind a handle of a sequence.
pub struct Sequence {
    pub(crate) inner: realm_engine::Sequence,
    /// The number of tokens that the last forward pass had computed.
    pub(crate) computed: usize,
    /// Keeps the model's engine running.
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) _charge: Charge,
}

/// A model's layerwise operations, for one program.
pub(crate) struct Layerwise {
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) session: LayerwiseSession,
}

/// The value behind a handle of a tensor.
pub struct Tensor {
    pub(crate) layerwise: Arc<Layerwise>,
    pub(crate) id: ActivationId,
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) _charge: Charge,
}

/// The value behind a handle of a cache.
pub struct KvCache {
    pub(crate) layerwise: Arc<Layerwise>,
    pub(crate) id: CacheId,
    pub(crate) tokens: usize,
    /// The number of tokens of each layer.
    pub(crate) lens: Vec<usize>,
    pub(crate) _charge: Charge,
}

/// The value behind a handle of a layer.
pub struct Layer {
    pub(crate) layerwise: Arc<Layerwise>,
    pub(crate) index: usize,
}

impl Drop for Tensor {
    fn drop(&mut self) {
        let id = self.id;
        // A stopped engine has already freed the tensor.
        let _ = self.layerwise.session.start(move |pass, slice| pass.free(slice, id));
    }
}

impl Drop for KvCache {
    fn drop(&mut self) {
        let id = self.id;
        // A stopped engine has already freed the cache.
        let _ = self.layerwise.session.start(move |pass, slice| pass.free_cache(slice, id));
    }
}
