//! The runtime, and loading models.

use std::path::PathBuf;
use std::sync::Arc;

use realm::{hub, unblock};

use crate::callback::ProgressObserver;
use crate::error::{RealmError, Result};
use crate::model::Model;
use crate::request::Speculation;
use crate::tenant::{Limits, Program, Tenant};

/// How the KV cache holds a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum CacheType {
    /// 32-bit floats: exact, twice the memory.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers with a common factor for each 32.
    Q8,
}

/// How a model is loaded.
#[derive(Debug, Clone, uniffi::Record)]
pub struct LoadOptions {
    /// Tokens that the KV cache holds over all requests; nil for what fits in `kvMemory`.
    #[uniffi(default = None)]
    pub kv_tokens: Option<u64>,
    /// Tokens that one request may have, prompt and generation together; nil for what the model was trained for, or less where the
    /// KV cache holds less. With more, texts get worse from there on.
    #[uniffi(default = None)]
    pub context_length: Option<u64>,
    /// Bytes of the KV cache; nil for a part of the memory that is free.
    #[uniffi(default = None)]
    pub kv_memory: Option<u64>,
    /// How the KV cache holds numbers; nil for 32-bit floats on the CPU.
    #[uniffi(default = None)]
    pub cache_type: Option<CacheType>,
    /// A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml` or `llama3`.
    #[uniffi(default = None)]
    pub chat_template: Option<String>,
    /// Where drafts come from, for requests that do not say.
    #[uniffi(default = None)]
    pub speculation: Option<Speculation>,
    /// A smaller model of the same vocabulary that drafts for this one.
    #[uniffi(default = None)]
    pub draft_model: Option<String>,
    /// Requests that may wait over all tenants, nil for 4096; one more is refused as `overloaded`.
    #[uniffi(default = None)]
    pub max_queued: Option<u64>,
    /// Layers that GPUs compute: so many of the last ones and the output, and the CPU those before; nil for as many as fit beside
    /// a KV cache. Means nothing where there is no GPU.
    #[uniffi(default = None)]
    pub gpu_layers: Option<u64>,
}

impl From<LoadOptions> for realm::LoadOptions {
    fn from(options: LoadOptions) -> Self {
        Self {
            kv_tokens: options.kv_tokens.map(|tokens| tokens as usize),
            context_length: options.context_length.map(|tokens| tokens as usize),
            kv_memory: options.kv_memory,
            cache_type: options.cache_type.map(|cache_type| match cache_type {
                CacheType::F32 => realm::CacheType::F32,
                CacheType::F16 => realm::CacheType::F16,
                CacheType::Q8 => realm::CacheType::Q8_0,
            }),
            chat_template: options.chat_template,
            speculation: options.speculation.map(Into::into).unwrap_or_default(),
            draft_model: options.draft_model,
            max_queued: options.max_queued.map(|requests| requests as usize),
            gpu_layers: options.gpu_layers.map(|layers| layers as usize),
        }
    }
}

/// What the cache folder has of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ModelState {
    /// Nothing.
    Absent,
    /// So many bytes; the next pull goes on from them.
    Partial(u64),
    /// The whole file, so many bytes.
    Present(u64),
}

/// A model that the catalog or the cache folder has.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ModelEntry {
    /// Names it for `Realm.loadModel`.
    pub reference: String,
    /// Where its file is, or will be.
    pub path: String,
    /// What is there.
    pub state: ModelState,
}

/// A kind of tensor in a file.
#[derive(Debug, Clone, uniffi::Record)]
pub struct TensorType {
    /// Such as `Q4_K`.
    pub name: String,
    /// Tensors of the type.
    pub count: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

/// What a model's file says about itself.
#[derive(Debug, Clone, uniffi::Record)]
pub struct FileInfo {
    /// `general.name`.
    pub name: Option<String>,
    /// Such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Transformer layers.
    pub layers: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
    /// Tokens that the model was trained for.
    pub trained_context_length: u64,
    /// Whether it has a chat template.
    pub chat_template: bool,
    /// Kinds of tensors, the one with the most bytes first.
    pub tensor_types: Vec<TensorType>,
}

/// Reads a GGUF file's header without loading the file. Throws `Io`, and `InvalidModel` or `Unsupported` for files that Realm can't
/// run.
#[uniffi::export]
pub fn inspect(path: String) -> Result<FileInfo> {
    let info = realm::inspect(&PathBuf::from(path))?;
    let types = info.tensor_types.into_iter();
    Ok(FileInfo {
        name: info.name,
        architecture: info.architecture,
        parameters: info.parameters,
        layers: info.layers as u64,
        vocabulary: info.vocabulary as u64,
        trained_context_length: info.trained_context_length as u64,
        chat_template: info.chat_template,
        tensor_types: types
            .map(|(name, count, bytes)| TensorType { name, count: count as u64, bytes })
            .collect(),
    })
}

/// The runtime: owns the devices and loads models. One per process is normal.
#[derive(uniffi::Object)]
pub struct Realm(realm::Realm);

fn observer(
    observer: Option<Arc<dyn ProgressObserver>>,
) -> realm::OnProgress<impl FnMut(realm::ProgressEvent)> {
    realm::OnProgress(move |event: realm::ProgressEvent| {
        if let Some(observer) = &observer {
            observer.progressed(event.into());
        }
    })
}

#[uniffi::export]
impl Realm {
    /// Starts a runtime. `threads` compute, nil stands for one for each core. `device` is `cpu`, `cuda`, `cuda:1` and so on or `auto`:
    /// the first NVIDIA GPU that Realm can use and otherwise the CPU. `cacheFolder` is where fetched models are kept; nil is the user's
    /// cache folder. `snapshotKey` is what saved sequences are signed with, at least 32 random bytes to be kept secret: realms of one key
    /// restore each other's; nil is a key of this realm's own. Throws `InvalidArgument` for no threads and for a shorter key, `Unsupported` for a device that is not there.
    #[uniffi::constructor(default(threads = None, device = "auto", cache_folder = None, snapshot_key = None))]
    pub fn new(
        threads: Option<u64>,
        device: String,
        cache_folder: Option<String>,
        snapshot_key: Option<Vec<u8>>,
    ) -> Result<Arc<Self>> {
        let mut builder = realm::Realm::builder().device(device);
        if let Some(threads) = threads {
            builder = builder.threads(threads as usize);
        }
        if let Some(folder) = cache_folder {
            builder = builder.cache_folder(folder);
        }
        if let Some(key) = snapshot_key {
            builder = builder.snapshot_key(key);
        }
        Ok(Arc::new(Self(builder.build()?)))
    }

    /// Loads a model: a path to a GGUF file, a catalog name such as `smollm2-135m`, or `hf:owner/repo/file.gguf`. What is not there yet
    /// is fetched. Throws `NotFound` for a name that is none, `Io` where fetching fails, `InvalidModel` and `Unsupported` for files
    /// that Realm can't run.
    #[uniffi::method(name = "load", default(options = None, progress = None))]
    pub async fn load_model(
        self: Arc<Self>,
        model: String,
        options: Option<LoadOptions>,
        progress: Option<Arc<dyn ProgressObserver>>,
    ) -> Result<Arc<Model>> {
        let realm = self.0.clone();
        let options = options.map(Into::into).unwrap_or_default();
        let work = move || realm.load_model_with(&model, &options, &mut observer(progress));
        Ok(Arc::new(Model(unblock(work).await?)))
    }

    /// Fetches a model without loading it, unless it is there, and returns its file's path. Throws as loading does.
    #[uniffi::method(name = "fetch", default(progress = None))]
    pub async fn pull(
        self: Arc<Self>,
        model: String,
        progress: Option<Arc<dyn ProgressObserver>>,
    ) -> Result<String> {
        let realm = self.0.clone();
        let work = move || {
            let reference = hub::Reference::parse(&model)?;
            Ok(realm.hub().pull(&reference, &mut observer(progress))?)
        };
        Ok(unblock(work).await?.to_string_lossy().into_owned())
    }

    /// Deletes what the cache folder has of a model; returns how many bytes that freed. Throws `InvalidArgument` for a path, `Io`.
    pub fn remove(&self, model: &str) -> Result<u64> {
        let reference = hub::Reference::parse(model).map_err(realm::Error::from)?;
        Ok(self.0.hub().remove(&reference).map_err(realm::Error::from)?)
    }

    /// The models that the catalog and the cache folder have. Throws `Io` where the folder can't be read.
    pub fn models(&self) -> Result<Vec<ModelEntry>> {
        let entry = |status: hub::Status| ModelEntry {
            reference: status.reference.to_string(),
            path: status.path.to_string_lossy().into_owned(),
            state: match status.state {
                hub::State::Absent => ModelState::Absent,
                hub::State::Partial(bytes) => ModelState::Partial(bytes),
                hub::State::Present(bytes) => ModelState::Present(bytes),
            },
        };
        Ok(self.0.hub().list().map_err(realm::Error::from)?.into_iter().map(entry).collect())
    }

    /// Loads a model's tokenizer alone. Throws as loading a model does.
    pub async fn load_tokenizer(self: Arc<Self>, model: String) -> Result<Arc<Tokenizer>> {
        let realm = self.0.clone();
        let tokenizer = unblock(move || realm.load_tokenizer(&model)).await?;
        Ok(Arc::new(Tokenizer::Alone(Box::new(tokenizer))))
    }

    /// A tenant with limits of its own. Tenants of the same name share nothing. Throws `InvalidArgument` for limits that mean nothing.
    #[uniffi::method(default(limits = None))]
    pub fn tenant(&self, name: &str, limits: Option<Limits>) -> Result<Arc<Tenant>> {
        let limits = limits.map(Into::into).unwrap_or_default();
        Ok(Arc::new(Tenant(self.0.tenant(name, limits)?)))
    }

    /// Compiles a program from a file: a WebAssembly component, or what a WebAssembly target of `cargo build` makes. Compiled code is
    /// kept in the cache folder. Throws `Io`, `InvalidProgram`.
    pub async fn load_program(self: Arc<Self>, path: String) -> Result<Arc<Program>> {
        let realm = self.0.clone();
        Ok(Arc::new(Program(unblock(move || realm.load_program(path)).await?)))
    }

    /// As `loadProgram`, from bytes.
    pub async fn compile_program(self: Arc<Self>, wasm: Vec<u8>) -> Result<Arc<Program>> {
        let realm = self.0.clone();
        Ok(Arc::new(Program(unblock(move || realm.compile_program(&wasm)).await?)))
    }

    /// What all loaded models have done and how they stand, in the text format that Prometheus reads.
    pub fn prometheus(&self) -> String {
        self.0.prometheus()
    }
}

/// A tokenizer: a model's, or one that was loaded alone.
#[derive(uniffi::Object)]
pub enum Tokenizer {
    /// A model's.
    Of(realm::Model),
    /// One alone.
    Alone(Box<realm::Tokenizer>),
}

impl std::ops::Deref for Tokenizer {
    type Target = realm::Tokenizer;

    fn deref(&self) -> &realm::Tokenizer {
        match self {
            Self::Of(model) => model.tokenizer(),
            Self::Alone(tokenizer) => tokenizer,
        }
    }
}

/// What a tokenizer has.
#[derive(Debug, Clone, uniffi::Record)]
pub struct TokenizerInfo {
    /// Number of tokens.
    pub vocabulary: u64,
    /// The begin-of-sequence token.
    pub bos: Option<u32>,
    /// The end-of-sequence token.
    pub eos: Option<u32>,
    /// Whether the model expects the begin token before a text.
    pub adds_bos: bool,
    /// The tokens that end a generation.
    pub end_tokens: Vec<u32>,
}

#[uniffi::export]
impl Tokenizer {
    /// What it has.
    pub fn info(&self) -> TokenizerInfo {
        TokenizerInfo {
            vocabulary: self.vocabulary_len() as u64,
            bos: self.bos(),
            eos: self.eos(),
            adds_bos: self.adds_bos(),
            end_tokens: self.end_tokens().to_vec(),
        }
    }

    /// Token ids of a text, as `Model.encode`.
    #[uniffi::method(name = "encode", default(special = false, boundaries = true))]
    pub fn encode_text(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        realm::Tokenizer::encode(self, text, special, boundaries)
    }

    /// The bytes that tokens stand for: a part of a text need not be whole characters. With `special`, control tokens are spelled.
    /// Throws `InvalidArgument` for an id outside the vocabulary.
    #[uniffi::method(default(special = false))]
    pub fn bytes(&self, tokens: Vec<u32>, special: bool) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for token in tokens {
            self.push_bytes(token, special, &mut bytes)
                .map_err(|error| RealmError::from(realm::Error::from(error)))?;
        }
        Ok(bytes)
    }

    /// The id of the token that is spelled exactly so, a special one included.
    #[uniffi::method(name = "tokenId")]
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.token_id(text)
    }
}
