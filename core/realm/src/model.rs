//! Loaded models.

use std::sync::Arc;

use realm_engine::{LoadedModel, Metrics};
use realm_tokenizer::Tokenizer;

use crate::frontend::Frontend;
use crate::identity::Identity;
use crate::remote::RemoteModel;
use crate::{Adapter, Error, ModelInfo};

/// A loaded model, as one tenant sees it. A clone is cheap and is the same model. The weights are freed when
/// the last clone and the last generation have been dropped.
///
/// The model may be one of a server, of a realm that [`Realm::connect`](crate::Realm) made.
#[derive(Clone)]
pub struct Model {
    pub(crate) inner: Inner,
}

/// The party that computes.
#[derive(Clone)]
pub(crate) enum Inner {
    /// This process.
    Local(LocalModel),
    /// A server.
    Remote(RemoteModel),
}

/// A model of this process.
#[derive(Clone)]
pub(crate) struct LocalModel {
    pub(crate) loaded: Arc<LoadedModel>,
    pub(crate) frontend: Arc<Frontend>,
    pub(crate) tenant: Arc<Identity>,
    /// The adapter, with its factor, of every request that names no adapter of its own.
    pub(crate) adapter: Option<(Adapter, f32)>,
    /// The program that answers in place of the tenant's.
    #[cfg(feature = "sandbox")]
    pub(crate) program: Option<crate::Program>,
}

impl Model {
    pub(crate) fn new(loaded: Arc<LoadedModel>, frontend: Frontend, tenant: Arc<Identity>) -> Self {
        Self::local(LocalModel {
            loaded,
            frontend: Arc::new(frontend),
            tenant,
            adapter: None,
            #[cfg(feature = "sandbox")]
            program: None,
        })
    }

    pub(crate) fn local(model: LocalModel) -> Self {
        Self { inner: Inner::Local(model) }
    }

    /// Returns whether a server computes.
    pub fn is_remote(&self) -> bool {
        matches!(self.inner, Inner::Remote(_))
    }

    /// The reference that the model was loaded by: a path, a catalog name or an `hf:` reference, or the name
    /// that the server has for it.
    pub fn reference(&self) -> &str {
        match &self.inner {
            Inner::Local(model) => &model.loaded.name,
            Inner::Remote(model) => model.served.name(),
        }
    }

    /// Facts about the model, such as its architecture and its context length.
    pub fn info(&self) -> &ModelInfo {
        match &self.inner {
            Inner::Local(model) => &model.frontend.info,
            Inner::Remote(model) => model.served.info(),
        }
    }

    /// Reads the model's counters and gauges, over all tenants since it was loaded. Those of a server's model
    /// are all 0 here: its `/metrics` has them.
    pub fn metrics(&self) -> Metrics {
        match &self.inner {
            Inner::Local(model) => model.loaded.engine.metrics(),
            Inner::Remote(_) => Metrics::default(),
        }
    }

    /// Encodes `text` into token ids, with the begin token if the model expects one. Control tokens spelled
    /// in the text are encoded as plain text; [`encode_special`](Self::encode_special) can parse them.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer().encode(text, false, true)
    }

    /// Encodes `text` into token ids. With `special`, control tokens spelled in the text become those tokens:
    /// use it only for text that no user wrote. With `boundaries`, the begin and end tokens are added if the
    /// model expects them.
    pub fn encode_special(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.tokenizer().encode(text, special, boundaries)
    }

    /// Decodes `tokens` into text, leaving out control tokens.
    ///
    /// # Errors
    /// `invalid-argument` for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.tokenizer().decode(tokens, false)?)
    }

    /// The tokenizer, for everything beyond `encode` and `decode`. A server's model has its tokenizer here.
    pub fn tokenizer(&self) -> &Tokenizer {
        match &self.inner {
            Inner::Local(model) => &model.loaded.tokenizer,
            Inner::Remote(model) => model.served.tokenizer(),
        }
    }

    /// Returns the tokenizer as the bytes of a GGUF file without tensors and without a chat template. Reads
    /// the model's file.
    ///
    /// # Errors
    /// `io` if the file can't be read any more, `unsupported` for a server's model.
    pub fn tokenizer_file(&self) -> Result<Vec<u8>, Error> {
        crate::load::tokenizer_file(&self.as_local("its tokenizer's file")?.frontend.path)
    }

    /// Returns the model, if this process computes it.
    ///
    /// # Errors
    /// `unsupported`, with the thing that a server's model does not have.
    pub(crate) fn as_local(&self, lacks: &str) -> Result<&LocalModel, Error> {
        match &self.inner {
            Inner::Local(model) => Ok(model),
            Inner::Remote(model) => Err(model.lacks(lacks)),
        }
    }

    /// The identity that requests belong to.
    pub(crate) fn tenant(&self) -> &Arc<Identity> {
        match &self.inner {
            Inner::Local(model) => &model.tenant,
            Inner::Remote(model) => &model.tenant,
        }
    }

    /// Keeps the engine of a model of this process running.
    pub(crate) fn engine(&self) -> Option<Arc<LoadedModel>> {
        match &self.inner {
            Inner::Local(model) => Some(Arc::clone(&model.loaded)),
            Inner::Remote(_) => None,
        }
    }

    /// Returns whether a program answers requests. A server does not say.
    pub(crate) fn has_program(&self) -> bool {
        match &self.inner {
            Inner::Local(model) => model.has_program(),
            Inner::Remote(_) => false,
        }
    }

    /// Returns the longest sequence that the tenant may have, in tokens.
    pub(crate) fn context_of_tenant(&self) -> usize {
        let context = self.info().context_length;
        self.tenant().inner.limits().kv_tokens.map_or(context, |tokens| tokens.min(context))
    }
}

impl LocalModel {
    /// Returns the same model for another tenant.
    pub(crate) fn seen_by(&self, tenant: &Arc<Identity>) -> Self {
        self.loaded.engine.reserve_parts(&tenant.inner);
        Self { tenant: Arc::clone(tenant), ..self.clone() }
    }

    fn has_program(&self) -> bool {
        #[cfg(feature = "sandbox")]
        if self.program.is_some() {
            return true;
        }
        self.tenant.programs.answer()
    }

    /// Returns the longest sequence that the tenant may have, in tokens.
    pub(crate) fn context_of_tenant(&self) -> usize {
        let context = self.frontend.info.context_length;
        self.tenant.inner.limits().kv_tokens.map_or(context, |tokens| tokens.min(context))
    }

    /// Returns the model's own adapter, for the engine.
    pub(crate) fn engine_adapter(&self) -> Result<Option<(realm_engine::Adapter, f32)>, Error> {
        let own = |(adapter, scale): &(Adapter, f32)| Ok((adapter.of_engine()?.clone(), *scale));
        self.adapter.as_ref().map(own).transpose()
    }
}
