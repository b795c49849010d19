//! The runtime.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use realm::{CacheType, LoadOptions, unblock};

use crate::arguments::{count, given, named, unexpected};
use crate::callbacks::Callbacks;
use crate::errors::{Result, invalid};
use crate::handle::{Handle, not_picklable};
use crate::hub::Hub;
use crate::model::Model;
use crate::progress::Reports;
use crate::tenant::{Limits, Program, Tenant};
use crate::text::Text;
use crate::tokenizer::Tokenizer;
use crate::wait::{Awaitable, wait};

/// The runtime: owns the devices and loads models. One for each process is normal. `with Realm() as realm:`
/// closes it at the end; models that it loaded stay until they are closed or dropped.
///
/// `threads` is the number of threads that compute (by default one for each core); `device` is `"auto"`,
/// `"cpu"`, `"cuda"` or `"cuda:1"`; `cache_folder` is the folder of fetched models. `snapshot_key`, at least
/// 32 random bytes to be kept secret, signs saved sequences: realms with the same key restore each other's.
/// By default each realm has a key of its own.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Realm {
    pub(crate) handle: Handle<realm::Realm>,
}

/// Loads a model on a thread of its own.
struct Load {
    realm: realm::Realm,
    model: String,
    options: LoadOptions,
    reports: Reports,
}

impl Load {
    fn run(self) -> impl Future<Output = PyResult<realm::Model>> + Send + 'static {
        let Self { realm, model, options, reports } = self;
        async move {
            let mut progress = reports.progress();
            let loaded = unblock(move || realm.load_model_with(&model, &options, &mut progress)).await;
            loaded.map_err(|error| reports.cause(error))
        }
    }
}

impl Realm {
    /// The caller must keep the function that receives the progress.
    fn load(
        &self,
        py: Python<'_>,
        model: PathBuf,
        asked: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<(Option<Py<Callbacks>>, Load)> {
        let (mut options, mut progress) = (LoadOptions::default(), None);
        for argument in given(asked, &OPTIONS) {
            let (key, value) = argument?;
            match key {
                "progress" => progress = Some(value.unbind()),
                _ => apply(&mut options, key, &value).map_err(|error| named(value.py(), key, error))?,
            }
        }
        let (owner, reports) = Reports::new(py, progress)?;
        Ok((owner, Load { realm: self.handle.get()?, model: text(model)?, options, reports }))
    }
}

const OPTIONS: [&str; 10] = [
    "kv_tokens",
    "context_length",
    "kv_memory",
    "cache_type",
    "chat_template",
    "speculation",
    "draft_model",
    "max_queued",
    "gpu_layers",
    "progress",
];

fn apply(options: &mut LoadOptions, key: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match key {
        "kv_tokens" => options.kv_tokens = count(key, Some(value))?,
        "context_length" => options.context_length = count(key, Some(value))?,
        "kv_memory" => options.kv_memory = count(key, Some(value))?,
        "cache_type" => {
            let kind = value.extract::<&str>()?.parse::<CacheType>();
            options.cache_type = Some(kind.map_err(|error| invalid(&error.to_string()))?);
        }
        "chat_template" => options.chat_template = Some(value.extract::<Text>()?.0),
        "speculation" => options.speculation = crate::request::speculation(value.extract()?)?,
        "draft_model" => options.draft_model = Some(text(value.extract()?)?),
        "max_queued" => options.max_queued = count(key, Some(value))?,
        "gpu_layers" => options.gpu_layers = count(key, Some(value))?,
        _ => return Err(unexpected(key)),
    }
    Ok(())
}

/// Returns a model's reference, which may be given as a path.
pub(crate) fn text(path: PathBuf) -> PyResult<String> {
    path.into_os_string().into_string().map_err(|path| invalid(&format!("{} is not UTF-8", path.display())))
}

#[pymethods]
impl Realm {
    #[new]
    #[pyo3(signature = (*, threads=None, device=None, cache_folder=None, snapshot_key=None))]
    fn new(
        py: Python<'_>,
        threads: Option<&Bound<'_, PyAny>>,
        device: Option<String>,
        cache_folder: Option<PathBuf>,
        snapshot_key: Option<&Bound<'_, PyBytes>>,
    ) -> Result<Self> {
        let mut builder = realm::Realm::builder();
        if let Some(threads) = count("threads", threads)? {
            builder = builder.threads(threads);
        }
        if let Some(device) = device {
            builder = builder.device(device);
        }
        if let Some(folder) = cache_folder {
            builder = builder.cache_folder(folder);
        }
        if let Some(key) = snapshot_key {
            builder = builder.snapshot_key(key.as_bytes());
        }
        Ok(Self { handle: Handle::new("Realm", py.detach(|| builder.build())?) })
    }

    /// Loads a model: a path to a GGUF file, a name of the catalog such as `smollm2-135m`, or
    /// `hf:owner/repo/file.gguf`. A model that is not on disk yet is fetched first.
    ///
    /// Options; an option that is `None` counts as missing:
    ///
    /// - `kv_tokens`: the number of tokens that the KV cache holds, over all requests; `kv_memory`: its
    ///   bytes. Without either, a quarter of the free memory, at most 8 GiB, on the CPU, and four fifths of
    ///   the memory that the weights leave free on a GPU.
    /// - `context_length`: the longest context of one request, prompt and generation together, in tokens; by
    ///   default the length that the model was trained for, or less if the cache holds less.
    /// - `cache_type`: the number format of the KV cache: `"f32"` (the default on the CPU), `"f16"` (the
    ///   default on a GPU) or `"q8_0"`.
    /// - `chat_template`: a template in place of the file's own.
    /// - `speculation` (`"auto"`): the source of drafts for requests that name none. `draft_model`: a smaller
    ///   model with the same vocabulary that drafts.
    /// - `max_queued` (4096): the most requests that may wait, over all tenants; one more raises
    ///   `OverloadedError`.
    /// - `gpu_layers`: the number of layers on GPUs, counted from the last one; by default as many as fit.
    /// - `progress`: called with a `ProgressEvent` now and then, on another thread; an exception ends the
    ///   load and is raised here.
    ///
    /// Raises `NotFoundError` for an unknown name, `IoError` if fetching fails, `InvalidModelError` or
    /// `UnsupportedError` for a file that Realm cannot run, `LimitExceededError` if there is too little
    /// memory.
    #[pyo3(signature = (model, **options))]
    fn load_model(
        &self,
        py: Python<'_>,
        model: PathBuf,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Model> {
        let (_owner, load) = self.load(py, model, options)?;
        Ok(Model::new(wait(py, load.run())??))
    }

    /// Same as `load_model`, to be awaited.
    #[pyo3(signature = (model, **options))]
    fn load_model_async(
        &self,
        py: Python<'_>,
        model: PathBuf,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Awaitable> {
        let (owner, load) = self.load(py, model, options)?;
        Ok(Awaitable::new(load.run(), |py, model| Model::new(model).into_py_any(py)).holding(owner))
    }

    /// Loads only a model's tokenizer.
    fn load_tokenizer(&self, py: Python<'_>, model: PathBuf) -> Result<Tokenizer> {
        let (realm, model) = (self.handle.get()?, text(model)?);
        Ok(Tokenizer::alone(wait(py, unblock(move || realm.load_tokenizer(&model)))??))
    }

    /// Creates a tenant with limits of its own. Two tenants of the same name share nothing.
    #[pyo3(signature = (name, limits=None))]
    fn tenant(&self, py: Python<'_>, name: Text, limits: Option<&Limits>) -> Result<Tenant> {
        let limits = limits.map(Limits::core).transpose()?.unwrap_or_default();
        Ok(Tenant::new(py, self.handle.get()?.tenant(&name.0, limits)?)?)
    }

    /// Compiles a program, a WebAssembly component or module, from a file or from bytes. Compiled code is
    /// kept in the cache folder.
    fn load_program(&self, py: Python<'_>, program: &Bound<'_, PyAny>) -> Result<Program> {
        Ok(Program::new(wait(py, self.compile(program)?)??))
    }

    /// Same as `load_program`, to be awaited.
    fn load_program_async(&self, program: &Bound<'_, PyAny>) -> PyResult<Awaitable> {
        Ok(Awaitable::new(self.compile(program)?, |py, program| Program::new(program).into_py_any(py)))
    }

    /// Returns the metrics of all loaded models, in the text format of Prometheus and OpenMetrics.
    fn prometheus(&self, py: Python<'_>) -> PyResult<String> {
        let realm = self.handle.get()?;
        Ok(py.detach(|| realm.prometheus()))
    }

    /// The hub, which fetches models and keeps them on disk.
    #[getter]
    fn hub(&self) -> PyResult<Hub> {
        Ok(Hub::new(self.handle.get()?.hub().clone()))
    }

    /// Releases the runtime. Objects that it created stay until they are closed themselves.
    fn close(&self, py: Python<'_>) {
        self.handle.close(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.handle.close(py);
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Realm"))
    }
}

impl Realm {
    fn compile(
        &self,
        program: &Bound<'_, PyAny>,
    ) -> PyResult<impl Future<Output = std::result::Result<realm::Program, realm::Error>> + Send + 'static>
    {
        let realm = self.handle.get()?;
        let bytes = program.cast::<PyBytes>().ok().map(|bytes| bytes.as_bytes().to_vec());
        let path = if bytes.is_none() { Some(program.extract::<PathBuf>()?) } else { None };
        Ok(unblock(move || match (bytes, path) {
            (Some(bytes), _) => realm.compile_program(&bytes),
            (None, path) => realm.load_program(path.unwrap_or_default()),
        }))
    }
}

/// Runs the `realm` command and returns its exit status.
#[pyfunction]
#[pyo3(name = "_command")]
pub(crate) fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| realm_cli::run(arguments))
}
