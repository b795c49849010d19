//! Tenants, their limits and their programs.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use realm::{ProgramLimits, unblock};

use crate::arguments::count;
use crate::callbacks::Granted;
use crate::errors::{Result, invalid};
use crate::grants::Grants;
use crate::handle::{Handle, not_picklable};
use crate::metrics::{MemoryUse, Served};
use crate::model::Model;
use crate::record::{Reduced, record};
use crate::wait::{Awaitable, wait};

/// The limits of a tenant. `None` means no limit.
#[pyclass(frozen, get_all, module = "realm", skip_from_py_object)]
pub(crate) struct Limits {
    /// The tenant's factor in fair sharing of the computation while others want some too.
    weight: f32,
    /// The most requests that run at once; others wait.
    max_concurrent: Option<usize>,
    /// The most requests that wait for a place; one more is refused.
    max_queued: usize,
    /// The most tokens in the KV cache of one model, over all running requests.
    kv_tokens: Option<usize>,
    /// The most tokens computed in a minute, over all models.
    tokens_per_minute: Option<u32>,
    /// The most seconds from a request's start to its end, including waiting.
    request_timeout: Option<f64>,
    /// The most bytes of memory that the tenant holds at once, of all kinds.
    memory: usize,
    /// The names of the models that the tenant may use.
    models: Option<Vec<String>>,
    /// The names of the adapters that the tenant may use.
    adapters: Option<Vec<String>>,
    /// The most bytes of memory of one run of a program.
    program_memory: usize,
    /// The most seconds of computing time of one run of a program.
    program_cpu_time: f64,
    /// The most handles that one run holds at once.
    program_handles: usize,
    /// The most bytes of text that one run sends.
    program_output: usize,
}

const FIELDS: [&str; 13] = [
    "weight",
    "max_concurrent",
    "max_queued",
    "kv_tokens",
    "tokens_per_minute",
    "request_timeout",
    "memory",
    "models",
    "adapters",
    "program_memory",
    "program_cpu_time",
    "program_handles",
    "program_output",
];

impl Limits {
    fn of(limits: &realm::Limits) -> Self {
        let program = &limits.program;
        Self {
            weight: limits.weight,
            max_concurrent: limits.max_concurrent,
            max_queued: limits.max_queued,
            kv_tokens: limits.kv_tokens,
            tokens_per_minute: limits.tokens_per_minute,
            request_timeout: limits.request_timeout.map(|time| time.as_secs_f64()),
            memory: limits.memory,
            models: limits.models.clone(),
            adapters: limits.adapters.clone(),
            program_memory: program.memory,
            program_cpu_time: program.cpu_time.as_secs_f64(),
            program_handles: program.handles,
            program_output: program.output,
        }
    }

    pub(crate) fn core(&self) -> PyResult<realm::Limits> {
        let seconds = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds).map_err(|error| invalid(&format!("{name}: {error}")))
        };
        Ok(realm::Limits {
            weight: self.weight,
            max_concurrent: self.max_concurrent,
            max_queued: self.max_queued,
            kv_tokens: self.kv_tokens,
            tokens_per_minute: self.tokens_per_minute,
            request_timeout: self.request_timeout.map(|s| seconds("request_timeout", s)).transpose()?,
            memory: self.memory,
            models: self.models.clone(),
            adapters: self.adapters.clone(),
            program: ProgramLimits {
                memory: self.program_memory,
                cpu_time: seconds("program_cpu_time", self.program_cpu_time)?,
                handles: self.program_handles,
                output: self.program_output,
            },
        })
    }
}

#[pymethods]
impl Limits {
    #[new]
    #[pyo3(signature = (*, weight=None, max_concurrent=None, max_queued=None, kv_tokens=None, tokens_per_minute=None,
        request_timeout=None, memory=None, models=None, adapters=None, program_memory=None,
        program_cpu_time=None, program_handles=None, program_output=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        weight: Option<f32>,
        max_concurrent: Option<&Bound<'_, PyAny>>,
        max_queued: Option<&Bound<'_, PyAny>>,
        kv_tokens: Option<&Bound<'_, PyAny>>,
        tokens_per_minute: Option<&Bound<'_, PyAny>>,
        request_timeout: Option<f64>,
        memory: Option<&Bound<'_, PyAny>>,
        models: Option<Vec<String>>,
        adapters: Option<Vec<String>>,
        program_memory: Option<&Bound<'_, PyAny>>,
        program_cpu_time: Option<f64>,
        program_handles: Option<&Bound<'_, PyAny>>,
        program_output: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let default = Self::of(&realm::Limits::default());
        let limits = Self {
            weight: weight.unwrap_or(default.weight),
            max_concurrent: count("max_concurrent", max_concurrent)?,
            max_queued: count("max_queued", max_queued)?.unwrap_or(default.max_queued),
            kv_tokens: count("kv_tokens", kv_tokens)?,
            tokens_per_minute: count("tokens_per_minute", tokens_per_minute)?,
            request_timeout,
            memory: count("memory", memory)?.unwrap_or(default.memory),
            models,
            adapters,
            program_memory: count("program_memory", program_memory)?.unwrap_or(default.program_memory),
            program_cpu_time: program_cpu_time.unwrap_or(default.program_cpu_time),
            program_handles: count("program_handles", program_handles)?.unwrap_or(default.program_handles),
            program_output: count("program_output", program_output)?.unwrap_or(default.program_output),
        };
        // Invalid limits are refused here, and not when they are first used.
        limits.core()?.check().map_err(|error| crate::errors::exception(&error.into()))?;
        Ok(limits)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        Ok(self.core()? == other.get().core()?)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let rebuild = slf.py().import("realm._pickle")?.getattr("rebuild")?;
        let arguments = PyTuple::new(slf.py(), [slf.get_type().into_any(), Self::to_dict(slf)?.into_any()])?;
        Ok((rebuild, arguments))
    }

    /// Returns the attributes as a dict, which `Limits(**limits)` takes.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(slf.py());
        for field in FIELDS {
            dict.set_item(field, slf.getattr(field)?)?;
        }
        Ok(dict)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let mut fields = Vec::new();
        for field in FIELDS {
            fields.push(format!("{field}={}", slf.getattr(field)?.repr()?));
        }
        Ok(format!("Limits({})", fields.join(", ")))
    }
}

record! {
    /// Facts about a program.
    ProgramInfo {
        /// The level of the contract that it is written for: `"program"`, `"policy"` or `"module"`.
        contract: String,
        /// The interfaces that it imports.
        imports: Vec<String>,
        /// The interfaces that it exports.
        exports: Vec<String>,
        /// The size of the component or module, in bytes.
        bytes: usize,
    }
}

/// A compiled WebAssembly program, which answers the requests of any number of tenants.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Program {
    handle: Handle<realm::Program>,
}

impl Program {
    pub(crate) fn new(program: realm::Program) -> Self {
        Self { handle: Handle::new("Program", program) }
    }
}

#[pymethods]
impl Program {
    /// Facts about the program.
    #[getter]
    fn info(&self) -> PyResult<ProgramInfo> {
        let program = self.handle.get()?;
        let info = program.info();
        Ok(ProgramInfo {
            contract: info.contract.as_str().into(),
            imports: info.imports.clone(),
            exports: info.exports.clone(),
            bytes: info.bytes,
        })
    }

    /// Releases the program. Tenants that use it keep it.
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
        Err(not_picklable("Program"))
    }
}

/// An identity with limits that hold over all models it uses.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Tenant {
    handle: Handle<realm::Tenant>,
    /// Shared with the models that it sees.
    granted: Mutex<Option<Py<Granted>>>,
}

impl Tenant {
    pub(crate) fn new(py: Python<'_>, tenant: realm::Tenant) -> PyResult<Self> {
        Ok(Self { handle: Handle::new("Tenant", tenant), granted: Mutex::new(Some(Granted::new(py)?)) })
    }

    fn granted(&self, py: Python<'_>) -> Option<Py<Granted>> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.as_ref().map(|granted| granted.clone_ref(py))
    }

    fn compile(
        &self,
        wasm: &Bound<'_, PyBytes>,
    ) -> PyResult<impl Future<Output = std::result::Result<realm::Program, realm::Error>> + Send + 'static>
    {
        let (tenant, wasm) = (self.handle.get()?, wasm.as_bytes().to_vec());
        Ok(unblock(move || tenant.compile_program(&wasm)))
    }

    fn end(&self, py: Python<'_>) {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(granted);
        self.handle.close(py);
    }
}

#[pymethods]
impl Tenant {
    /// The tenant's name.
    #[getter]
    fn name(&self) -> PyResult<String> {
        Ok(self.handle.get()?.name().to_owned())
    }

    /// The tenant's limits.
    #[getter]
    fn limits(&self) -> PyResult<Limits> {
        Ok(Limits::of(&self.handle.get()?.limits()))
    }

    /// Changes the limits, from the next step on.
    fn set_limits(&self, limits: &Limits) -> Result<()> {
        Ok(self.handle.get()?.set_limits(limits.core()?)?)
    }

    /// Returns a loaded model as this tenant sees it: requests to it count against the tenant's limits.
    fn model(&self, py: Python<'_>, model: &Model) -> Result<Model> {
        let seen = self.handle.get()?.model(&model.handle.get()?)?;
        Ok(Model::granted(seen, self.granted(py)))
    }

    /// Compiles a program that the tenant brought, a WebAssembly component or module in bytes, on the
    /// tenant's account: programs of several tenants are compiled in fair turns by their weights, and the
    /// compiled code is the tenant's memory.
    fn compile_program(&self, py: Python<'_>, wasm: &Bound<'_, PyBytes>) -> Result<Program> {
        Ok(Program::new(wait(py, self.compile(wasm)?)??))
    }

    /// Same as `compile_program`, to be awaited.
    fn compile_program_async(&self, wasm: &Bound<'_, PyBytes>) -> PyResult<Awaitable> {
        Ok(Awaitable::new(self.compile(wasm)?, |py, program| Program::new(program).into_py_any(py)))
    }

    /// Sets the program that answers the tenant's requests from now on; `None` returns to Realm's own
    /// generation.
    fn set_program(&self, program: Option<&Program>) -> PyResult<()> {
        let program = program.map(|program| program.handle.get()).transpose()?;
        self.handle.get()?.set_program(program.as_ref());
        Ok(())
    }

    /// The program that answers the tenant's requests.
    #[getter]
    fn program(&self) -> PyResult<Option<Program>> {
        Ok(self.handle.get()?.program().map(Program::new))
    }

    /// Adds a program, by a name, that the tenant's other programs may run.
    fn add_program(&self, name: &str, program: &Program) -> PyResult<()> {
        self.handle.get()?.add_program(name, &program.handle.get()?);
        Ok(())
    }

    /// Removes a program that others may run; returns whether there was one of that name.
    fn remove_program(&self, name: &str) -> PyResult<bool> {
        Ok(self.handle.get()?.remove_program(name))
    }

    /// Sets what the tenant's programs may do besides asking models, from the next request on.
    fn set_grants(&self, py: Python<'_>, grants: &Grants) -> PyResult<()> {
        let tenant = self.handle.get()?;
        // Set before the tenant's next request may call them.
        let granted = self.granted(py);
        let old = granted.and_then(|granted| granted.get().set(grants.callbacks(py)));
        tenant.set_grants(grants.inner.clone());
        drop(old);
        Ok(())
    }

    /// The number of requests that run now, over all models.
    #[getter]
    fn running(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.running())
    }

    /// The number of requests that wait now, over all models.
    #[getter]
    fn waiting(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.waiting())
    }

    /// The memory that the tenant holds now, in bytes, over all models; the limit `memory` bounds it.
    #[getter]
    fn memory(&self) -> PyResult<MemoryUse> {
        Ok(MemoryUse::of(self.handle.get()?.memory()))
    }

    /// Reads the tenant's counters, over all models that are loaded now.
    fn metrics(&self, py: Python<'_>) -> PyResult<Py<Served>> {
        let tenant = self.handle.get()?;
        let served = py.detach(|| tenant.metrics());
        Served::new(py, served)
    }

    /// Releases the tenant. Models that it sees keep it.
    fn close(&self, py: Python<'_>) {
        self.end(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.end(py);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // The functions clear themselves.
        let Ok(granted) = self.granted.try_lock() else { return Ok(()) };
        visit.call(&*granted)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Tenant"))
    }
}
