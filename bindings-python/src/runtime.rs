//! The runtime.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use realm::{CacheType, LoadOptions, unblock};

use crate::arguments::{given, named, unexpected};
use crate::errors::{Result, invalid};
use crate::handle::{Handle, not_picklable};
use crate::hub::Hub;
use crate::model::Model;
use crate::progress::Callback;
use crate::tenant::{Limits, Program, Tenant};
use crate::tokenizer::Tokenizer;
use crate::wait::{Awaitable, wait};

/// The runtime: owns the devices and loads models. One per process is normal. `with Realm() as realm:` closes it at the end;
/// models that it loaded stay until they are closed or dropped.
///
/// `threads` compute (one for each core, unless given); `device` is `"auto"`, `"cpu"`, `"cuda"` or `"cuda:1"`; fetched models are
/// kept in `cache_folder`.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Realm {
    pub(crate) handle: Handle<realm::Realm>,
}

/// Loads a model on a thread of its own.
struct Load {
    realm: realm::Realm,
    model: String,
    options: LoadOptions,
    callback: Callback,
}

impl Load {
    fn run(self) -> impl Future<Output = PyResult<realm::Model>> + Send + 'static {
        let Self { realm, model, options, callback } = self;
        async move {
            let mut progress = callback.progress();
            let loaded = unblock(move || realm.load_model_with(&model, &options, &mut progress)).await;
            loaded.map_err(|error| callback.cause(error))
        }
    }
}

impl Realm {
    fn load(&self, model: PathBuf, asked: Option<&Bound<'_, PyDict>>) -> PyResult<Load> {
        let (mut options, mut progress) = (LoadOptions::default(), None);
        for argument in given(asked, &OPTIONS) {
            let (key, value) = argument?;
            match key {
                "progress" => progress = Some(value.unbind()),
                _ => apply(&mut options, key, &value).map_err(|error| named(value.py(), key, error))?,
            }
        }
        Ok(Load {
            realm: self.handle.get()?,
            model: text(model)?,
            options,
            callback: Callback::new(progress),
        })
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
        "kv_tokens" => options.kv_tokens = Some(value.extract()?),
        "context_length" => options.context_length = Some(value.extract()?),
        "kv_memory" => options.kv_memory = Some(value.extract()?),
        "cache_type" => {
            let kind = value.extract::<&str>()?.parse::<CacheType>();
            options.cache_type = Some(kind.map_err(|error| invalid(&error.to_string()))?);
        }
        "chat_template" => options.chat_template = Some(value.extract()?),
        "speculation" => options.speculation = crate::request::speculation(value.extract()?)?,
        "draft_model" => options.draft_model = Some(text(value.extract()?)?),
        "max_queued" => options.max_queued = Some(value.extract()?),
        "gpu_layers" => options.gpu_layers = Some(value.extract()?),
        _ => return Err(unexpected(key)),
    }
    Ok(())
}

/// A reference to a model, which a path may be.
pub(crate) fn text(path: PathBuf) -> PyResult<String> {
    path.into_os_string().into_string().map_err(|path| invalid(&format!("{} is not UTF-8", path.display())))
}

#[pymethods]
impl Realm {
    #[new]
    #[pyo3(signature = (*, threads=None, device=None, cache_folder=None))]
    fn new(
        py: Python<'_>,
        threads: Option<usize>,
        device: Option<String>,
        cache_folder: Option<PathBuf>,
    ) -> Result<Self> {
        let mut builder = realm::Realm::builder();
        if let Some(threads) = threads {
            builder = builder.threads(threads);
        }
        if let Some(device) = device {
            builder = builder.device(device);
        }
        if let Some(folder) = cache_folder {
            builder = builder.cache_folder(folder);
        }
        Ok(Self { handle: Handle::new("Realm", py.detach(|| builder.build())?) })
    }

    /// Loads a model: a path to a GGUF file, a name of the catalog such as `smollm2-135m`, or `hf:owner/repo/file.gguf`. What
    /// is not there yet is fetched. `progress` is called with a `ProgressEvent` now and then, on another thread; if it raises,
    /// the load ends with that exception.
    #[pyo3(signature = (model, **options))]
    fn load_model(
        &self,
        py: Python<'_>,
        model: PathBuf,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Model> {
        let load = self.load(model, options)?;
        Ok(Model::new(wait(py, load.run())??))
    }

    /// As `load_model`, to be awaited.
    #[pyo3(signature = (model, **options))]
    fn load_model_async(&self, model: PathBuf, options: Option<&Bound<'_, PyDict>>) -> PyResult<Awaitable> {
        let load = self.load(model, options)?;
        Ok(Awaitable::new(load.run(), |py, model| Model::new(model).into_py_any(py)))
    }

    /// Loads a model's tokenizer alone.
    fn load_tokenizer(&self, py: Python<'_>, model: PathBuf) -> Result<Tokenizer> {
        let (realm, model) = (self.handle.get()?, text(model)?);
        Ok(Tokenizer::alone(wait(py, unblock(move || realm.load_tokenizer(&model)))??))
    }

    /// A tenant with limits of its own. Tenants of the same name share nothing.
    #[pyo3(signature = (name, limits=None))]
    fn tenant(&self, name: &str, limits: Option<&Limits>) -> Result<Tenant> {
        let limits = limits.map(Limits::core).transpose()?.unwrap_or_default();
        Ok(Tenant::new(self.handle.get()?.tenant(name, limits)?))
    }

    /// Compiles a program, a WebAssembly component or module, from a file or from bytes. Compiled code is kept in the cache folder.
    fn load_program(&self, py: Python<'_>, program: &Bound<'_, PyAny>) -> Result<Program> {
        Ok(Program::new(wait(py, self.compile(program)?)??))
    }

    /// As `load_program`, to be awaited.
    fn load_program_async(&self, program: &Bound<'_, PyAny>) -> PyResult<Awaitable> {
        Ok(Awaitable::new(self.compile(program)?, |py, program| Program::new(program).into_py_any(py)))
    }

    /// What all loaded models have done and how they stand, in the text format of Prometheus and OpenMetrics.
    fn prometheus(&self, py: Python<'_>) -> PyResult<String> {
        let realm = self.handle.get()?;
        Ok(py.detach(|| realm.prometheus()))
    }

    /// Where models come from and are kept.
    #[getter]
    fn hub(&self) -> PyResult<Hub> {
        Ok(Hub::new(self.handle.get()?.hub().clone()))
    }

    /// Gives it back. What it made stays until it is closed itself.
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
        let bytes = program.cast::<pyo3::types::PyBytes>().ok().map(|bytes| bytes.as_bytes().to_vec());
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
