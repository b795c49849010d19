//! LoRA adapters of a model.

use std::path::Path;

use realm_model::AdapterFile;

use crate::error::ErrorCode;
use crate::{Error, Model, unblock};

/// A LoRA adapter of a [`Model`], for [`Request::adapter`](crate::Request::adapter). A clone is cheap. The
/// adapter is unloaded when the last clone and the last request that uses it are gone.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub(crate) inner: realm_engine::Adapter,
    rank: usize,
    bytes: usize,
}

impl Adapter {
    /// The name that it was loaded by; tenants' limits use this name.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// The largest rank of its matrices.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The size of its matrices, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Model {
    /// Returns the same model with an adapter, and a factor on what the adapter adds. Generations, scores,
    /// embeddings and sequences are then those of the adapted model. A request that names an adapter gets
    /// that adapter instead.
    pub fn adapted(&self, adapter: &Adapter, scale: f32) -> Self {
        Self { adapter: Some((adapter.inner.clone(), scale)), ..self.clone() }
    }

    /// Loads a LoRA adapter while requests run. The path is a GGUF file, or PEFT's output: a folder with
    /// `adapter_config.json` and `adapter_model.safetensors`, or the latter file. Blocks.
    ///
    /// # Errors
    /// `io` for a file that cannot be read, `invalid-adapter` for one that contradicts itself or does not fit
    /// the model, `unsupported` for kinds of adapters other than plain LoRA.
    pub fn load_adapter(&self, path: impl AsRef<Path>) -> Result<Adapter, Error> {
        let path = path.as_ref();
        let invalid = |error: realm_model::Error| match error {
            realm_model::Error::Gguf(realm_gguf::Error::Io { .. }) => Error::from(error),
            realm_model::Error::Gguf(_) | realm_model::Error::Compute(_) => {
                Error::new(ErrorCode::InvalidAdapter, error)
            }
            _ => error.into(),
        };
        let file = AdapterFile::open(path).map_err(invalid)?;
        let weights = self.loaded.weights.adapter(&file).map_err(invalid)?;
        let (rank, bytes) = (file.rank(), weights.bytes());
        let inner = self.loaded.engine.add_adapter(path.to_string_lossy(), weights)?;
        Ok(Adapter { inner, rank, bytes })
    }

    /// Same as [`load_adapter`](Self::load_adapter), for tasks: a thread of its own does the work.
    ///
    /// # Errors
    /// Same as [`load_adapter`](Self::load_adapter).
    pub async fn load_adapter_async(&self, path: impl AsRef<Path>) -> Result<Adapter, Error> {
        let (this, path) = (self.clone(), path.as_ref().to_owned());
        unblock(move || this.load_adapter(path)).await
    }
}
