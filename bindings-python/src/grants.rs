//! The grants of programs.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;
use realm::{Level, LogQueue, Random, unblock};

use crate::arguments::count;
use crate::callbacks::{Callback, Callbacks};
use crate::errors::{Result, invalid};
use crate::process::with_gil;

/// A key-value store for a tenant's programs: in memory, or in a folder of its own. Entries may take `quota`
/// bytes together: in memory each counts its key, its value and 128 bytes; in a folder its file, in blocks of
/// 4 KiB, and its name. A store can be granted once.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Store(Mutex<Option<realm::Store>>);

#[pymethods]
impl Store {
    #[new]
    #[pyo3(signature = (quota, *, folder=None))]
    fn new(py: Python<'_>, quota: &Bound<'_, PyAny>, folder: Option<PathBuf>) -> Result<Self> {
        let Some(quota) = count("quota", Some(quota))? else {
            return Err(PyTypeError::new_err("quota is a number of bytes").into());
        };
        let store = match folder {
            None => realm::Store::in_memory(quota),
            Some(folder) => py.detach(|| realm::Store::on_disk(folder, quota)).map_err(realm::Error::from)?,
        };
        Ok(Self(Mutex::new(Some(store))))
    }
}

/// The things that a tenant's programs may do besides asking models. The default is nothing.
///
/// - `log`: `True` for the logger `realm.program` of the `logging` module, or a function that takes the
///   tenant's name, a level (`"error"`, `"warn"`, `"info"`, `"debug"`, `"trace"`) and a message; it is called
///   soon after, on a thread of its own;
/// - `clock`: the time;
/// - `random`: `True` for the system's random numbers, or a seed for the same ones in each run;
/// - `store`: a `Store`;
/// - `http`: hosts that they may send HTTP requests to;
/// - `tools`: functions that they may call, by name. A function receives the program's JSON as a Python value
///   and returns one; it runs on a thread of its own. A coroutine function is awaited on the event loop that
///   runs when the `Grants` are created. The program sees an exception as an error.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Grants {
    pub(crate) inner: realm::Grants,
    /// The functions in the grants.
    callbacks: Mutex<Option<Py<Callbacks>>>,
}

impl Grants {
    pub(crate) fn callbacks(&self, py: Python<'_>) -> Option<Py<Callbacks>> {
        let callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
        callbacks.as_ref().map(|callbacks| callbacks.clone_ref(py))
    }
}

#[pymethods]
impl Grants {
    #[new]
    #[pyo3(signature = (*, log=None, clock=false, random=None, store=None, http=None, tools=None))]
    fn new(
        py: Python<'_>,
        log: Option<&Bound<'_, PyAny>>,
        clock: bool,
        random: Option<&Bound<'_, PyAny>>,
        store: Option<&Store>,
        http: Option<Vec<String>>,
        tools: Option<HashMap<String, Bound<'_, PyAny>>>,
    ) -> PyResult<Self> {
        let mut grants = realm::Grants::none();
        let mut functions = Vec::new();
        let log = log.map(|log| sink(log, "to_logging")).transpose()?.flatten();
        let logs = log.is_some();
        functions.extend(log.map(Bound::unbind));
        let mut names = Vec::new();
        for (name, function) in tools.into_iter().flatten() {
            functions.extend(tool_functions(&name, &function)?);
            names.push(name);
        }
        let (callbacks, calls) = Callbacks::new(py, functions)?;
        let mut calls = calls.into_iter();
        if logs && let Some(sink) = calls.next() {
            grants = grants.log_queue(lines(sink));
        }
        for name in names {
            if let (Some(function), Some(event_loop)) = (calls.next(), calls.next()) {
                grants = grants.tool_async(name, tool(function, event_loop, How::Value));
            }
        }
        if clock {
            grants = grants.clock();
        }
        if let Some(random) = random {
            grants = match random.cast::<PyBool>() {
                Ok(system) if system.is_true() => grants.random(Random::System),
                Ok(_) => grants,
                Err(_) => grants.random(Random::Seed(count("random", Some(random))?.unwrap_or(0))),
            };
        }
        if let Some(store) = store {
            let store = store.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            grants = grants.store(store.ok_or_else(|| invalid("this Store has been granted already"))?);
        }
        for host in http.into_iter().flatten() {
            grants = grants.http(host);
        }
        Ok(Self { inner: grants, callbacks: Mutex::new(Some(callbacks)) })
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.inner)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // The functions clear themselves.
        let Ok(callbacks) = self.callbacks.try_lock() else { return Ok(()) };
        visit.call(&*callbacks)
    }
}

/// Returns a function of `realm.logs` for `True`, a given function, or none for `False`.
fn sink<'py>(log: &Bound<'py, PyAny>, to_logging: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    match log.cast::<PyBool>() {
        Ok(on) if on.is_true() => log.py().import("realm.logs")?.getattr(to_logging).map(Some),
        Ok(_) => Ok(None),
        Err(_) if log.is_callable() => Ok(Some(log.clone())),
        Err(_) => Err(PyTypeError::new_err("log is a bool or a function")),
    }
}

/// Passes lines to a function on a thread of their own, since the thread that logs must not wait for the GIL.
fn lines(sink: Callback) -> LogQueue {
    LogQueue::new(move |from, level, message| {
        // At the interpreter's end there is no function to call.
        let _ = with_gil(|py| {
            let Some(sink) = sink.get(py) else { return };
            if let Err(error) = sink.call1((from, level.as_str(), message)) {
                error.write_unraisable(py, Some(&sink));
            }
        });
    })
}

/// Sends Realm's own log to a function that takes a line's source, a level and a message, or with `True` to
/// the logger `realm` of the `logging` module. `level` is the most verbose level that is sent (`"error"`,
/// `"warn"`, `"info"`, `"debug"` or `"trace"`). `None` ends it.
#[pyfunction]
#[pyo3(signature = (log, *, level="info"))]
pub(crate) fn log_to(log: Option<&Bound<'_, PyAny>>, level: &str) -> Result<()> {
    let most = Level::ALL.into_iter().find(|most| most.as_str() == level).ok_or_else(|| {
        invalid(&format!("level is 'error', 'warn', 'info', 'debug' or 'trace', not '{level}'"))
    })?;
    let sink = log.map(|log| sink(log, "realm_to_logging")).transpose()?.flatten();
    let Some(sink) = sink else {
        realm::log_to(most, None::<fn(Level, &str, &str)>)?;
        LOG.lock().unwrap_or_else(PoisonError::into_inner).take();
        return Ok(());
    };
    // The log is the process's: the function stays until another one, or none, replaces it.
    let (owner, calls) = Callbacks::new(sink.py(), vec![sink.clone().unbind()])?;
    let sink = calls.into_iter().next();
    realm::log_to(
        most,
        sink.map(|sink| {
            let lines = lines(sink);
            move |severity: Level, target: &str, message: &str| lines.write(target, severity, message)
        }),
    )?;
    let old = LOG.lock().unwrap_or_else(PoisonError::into_inner).replace(owner);
    drop(old);
    Ok(())
}

/// Holds the function of [`log_to`].
static LOG: Mutex<Option<Py<Callbacks>>> = Mutex::new(None);

/// Returns the arguments of a tool's call: the function, and the event loop that runs here, if any.
pub(crate) fn tool_functions(name: &str, function: &Bound<'_, PyAny>) -> PyResult<[Py<PyAny>; 2]> {
    if !function.is_callable() {
        return Err(PyTypeError::new_err(format!("the tool '{name}' is not a function")));
    }
    let event_loop = function.py().import("asyncio")?.call_method0("_get_running_loop")?;
    Ok([function.clone().unbind(), event_loop.unbind()])
}

/// The way that a tool receives its arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// One value.
    Value,
    /// Keyword arguments.
    Keywords,
}

type Answer = Pin<Box<dyn Future<Output = std::result::Result<String, String>> + Send>>;

/// Calls a tool on a thread of its own. A coroutine is awaited on the event loop, if there is one.
pub(crate) fn tool(
    function: Callback,
    event_loop: Callback,
    how: How,
) -> impl Fn(String) -> Answer + Send + Sync + 'static {
    move |arguments| {
        let (function, event_loop) = (function.clone(), event_loop.clone());
        let answer = unblock(move || {
            let answer = with_gil(|py| {
                let (Some(function), Some(event_loop)) = (function.get(py), event_loop.get(py)) else {
                    return Err(PyRuntimeError::new_err("nothing waits for this call any more"));
                };
                runner(py)?
                    .call1(py, (function, arguments, event_loop, how == How::Keywords))?
                    .extract::<String>(py)
            });
            Ok(match answer {
                Some(Ok(answer)) => Ok(answer),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("the application is ending".into()),
            })
        });
        Box::pin(async move { answer.await.map_err(|error| error.to_string())? })
    }
}

/// Returns `realm.tools.run`.
fn runner(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static RUN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUN.get_or_try_init(py, || Ok(py.import("realm.tools")?.getattr("run")?.unbind()))
}
