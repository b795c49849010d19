//! Loaded models.

use std::sync::Arc;

use realm_engine::{LoadedModel, Metrics};
use realm_tokenizer::Tokenizer;

use crate::frontend::Frontend;
use crate::identity::Identity;
use crate::{Error, ModelInfo};

/// A loaded model, as one tenant sees it. A clone is cheap and is the same model. The weights are freed when
/// the last clone and the last generation have been dropped.
#[derive(Clone)]
pub struct Model {
    pub(crate) loaded: Arc<LoadedModel>,
    pub(crate) frontend: Arc<Frontend>,
    pub(crate) tenant: Arc<Identity>,
    /// The adapter, with its factor, of every request that names no adapter of its own.
    pub(crate) adapter: Option<(realm_engine::Adapter, f32)>,
    /// The program that answers in place of the tenant's.
    #[cfg(feature = "sandbox")]
    pub(crate) program: Option<crate::Program>,
}

impl Model {
    pub(crate) fn new(loaded: Arc<LoadedModel>, frontend: Frontend, tenant: Arc<Identity>) -> Self {
        Self {
            loaded,
            frontend: Arc::new(frontend),
            tenant,
            adapter: None,
            #[cfg(feature = "sandbox")]
            program: None,
        }
    }

    /// Returns the same model for another tenant.
    pub(crate) fn seen_by(&self, tenant: &Arc<Identity>) -> Self {
        self.loaded.engine.reserve_parts(&tenant.inner);
        Self { tenant: Arc::clone(tenant), ..self.clone() }
    }

    /// The reference that the model was loaded by: a path, a catalog name or an `hf:` reference.
    pub fn reference(&self) -> &str {
        &self.loaded.name
    }

    /// Facts about the model, such as its architecture and its context length.
    pub fn info(&self) -> &ModelInfo {
        &self.frontend.info
    }

    /// Reads the model's counters and gauges, over all tenants since it was loaded.
    pub fn metrics(&self) -> Metrics {
        self.loaded.engine.metrics()
    }

    /// Encodes `text` into token ids, with the begin token if the model expects one. Control tokens spelled
    /// in the text are encoded as plain text; [`encode_special`](Self::encode_special) can parse them.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.loaded.tokenizer.encode(text, false, true)
    }

    /// Encodes `text` into token ids. With `special`, control tokens spelled in the text become those tokens:
    /// use it only for text that no user wrote. With `boundaries`, the begin and end tokens are added if the
    /// model expects them.
    pub fn encode_special(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        self.loaded.tokenizer.encode(text, special, boundaries)
    }

    /// Decodes `tokens` into text, leaving out control tokens.
    ///
    /// # Errors
    /// `invalid-argument` for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.loaded.tokenizer.decode(tokens, false)?)
    }

    /// The tokenizer, for everything beyond `encode` and `decode`.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.loaded.tokenizer
    }

    /// Returns whether a program answers requests.
    pub(crate) fn has_program(&self) -> bool {
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
}
