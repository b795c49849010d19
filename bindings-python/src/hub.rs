//! The hub: models of the catalog, and their files on disk.

use std::future::Future;
use std::path::PathBuf;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use realm::hub::{Reference, State};
use realm::unblock;

use crate::errors::Result;
use crate::progress::Reports;
use crate::record::record;
use crate::runtime::text;
use crate::wait::{Awaitable, wait};

record! {
    /// A model of the catalog, or one whose file is on disk.
    ModelStatus {
        /// The model's name for `Realm.load_model`.
        name: String,
        /// The path of its file, which may not exist yet.
        path: PathBuf,
        /// `"absent"`, `"partial"` (an interrupted pull, which the next one continues) or `"present"`.
        state: String,
        /// The number of bytes on disk.
        bytes: u64,
        /// A description of one line, for models of the catalog.
        description: Option<String>,
        /// Its license, for models of the catalog.
        license: Option<String>,
    }
}

impl From<realm::hub::Status> for ModelStatus {
    fn from(status: realm::hub::Status) -> Self {
        let (state, bytes) = match status.state {
            State::Absent => ("absent", 0),
            State::Partial(bytes) => ("partial", bytes),
            State::Present(bytes) => ("present", bytes),
        };
        let (description, license) = match &status.reference {
            Reference::Catalog(entry) => (Some(entry.description.clone()), Some(entry.license.clone())),
            _ => (None, None),
        };
        let state = state.to_owned();
        Self { name: status.reference.to_string(), path: status.path, state, bytes, description, license }
    }
}

/// The models of a cache folder.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Hub(realm::hub::Hub);

type Pulled = PyResult<PathBuf>;

impl Hub {
    pub(crate) fn new(hub: realm::hub::Hub) -> Self {
        Self(hub)
    }

    fn pulled(&self, model: String, reports: Reports) -> impl Future<Output = Pulled> + Send + 'static {
        let hub = self.0.clone();
        async move {
            let mut progress = reports.progress();
            let pull = move || Ok(hub.pull(&Reference::parse(&model)?, &mut progress)?);
            unblock(pull).await.map_err(|error| reports.cause(error))
        }
    }
}

fn reference(model: PathBuf) -> Result<Reference> {
    Ok(Reference::parse(&text(model)?).map_err(realm::Error::from)?)
}

#[pymethods]
impl Hub {
    /// The cache folder.
    #[getter]
    fn cache_folder(&self) -> PathBuf {
        self.0.cache().to_owned()
    }

    /// Lists the catalog's models, and every file from Hugging Face on disk.
    fn list(&self, py: Python<'_>) -> Result<Vec<ModelStatus>> {
        let listed = py.detach(|| self.0.list()).map_err(realm::Error::from)?;
        Ok(listed.into_iter().map(ModelStatus::from).collect())
    }

    /// Returns the state of one model on disk.
    fn info(&self, py: Python<'_>, model: PathBuf) -> Result<ModelStatus> {
        let reference = reference(model)?;
        Ok(py.detach(|| self.0.info(&reference)).map_err(realm::Error::from)?.into())
    }

    /// Fetches a model, unless it is on disk, and returns the path of its file. `progress` is called as for
    /// `Realm.load_model`.
    #[pyo3(signature = (model, *, progress=None))]
    fn pull(&self, py: Python<'_>, model: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<PathBuf> {
        let (_owner, reports) = Reports::new(py, progress)?;
        wait(py, self.pulled(text(model)?, reports))?
    }

    /// Same as `pull`, to be awaited.
    #[pyo3(signature = (model, *, progress=None))]
    fn pull_async(&self, py: Python<'_>, model: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<Awaitable> {
        let (owner, reports) = Reports::new(py, progress)?;
        let pulled = self.pulled(text(model)?, reports);
        Ok(Awaitable::new(pulled, |py, path| path.into_py_any(py)).holding(owner))
    }

    /// Removes a model's file; returns the number of freed bytes.
    fn remove(&self, py: Python<'_>, model: PathBuf) -> Result<u64> {
        let reference = reference(model)?;
        Ok(py.detach(|| self.0.remove(&reference)).map_err(realm::Error::from)?)
    }
}
