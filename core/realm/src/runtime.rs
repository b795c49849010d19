//! The runtime: devices, models, tenants and the model cache on disk.

use std::sync::Arc;

use realm_engine::SnapshotKey;
use realm_handover::block_on;
use realm_hub::{Hub, Reference};
use realm_tokenizer::Tokenizer;

use crate::commons::Commons;
use crate::device::Device;
use crate::error::ErrorCode;
use crate::identity::Identity;
use crate::load::{self, Source};
use crate::model::Inner;
use crate::remote::{RemoteModel, Server, refuse_options};
use crate::tenant::Home;
use crate::{Error, Limits, LoadOptions, Model, Progress, Tenant, metrics, unblock};

/// Owns the devices and loads models. A clone is cheap and is the same runtime. May also stand for a server.
#[derive(Clone)]
pub struct Realm {
    hub: Hub,
    place: Place,
}

/// The party that computes.
#[derive(Clone)]
#[cfg_attr(not(feature = "remote"), allow(dead_code, reason = "no server is ever connected to"))]
enum Place {
    Local(Local),
    Remote(Arc<dyn Server>),
}

/// A runtime of this process.
#[derive(Clone)]
pub(crate) struct Local {
    device: Device,
    /// The tenant of requests that name no tenant.
    default_tenant: Arc<Identity>,
    /// Signs the sequences of all models that this runtime loads.
    snapshot_key: SnapshotKey,
    pub(crate) commons: Arc<Commons>,
}

/// The options of a [`Realm`], before it starts.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    threads: Option<usize>,
    device: Option<String>,
    cache: Option<std::path::PathBuf>,
    snapshot_key: Option<Result<SnapshotKey, realm_engine::Error>>,
}

impl Builder {
    /// The number of threads that compute, from 1 to 1024. The default is one for each core that the process
    /// may use, by its affinity and its control groups. More threads than cores would make every step many
    /// times slower: a larger number is lowered to the number of cores, with a warning in the log.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The device that models run on; the default is `"auto"`.
    ///
    /// - `"cpu"`: the CPU.
    /// - `"cuda"`: the first NVIDIA GPU; layers that do not fit there go to the other GPUs and then to the
    ///   CPU.
    /// - `"cuda:1"`: the second NVIDIA GPU.
    /// - `"cuda:0,1"`: the layers are split over these GPUs.
    /// - `"auto"`: as `"cuda"`, or the CPU if there is no GPU that Realm can use.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// The folder that keeps fetched models; the default is the user's cache folder.
    pub fn cache_folder(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// The key that signs saved sequences: at least 32 random bytes, to be kept secret. Realms with the same
    /// key restore each other's sequences, so with a key sequences outlive the process. The default is a new
    /// random key for each realm: every other realm then treats the sequences as foreign
    /// ([`Model::restore_foreign_sequence`]).
    pub fn snapshot_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.snapshot_key = Some(SnapshotKey::new(key.as_ref()));
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// `invalid-argument` unless `threads` is from 1 to 1024, and for a key of fewer than 32 bytes;
    /// `unsupported` for a device that the machine does not have.
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
        let default_tenant = Arc::new(Identity::new("default", Limits::default())?);
        let commons = Arc::new(Commons::new(hub.cache()));
        commons.tenants.add(&default_tenant);
        Ok(Realm { hub, place: Place::Local(Local { device, default_tenant, snapshot_key, commons }) })
    }
}

impl Realm {
    /// Returns a builder with the default options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Connects to a server, `realm serve`, whose models are then used as those of this process are: the URL
    /// is `http://…` or `https://…`, and the key one of the server's; an empty key is none. Requests belong
    /// to the key's tenant, within its limits. [`load_model`](Self::load_model) finds a model by the name
    /// that the server has for it. Blocks until the server has answered.
    ///
    /// What stays at the server is an error here, of the code `unsupported`: options of loading, limits of
    /// tenants, programs, and [logits processors](crate::LogitsProcessor). A connection that breaks ends its
    /// requests; the next call connects again.
    ///
    /// ```no_run
    /// use realm::{Realm, Request};
    ///
    /// let realm = Realm::connect("http://127.0.0.1:8080", "rk_…")?;
    /// let model = realm.load_model("smollm2-135m")?;
    /// println!("{}", model.generate(Request::text("Once upon a time").max_tokens(32))?.text);
    /// # Ok::<(), realm::Error>(())
    /// ```
    ///
    /// # Errors
    /// `invalid-argument` for another kind of URL, `io` if the server can't be reached, `denied` if it does
    /// not know the key.
    #[cfg(feature = "remote")]
    pub fn connect(url: &str, key: &str) -> Result<Self, Error> {
        let server = block_on(crate::grpc::connect(url, key))?;
        let hub = Hub::new().unwrap_or_else(|_| Hub::with_cache(std::env::temp_dir().join("realm")));
        Ok(Self { hub, place: Place::Remote(server) })
    }

    /// Returns the runtime, if this process computes.
    ///
    /// # Errors
    /// `unsupported`, with the thing that a server does instead.
    #[cfg_attr(not(feature = "sandbox"), expect(dead_code, reason = "only programs need it"))]
    pub(crate) fn local(&self, what: &str) -> Result<&Local, Error> {
        match &self.place {
            Place::Local(local) => Ok(local),
            Place::Remote(server) => {
                let url = server.url();
                let why = format!(
                    "{what} is up to the server {url}; put programs there with `realm admin programs put`"
                );
                Err(Error::new(ErrorCode::Unsupported, why))
            }
        }
    }

    /// Returns whether a server computes.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Remote(_))
    }

    /// Loads a model: a path to a GGUF file or to a folder as transformers saves it, a catalog name such as
    /// `smollm2-135m`, `hf:owner/repo/file.gguf`, or `hf:owner/repo` for a repository of safetensors. A model
    /// that is not on disk yet is fetched first. Blocks.
    ///
    /// # Errors
    /// `not-found` for an unknown name, `io` if fetching fails, `invalid-model` or `unsupported` for a file
    /// that Realm cannot run.
    pub fn load_model(&self, model: &str) -> Result<Model, Error> {
        self.load_model_with(model, &LoadOptions::default(), &mut ())
    }

    /// Loads a model as [`load_model`](Self::load_model) does, with options and with progress reports.
    ///
    /// # Errors
    /// Same as [`load_model`](Self::load_model).
    pub fn load_model_with(
        &self,
        model: &str,
        options: &LoadOptions,
        progress: &mut dyn Progress,
    ) -> Result<Model, Error> {
        let local = match &self.place {
            Place::Local(local) => local,
            Place::Remote(server) => {
                refuse_options(options)?;
                let served = block_on(server.model(model.to_owned()))?;
                let tenant = Arc::clone(server.tenant());
                let model = RemoteModel { served, tenant, adapter: None, foreign_program: false };
                return Ok(Model { inner: Inner::Remote(model) });
            }
        };
        let path = self.hub.resolve(&Reference::parse(model)?, progress)?;
        let draft = match &options.draft_model {
            Some(draft) => Some(self.hub.resolve(&Reference::parse(draft)?, progress)?),
            None => None,
        };
        let source = Source { reference: model, path: &path, draft: draft.as_deref() };
        let (loaded, frontend) = load::load(&local.device, source, options, &local.snapshot_key, progress)?;
        let loaded = Arc::new(loaded);
        local.commons.models.add(&loaded);
        Ok(Model::new(loaded, frontend, Arc::clone(&local.default_tenant)))
    }

    /// Loads a model as [`load_model`](Self::load_model) does, for tasks: a thread of its own does the work.
    ///
    /// # Errors
    /// Same as [`load_model`](Self::load_model).
    pub async fn load_model_async(&self, model: &str) -> Result<Model, Error> {
        let (this, model) = (self.clone(), model.to_owned());
        unblock(move || this.load_model(&model)).await
    }

    /// Creates a tenant with limits of its own. [`Tenant::model`] gives it a loaded model. Two tenants of the
    /// same name are still two tenants and share nothing. Of a server it is the tenant of the caller's key,
    /// with the server's limits.
    ///
    /// # Errors
    /// `invalid-argument` for a limit that is out of range. Of a server, `denied` for another tenant than the
    /// key's and `unsupported` for limits.
    pub fn tenant(&self, name: &str, limits: Limits) -> Result<Tenant, Error> {
        match &self.place {
            Place::Local(local) => {
                let identity = Arc::new(Identity::new(name, limits)?);
                local.commons.tenants.add(&identity);
                Ok(Tenant { identity, home: Home::Local(Arc::clone(&local.commons)) })
            }
            Place::Remote(server) => {
                let own = server.tenant().inner.name();
                if name != own {
                    let why = format!("the key is one of the tenant `{own}`; connect with a key of `{name}`");
                    return Err(Error::new(ErrorCode::Denied, why));
                }
                if limits != Limits::default() {
                    let why =
                        format!("the server sets the limits of `{name}`: `realm admin tenants set {name}`");
                    return Err(Error::new(ErrorCode::Unsupported, why));
                }
                let identity = Arc::clone(server.tenant());
                Ok(Tenant { identity, home: Home::Remote(Arc::clone(server)) })
            }
        }
    }

    /// Returns the metrics of all loaded models in the text format that Prometheus and OpenMetrics read
    /// (content type `application/openmetrics-text; version=1.0.0; charset=utf-8`). Series carry the model as
    /// a label and, where they belong to one tenant, its name. A tenant's series end when the tenant is
    /// dropped. `docs/metrics.md` lists all of them. Empty for a server, which serves its own at `/metrics`.
    pub fn prometheus(&self) -> String {
        match &self.place {
            Place::Local(local) => metrics::prometheus(&local.commons),
            Place::Remote(_) => String::new(),
        }
    }

    /// Loads only a model's tokenizer. Blocks.
    ///
    /// # Errors
    /// Same as [`load_model`](Self::load_model).
    pub fn load_tokenizer(&self, model: &str) -> Result<Tokenizer, Error> {
        if let Place::Remote(server) = &self.place {
            return block_on(server.load_tokenizer(model.to_owned()));
        }
        let path = self.hub.resolve(&Reference::parse(model)?, &mut ())?;
        Ok(load::open(&path)?.1)
    }

    /// Returns whether `self` and `other` are clones of the same runtime.
    pub fn is(&self, other: &Self) -> bool {
        let tenant = |realm: &Self| match &realm.place {
            Place::Local(local) => Arc::as_ptr(&local.default_tenant),
            Place::Remote(server) => Arc::as_ptr(server.tenant()),
        };
        std::ptr::eq(tenant(self), tenant(other))
    }

    /// Returns the hub, which fetches models and keeps them on the disk of this machine.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}
