//! What programs may do beside asking models.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;
use realm::{Level, Random, unblock};

use crate::errors::{Result, invalid};
use crate::process::with_gil;
use crate::wait::{Notice, notify};

/// A key-value store for a tenant's programs: in memory, or in a folder of its own. Keys and values may take `quota` bytes
/// together. It can be granted once.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Store(Mutex<Option<realm::Store>>);

#[pymethods]
impl Store {
    #[new]
    #[pyo3(signature = (quota, *, folder=None))]
    fn new(py: Python<'_>, quota: usize, folder: Option<PathBuf>) -> Result<Self> {
        let store = match folder {
            None => realm::Store::in_memory(quota),
            Some(folder) => py.detach(|| realm::Store::on_disk(folder, quota)).map_err(realm::Error::from)?,
        };
        Ok(Self(Mutex::new(Some(store))))
    }
}

/// What a tenant's programs may do beside asking models. Nothing, unless given:
///
/// - `log`: `True` for the logger `realm.program` of the `logging` module, or a function of the tenant's name, a level
///   (`"error"`, `"warn"`, `"info"`, `"debug"`, `"trace"`) and a message;
/// - `clock`: the time;
/// - `random`: `True` for the system's random numbers, or a seed for the same ones in each run;
/// - `store`: a `Store`;
/// - `http`: hosts that they may send HTTP requests to;
/// - `tools`: functions that they may call, by name. A function gets what JSON the program passes as a Python value and returns
///   one; it runs on a thread of its own. What a coroutine function returns is awaited on the event loop that runs where
///   the `Grants` are made. What it raises the program gets as an error.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Grants(pub(crate) realm::Grants);

#[pymethods]
impl Grants {
    #[new]
    #[pyo3(signature = (*, log=None, clock=false, random=None, store=None, http=None, tools=None))]
    fn new(
        log: Option<&Bound<'_, PyAny>>,
        clock: bool,
        random: Option<&Bound<'_, PyAny>>,
        store: Option<&Store>,
        http: Option<Vec<String>>,
        tools: Option<HashMap<String, Bound<'_, PyAny>>>,
    ) -> PyResult<Self> {
        let mut grants = realm::Grants::none();
        if let Some(sink) = log.map(|log| Sink::new(log, "to_logging")).transpose()?.flatten() {
            grants = grants.log_to(move |tenant, severity, message| {
                sink.line((tenant.to_owned(), severity.as_str(), message.to_owned()));
            });
        }
        if clock {
            grants = grants.clock();
        }
        if let Some(random) = random {
            grants = match random.cast::<PyBool>() {
                Ok(system) if system.is_true() => grants.random(Random::System),
                Ok(_) => grants,
                Err(_) => grants.random(Random::Seed(random.extract()?)),
            };
        }
        if let Some(store) = store {
            let store = store.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            grants = grants.store(store.ok_or_else(|| invalid("this Store has been granted already"))?);
        }
        for host in http.into_iter().flatten() {
            grants = grants.http(host);
        }
        for (name, function) in tools.into_iter().flatten() {
            grants = tool(grants, name, &function)?;
        }
        Ok(Self(grants))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// A function of the application's that takes lines of a log.
#[derive(Clone)]
struct Sink(Arc<Py<PyAny>>);

impl Sink {
    /// `True` for a function of `realm.logs`, a function, or `False` for none.
    fn new(log: &Bound<'_, PyAny>, to_logging: &str) -> PyResult<Option<Self>> {
        let sink = match log.cast::<PyBool>() {
            Ok(on) if on.is_true() => log.py().import("realm.logs")?.getattr(to_logging)?,
            Ok(_) => return Ok(None),
            Err(_) if log.is_callable() => log.clone(),
            Err(_) => return Err(PyTypeError::new_err("log is a bool or a function")),
        };
        Ok(Some(Self(Arc::new(sink.unbind()))))
    }

    /// Hands a line to the notifier, since whoever logs must not wait for the GIL.
    fn line(&self, arguments: (String, &'static str, String)) {
        let sink = Arc::clone(&self.0);
        notify(Notice::Call(Box::new(move |py| {
            if let Err(error) = sink.call1(py, arguments) {
                error.write_unraisable(py, Some(sink.bind(py)));
            }
        })));
    }
}

/// Has Realm's own log go to a function of where a line comes from, a level and a message, or with `True` to the logger `realm` of the
/// `logging` module; `level` is the last one that is told (`"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`). `None` ends it.
#[pyfunction]
#[pyo3(signature = (log, *, level="info"))]
pub(crate) fn log_to(log: Option<&Bound<'_, PyAny>>, level: &str) -> Result<()> {
    let most = Level::ALL.into_iter().find(|most| most.as_str() == level).ok_or_else(|| {
        invalid(&format!("level is 'error', 'warn', 'info', 'debug' or 'trace', not '{level}'"))
    })?;
    let sink = log.map(|log| Sink::new(log, "realm_to_logging")).transpose()?.flatten();
    let sink = sink.map(|sink| {
        move |severity: Level, target: &str, message: &str| {
            sink.line((target.to_owned(), severity.as_str(), message.to_owned()));
        }
    });
    Ok(realm::log_to(most, sink)?)
}

fn tool(grants: realm::Grants, name: String, function: &Bound<'_, PyAny>) -> PyResult<realm::Grants> {
    if !function.is_callable() {
        return Err(PyTypeError::new_err(format!("the tool '{name}' is not a function")));
    }
    let py = function.py();
    // Runs a function and awaits what it returns, on this event loop if there is one.
    let event_loop = py.import("asyncio")?.call_method0("_get_running_loop")?.unbind();
    let call = Arc::new((function.clone().unbind(), event_loop));
    Ok(grants.tool_async(name, move |arguments| {
        let call = Arc::clone(&call);
        let answer = unblock(move || {
            let answer = with_gil(|py| {
                let (function, event_loop) = &*call;
                runner(py)?.call1(py, (function, arguments, event_loop))?.extract::<String>(py)
            });
            Ok(match answer {
                Some(Ok(answer)) => Ok(answer),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("the application is ending".into()),
            })
        });
        async move { answer.await.map_err(|error| error.to_string())? }
    }))
}

/// `realm.tools.run`.
fn runner(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static RUN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUN.get_or_try_init(py, || Ok(py.import("realm.tools")?.getattr("run")?.unbind()))
}
