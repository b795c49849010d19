//! The runtime, and loading models.

use std::path::PathBuf;
use std::sync::Arc;

use realm::{hub, unblock};

use crate::callback::ProgressObserver;
use crate::error::{RealmError, Result};
use crate::model::Model;
use crate::request::Speculation;
use crate::tenant::{Limits, Program, Tenant};

/// The number format of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum CacheType {
    /// 32-bit floats: exact, twice the memory.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers with a common factor for each 32.
    Q8,
}

/// The options of loading a model.
#[derive(Debug, Clone, uniffi::Record)]
pub struct LoadOptions {
    /// The number of tokens that the KV cache holds, over all requests; nil for what fits in `kvMemory`.
    #[uniffi(default = None)]
    pub kv_tokens: Option<u64>,
    /// The longest context of one request, prompt and generation together, in tokens. Nil for the length that
    /// the model was trained for, or less if the KV cache holds less. Beyond the trained length texts get
    /// worse.
    #[uniffi(default = None)]
    pub context_length: Option<u64>,
    /// The size of the KV cache, in bytes. Nil on the CPU for a quarter of the free memory, at most 8 GiB,
    /// and on a GPU for four fifths of the memory that the weights leave free.
    #[uniffi(default = None)]
    pub kv_memory: Option<u64>,
    /// The number format of the KV cache; nil for 32-bit floats on the CPU and 16-bit floats on a GPU.
    #[uniffi(default = None)]
    pub cache_type: Option<CacheType>,
    /// A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml`
    /// or `llama3`.
    #[uniffi(default = None)]
    pub chat_template: Option<String>,
    /// The source of drafts for requests that name none.
    #[uniffi(default = None)]
    pub speculation: Option<Speculation>,
    /// A smaller model with the same vocabulary that drafts for this one.
    #[uniffi(default = None)]
    pub draft_model: Option<String>,
    /// The most requests that may wait, over all tenants; nil for 4096. One more is refused as `overloaded`.
    #[uniffi(default = None)]
    pub max_queued: Option<u64>,
    /// The number of layers on GPUs, counted from the last one; the output layer is on a GPU too, and the CPU
    /// computes the layers before. Nil for as many as fit beside a KV cache. Has no effect without a GPU.
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

/// The state of a model in the cache folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ModelState {
    /// The model is not there.
    Absent,
    /// A part is there, with the given number of bytes; the next pull continues it.
    Partial(u64),
    /// The whole file is there, with the given number of bytes.
    Present(u64),
}

/// A model of the catalog or of the cache folder.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ModelEntry {
    /// The model's name for `Realm.loadModel`.
    pub reference: String,
    /// The path of its file, which may not exist yet.
    pub path: String,
    /// The state of the file.
    pub state: ModelState,
}

/// A type of tensors in a file.
#[derive(Debug, Clone, uniffi::Record)]
pub struct TensorType {
    /// The name, such as `Q4_K`.
    pub name: String,
    /// The number of tensors of the type.
    pub count: u64,
    /// The bytes that they take.
    pub bytes: u64,
}

/// Facts from the header of a model's file.
#[derive(Debug, Clone, uniffi::Record)]
pub struct FileInfo {
    /// The name in the file, `general.name`.
    pub name: Option<String>,
    /// The architecture, such as `llama`.
    pub architecture: String,
    /// The number of weights.
    pub parameters: u64,
    /// The number of transformer layers.
    pub layers: u64,
    /// The size of the vocabulary, in tokens.
    pub vocabulary: u64,
    /// The longest context that the model was trained for, in tokens.
    pub trained_context_length: u64,
    /// True if the file has a chat template.
    pub chat_template: bool,
    /// The types of tensors, the one with the most bytes first.
    pub tensor_types: Vec<TensorType>,
}

/// Reads a GGUF file's header without loading the file. Throws `Io`, and `InvalidModel` or `Unsupported` for
/// a file that Realm cannot run.
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

/// The runtime: owns the devices and loads models. One for each process is normal.
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
    /// Starts a runtime. `threads` threads compute; nil means one for each core. `device` is `cpu`, `cuda`,
    /// `cuda:1` and so on, or `auto`: the first NVIDIA GPU, with other GPUs and the CPU for layers that do
    /// not fit there, or the CPU if there is no GPU that Realm can use. `cacheFolder` is the folder of
    /// fetched models; nil means the user's cache folder. `snapshotKey` signs saved sequences: at least 32
    /// random bytes, to be kept secret. Realms with the same key restore each other's sequences; nil means a
    /// key of this realm's own. Throws `InvalidArgument` for no threads and for a shorter key, `Unsupported`
    /// for a device that the machine does not have.
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

    /// Loads a model: a path to a GGUF file, a catalog name such as `smollm2-135m`, or
    /// `hf:owner/repo/file.gguf`. A model that is not on disk yet is fetched first. Throws `NotFound` for an
    /// unknown name, `Io` if fetching fails, `InvalidModel` or `Unsupported` for a file that Realm cannot
    /// run.
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

    /// Fetches a model, unless it is on disk, without loading it. Returns its file's path. Throws the same
    /// errors as loading.
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

    /// Deletes a model's files from the cache folder; returns the number of freed bytes. Throws
    /// `InvalidArgument` for a path, `Io`.
    pub fn remove(&self, model: &str) -> Result<u64> {
        let reference = hub::Reference::parse(model).map_err(realm::Error::from)?;
        Ok(self.0.hub().remove(&reference).map_err(realm::Error::from)?)
    }

    /// Lists the models of the catalog and of the cache folder. Throws `Io` if the folder cannot be read.
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

    /// Loads only a model's tokenizer. Throws the same errors as loading a model.
    pub async fn load_tokenizer(self: Arc<Self>, model: String) -> Result<Arc<Tokenizer>> {
        let realm = self.0.clone();
        let tokenizer = unblock(move || realm.load_tokenizer(&model)).await?;
        Ok(Arc::new(Tokenizer::Alone(Box::new(tokenizer))))
    }

    /// Creates a tenant with limits of its own. Two tenants of the same name share nothing. Throws
    /// `InvalidArgument` for a limit that is out of range.
    #[uniffi::method(default(limits = None))]
    pub fn tenant(&self, name: &str, limits: Option<Limits>) -> Result<Arc<Tenant>> {
        let limits = limits.map(Into::into).unwrap_or_default();
        Ok(Arc::new(Tenant(self.0.tenant(name, limits)?)))
    }

    /// Compiles a program from a file: a WebAssembly component, or a core module from a WebAssembly target of
    /// `cargo build`. Compiled code is kept in the cache folder. Throws `Io`, `InvalidProgram`.
    pub async fn load_program(self: Arc<Self>, path: String) -> Result<Arc<Program>> {
        let realm = self.0.clone();
        Ok(Arc::new(Program(unblock(move || realm.load_program(path)).await?)))
    }

    /// Same as `loadProgram`, from bytes.
    pub async fn compile_program(self: Arc<Self>, wasm: Vec<u8>) -> Result<Arc<Program>> {
        let realm = self.0.clone();
        Ok(Arc::new(Program(unblock(move || realm.compile_program(&wasm)).await?)))
    }

    /// Returns the metrics of all loaded models, in the text format that Prometheus reads.
    pub fn prometheus(&self) -> String {
        self.0.prometheus()
    }
}

/// A tokenizer: a model's, or one that was loaded without a model.
#[derive(uniffi::Object)]
pub enum Tokenizer {
    /// A model's tokenizer.
    Of(realm::Model),
    /// A tokenizer without a model.
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

/// Facts about a tokenizer.
#[derive(Debug, Clone, uniffi::Record)]
pub struct TokenizerInfo {
    /// The number of tokens.
    pub vocabulary: u64,
    /// The begin-of-sequence token.
    pub bos: Option<u32>,
    /// The end-of-sequence token.
    pub eos: Option<u32>,
    /// True if the model expects the begin token before a text.
    pub adds_bos: bool,
    /// The tokens that end a generation.
    pub end_tokens: Vec<u32>,
}

#[uniffi::export]
impl Tokenizer {
    /// Returns facts about the tokenizer.
    pub fn info(&self) -> TokenizerInfo {
        TokenizerInfo {
            vocabulary: self.vocabulary_len() as u64,
            bos: self.bos(),
            eos: self.eos(),
            adds_bos: self.adds_bos(),
            end_tokens: self.end_tokens().to_vec(),
        }
    }

    /// Encodes a text into token ids, as `Model.encode` does.
    #[uniffi::method(name = "encode", default(special = false, boundaries = true))]
    pub fn encode_text(&self, text: &str, special: bool, boundaries: bool) -> Vec<u32> {
        realm::Tokenizer::encode(self, text, special, boundaries)
    }

    /// Returns the bytes of tokens: they need not be whole characters. With `special`, control tokens are
    /// spelled. Throws `InvalidArgument` for an id outside the vocabulary.
    #[uniffi::method(default(special = false))]
    pub fn bytes(&self, tokens: Vec<u32>, special: bool) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for token in tokens {
            self.push_bytes(token, special, &mut bytes)
                .map_err(|error| RealmError::from(realm::Error::from(error)))?;
        }
        Ok(bytes)
    }

    /// Returns the id of the token with exactly this spelling, including special ones.
    #[uniffi::method(name = "tokenId")]
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.token_id(text)
    }
}
