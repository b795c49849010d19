//! Adapters of a model, loaded while requests run.

use std::path::Path;

use realm_handover::block_on;
use realm_model::AdapterFile;

use crate::error::ErrorCode;
use crate::model::{Inner, LocalModel};
use crate::remote::RemoteModel;
use crate::{Adapter, Error, Model, unblock};

impl Model {
    /// Returns the same model with an adapter, and a factor on what the adapter adds. Generations, scores,
    /// embeddings and sequences are then those of the adapted model. A request that names an adapter gets
    /// that adapter instead.
    pub fn adapted(&self, adapter: &Adapter, scale: f32) -> Self {
        let adapter = Some((adapter.clone(), scale));
        match &self.inner {
            Inner::Local(model) => Self::local(LocalModel { adapter, ..model.clone() }),
            Inner::Remote(model) => Self { inner: Inner::Remote(RemoteModel { adapter, ..model.clone() }) },
        }
    }

    /// Loads a LoRA adapter while requests run. The path is a GGUF file, or PEFT's output: a folder with
    /// `adapter_config.json` and `adapter_model.safetensors`, or the latter file. Of a server's model it is
    /// the name that the server has for the adapter: `NAME`, or `OWNER/NAME` if another tenant grants it.
    /// Blocks.
    ///
    /// # Errors
    /// `io` for a file that cannot be read, `invalid-adapter` for one that contradicts itself or does not fit
    /// the model, `unsupported` for kinds of adapters other than plain LoRA.
    pub fn load_adapter(&self, path: impl AsRef<Path>) -> Result<Adapter, Error> {
        let path = path.as_ref();
        let model = match &self.inner {
            Inner::Local(model) => model,
            Inner::Remote(model) => {
                return block_on(model.served.adapter(path.to_string_lossy().into_owned()));
            }
        };
        let invalid = |error: realm_model::Error| match error {
            realm_model::Error::Gguf(realm_gguf::Error::Io { .. }) => Error::from(error),
            realm_model::Error::Gguf(_) | realm_model::Error::Compute(_) => {
                Error::new(ErrorCode::InvalidAdapter, error)
            }
            _ => error.into(),
        };
        let file = AdapterFile::open(path).map_err(invalid)?;
        let weights = model.loaded.weights.adapter(&file).map_err(invalid)?;
        let (rank, bytes) = (file.rank(), weights.bytes());
        let inner = model.loaded.engine.add_adapter(path.to_string_lossy(), weights)?;
        Ok(Adapter::new(inner, rank, bytes))
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
