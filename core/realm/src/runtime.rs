//! The runtime.

use std::sync::Arc;

use realm_engine::SnapshotKey;
use realm_hub::{Hub, Reference};
use realm_tokenizer::Tokenizer;

use crate::device::Device;
use crate::error::ErrorCode;
use crate::load::{self, LoadOptions, Progress, Source};
use crate::metrics::Models;
use crate::program::Sandboxes;
use crate::tenant::Identity;
use crate::{Error, Limits, Model, Tenant, unblock};

/// Owns the devices and loads models. Cloning it is cheap and shares everything.
#[derive(Clone)]
pub struct Realm {
    device: Device,
    hub: Hub,
    /// The tenant of requests that name none.
    anybody: Arc<Identity>,
    /// Of all models that it loads.
    snapshot_key: SnapshotKey,
    pub(crate) models: Models,
    pub(crate) sandboxes: Sandboxes,
}

/// How a [`Realm`] is built.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    threads: Option<usize>,
    device: Option<String>,
    cache: Option<std::path::PathBuf>,
    snapshot_key: Option<Result<SnapshotKey, realm_engine::Error>>,
}

impl Builder {
    /// Threads that compute; the default is one for each core that this process may use, by its affinity and its control
    /// groups. More than those are no faster but many times slower, so that more are lowered to as many, with a warning in the
    /// log.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Where models run: `"cpu"`, `"cuda"` (the first NVIDIA GPU, and others and the CPU for what does not fit there), `"cuda:1"`
    /// (another one), `"cuda:0,1"` (layers split over these) or `"auto"`, which is the default: as `"cuda"` or, where there is
    /// no GPU that Realm can use, the CPU.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// The folder that fetched models are kept in; the default is the user's cache folder.
    pub fn cache_folder(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// The key that saved sequences are signed with: at least 32 random bytes, to be kept secret. Realms of one key restore each
    /// other's, so that sequences outlive a process. The default is a new key for each realm: what it saved is then foreign to
    /// every other one ([`Model::restore_foreign_sequence`]).
    pub fn snapshot_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.snapshot_key = Some(SnapshotKey::new(key.as_ref()));
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// `invalid-argument` for no threads and for a key of fewer than 32 bytes, `unsupported` for a device that is not there.
    pub fn build(self) -> Result<Realm, Error> {
        let cores = std::thread::available_parallelism().ok().map(usize::from);
        let threads = self.threads.or(cores).unwrap_or(1);
        if !(1..=1024).contains(&threads) {
            let why = format!("threads is {threads}; it must be from 1 to 1024");
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let threads = match cores {
            Some(cores) if threads > cores => {
                tracing::warn!(
                    "{threads} threads are asked for and this process may use {cores} cores: {cores} threads compute, since \
                     more threads than cores make every step many times slower"
                );
                cores
            }
            _ => threads,
        };
        let snapshot_key = self.snapshot_key.unwrap_or_else(SnapshotKey::random)?;
        let device = Device::open(self.device.as_deref().unwrap_or("auto"), threads)?;
        let hub = match self.cache {
            Some(folder) => Hub::with_cache(folder),
            None => Hub::new()?,
        };
        let anybody = Arc::new(Identity::new("default", Limits::default())?);
        let (models, sandboxes) = (Models::default(), Sandboxes::new(hub.cache()));
        models.add_tenant(&anybody);
        Ok(Realm { device, hub, anybody, snapshot_key, models, sandboxes })
    }
}

impl Realm {
    /// Starts to build a runtime.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Loads a model: a path to a GGUF file, a catalog name such as `smollm2-135m`, or
    /// `hf:owner/repo/file.gguf`. What is not there yet is fetched. Blocks.
    ///
    /// # Errors
    /// `not-found` for a name that is none, `io` where fetching fails, `invalid-model` and `unsupported` for
    /// files that Realm can't run.
    pub fn load_model(&self, model: &str) -> Result<Model, Error> {
        self.load_model_with(model, &LoadOptions::default(), &mut ())
    }

    /// As [`load_model`](Self::load_model), with options and progress.
    ///
    /// # Errors
    /// As above.
    pub fn load_model_with(
        &self,
        model: &str,
        options: &LoadOptions,
        progress: &mut dyn Progress,
    ) -> Result<Model, Error> {
        let path = self.hub.resolve(&Reference::parse(model)?, progress)?;
        let draft = match &options.draft_model {
            Some(draft) => Some(self.hub.resolve(&Reference::parse(draft)?, progress)?),
            None => None,
        };
        let source = Source { reference: model, path: &path, draft: draft.as_deref() };
        let shared = load::load(&self.device, source, options, &self.snapshot_key, progress)?;
        let shared = Arc::new(shared);
        self.models.add(&shared);
        Ok(Model::new(shared, Arc::clone(&self.anybody)))
    }

    /// As [`load_model`](Self::load_model), for tasks: a thread of its own does the work.
    ///
    /// # Errors
    /// As above.
    pub async fn load_model_async(&self, model: &str) -> Result<Model, Error> {
        let (this, model) = (self.clone(), model.to_owned());
        unblock(move || this.load_model(&model)).await
    }

    /// A tenant with limits of its own: [`Tenant::model`] gives it a loaded model. Tenants of the same name share nothing.
    ///
    /// # Errors
    /// `invalid-argument` for limits that mean nothing.
    pub fn tenant(&self, name: &str, limits: Limits) -> Result<Tenant, Error> {
        Tenant::new(name, limits, self.models.clone(), self.sandboxes.clone())
    }

    /// What all loaded models have done and how they stand, in the text format that Prometheus and OpenMetrics read
    /// (content type `application/openmetrics-text; version=1.0.0; charset=utf-8`). Series are labelled with the model and, where
    /// they are one tenant's, with its name; a tenant's go when it is gone. `docs/metrics.md` lists them.
    pub fn prometheus(&self) -> String {
        self.models.prometheus()
    }

    /// Loads a model's tokenizer alone. Blocks.
    ///
    /// # Errors
    /// As [`load_model`](Self::load_model).
    pub fn load_tokenizer(&self, model: &str) -> Result<Tokenizer, Error> {
        let path = self.hub.resolve(&Reference::parse(model)?, &mut ())?;
        Ok(load::open(&path)?.1)
    }

    /// Whether this is a clone of `other`: one runtime, and not two.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.anybody, &other.anybody)
    }

    /// Where models come from and are kept.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}
