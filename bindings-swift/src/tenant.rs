//! Tenants, their limits, programs and grants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use realm::unblock;

use crate::callback::{LogSink, Tool, ToolError};
use crate::error::Result;
use crate::metrics::{MemoryUse, Served};
use crate::model::Model;

/// The limits of a tenant. Nil means no limit.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Limits {
    /// The tenant's factor in fair sharing of the computation while others want some too.
    #[uniffi(default = 1.0)]
    pub weight: f32,
    /// The most requests that run at once; others wait.
    #[uniffi(default = None)]
    pub max_concurrent: Option<u64>,
    /// The most requests that wait for a place; one more is refused with `LimitExceeded`.
    #[uniffi(default = 1024)]
    pub max_queued: u64,
    /// The most tokens in the KV cache of one model, over all running requests.
    #[uniffi(default = None)]
    pub kv_tokens: Option<u64>,
    /// The most tokens computed in a minute, of prompts and generated, over all models. A tenant that has
    /// used them up waits.
    #[uniffi(default = None)]
    pub tokens_per_minute: Option<u32>,
    /// The most seconds from a request's start to its end, including waiting; then it ends with
    /// `LimitExceeded`.
    #[uniffi(default = None)]
    pub request_timeout: Option<f64>,
    /// The most bytes of memory that the tenant holds at once, of all kinds: 1 GiB.
    #[uniffi(default = 1073741824)]
    pub memory: u64,
    /// The names of the models that the tenant may use.
    #[uniffi(default = None)]
    pub models: Option<Vec<String>>,
    /// The names of the adapters that the tenant may use.
    #[uniffi(default = None)]
    pub adapters: Option<Vec<String>>,
    /// The most bytes of memory of one run of a program: 64 MiB.
    #[uniffi(default = 67108864)]
    pub program_memory: u64,
    /// The most seconds of computing time of one run of a program.
    #[uniffi(default = 10.0)]
    pub program_cpu_time: f64,
    /// The most handles that one run of a program holds at once.
    #[uniffi(default = 1024)]
    pub program_handles: u64,
    /// The most bytes of text that one run of a program sends: 16 MiB.
    #[uniffi(default = 16777216)]
    pub program_output: u64,
}

/// Converts seconds to a duration; an invalid number becomes 0, which limits refuse.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl From<Limits> for realm::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            weight: limits.weight,
            max_concurrent: limits.max_concurrent.map(|most| most as usize),
            max_queued: limits.max_queued as usize,
            kv_tokens: limits.kv_tokens.map(|tokens| tokens as usize),
            tokens_per_minute: limits.tokens_per_minute,
            request_timeout: limits.request_timeout.map(seconds),
            memory: limits.memory as usize,
            models: limits.models,
            adapters: limits.adapters,
            program: realm::ProgramLimits {
                memory: limits.program_memory as usize,
                cpu_time: seconds(limits.program_cpu_time),
                handles: limits.program_handles as usize,
                output: limits.program_output as usize,
            },
        }
    }
}

impl From<realm::Limits> for Limits {
    fn from(limits: realm::Limits) -> Self {
        Self {
            weight: limits.weight,
            max_concurrent: limits.max_concurrent.map(|most| most as u64),
            max_queued: limits.max_queued as u64,
            kv_tokens: limits.kv_tokens.map(|tokens| tokens as u64),
            tokens_per_minute: limits.tokens_per_minute,
            request_timeout: limits.request_timeout.map(|time| time.as_secs_f64()),
            memory: limits.memory as u64,
            models: limits.models,
            adapters: limits.adapters,
            program_memory: limits.program.memory as u64,
            program_cpu_time: limits.program.cpu_time.as_secs_f64(),
            program_handles: limits.program.handles as u64,
            program_output: limits.program.output as u64,
        }
    }
}

/// The level of the contract that a program is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Contract {
    /// The program answers requests.
    Program,
    /// The program is called at each token.
    Policy,
    /// The program is a core module that answers requests through plain functions.
    Module,
}

/// Facts about a program.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ProgramInfo {
    /// The level of the contract that it exports.
    pub contract: Contract,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The size of the component or module, in bytes.
    pub bytes: u64,
}

/// A compiled WebAssembly program; any number of tenants may use it.
#[derive(uniffi::Object)]
pub struct Program(pub(crate) realm::Program);

#[uniffi::export]
impl Program {
    /// Returns facts about the program.
    pub fn info(&self) -> ProgramInfo {
        let info = self.0.info();
        ProgramInfo {
            contract: match info.contract {
                realm::Contract::Program => Contract::Program,
                realm::Contract::Policy => Contract::Policy,
                realm::Contract::Module => Contract::Module,
            },
            imports: info.imports.clone(),
            exports: info.exports.clone(),
            bytes: info.bytes as u64,
        }
    }
}

/// The source of a program's random numbers.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum RandomSource {
    /// The operating system's random numbers.
    System,
    /// The same numbers in each run, from this seed.
    Seed(u64),
}

/// A store of programs' data between runs: at most `quota` bytes, in memory or in a folder of the tenant's
/// own.
#[derive(Clone, uniffi::Object)]
pub struct Store {
    folder: Option<String>,
    quota: usize,
}

#[uniffi::export]
impl Store {
    /// Creates a store; if `folder` is nil, in memory. A store in memory begins empty each time that grants
    /// with it are set.
    #[uniffi::constructor(default(folder = None))]
    pub fn new(quota: u64, folder: Option<String>) -> Arc<Self> {
        Arc::new(Self { folder, quota: quota as usize })
    }
}

/// The things that a tenant's programs may do besides asking models. The default is nothing.
#[derive(Clone, uniffi::Record)]
pub struct Grants {
    /// Receives the lines that programs write to the log.
    #[uniffi(default = None)]
    pub log: Option<Arc<dyn LogSink>>,
    /// Lets programs read the time.
    #[uniffi(default = false)]
    pub clock: bool,
    /// Lets programs get random numbers.
    #[uniffi(default = None)]
    pub random: Option<RandomSource>,
    /// Lets programs keep data between runs.
    #[uniffi(default = None)]
    pub store: Option<Arc<Store>>,
    /// Hosts that programs may send HTTP requests to: `api.example.com`, `localhost:8080`, `*.example.com`.
    #[uniffi(default)]
    pub http: Vec<String>,
    /// Functions of the application's that programs may call, by name.
    #[uniffi(default)]
    pub tools: HashMap<String, Arc<dyn Tool>>,
}

impl Grants {
    fn convert(self) -> Result<realm::Grants> {
        let mut grants = realm::Grants::none();
        if let Some(log) = self.log {
            grants = grants.log_queue(crate::callback::queue(log));
        }
        if self.clock {
            grants = grants.clock();
        }
        match self.random {
            Some(RandomSource::System) => grants = grants.random(realm::Random::System),
            Some(RandomSource::Seed(seed)) => grants = grants.random(realm::Random::Seed(seed)),
            None => {}
        }
        if let Some(store) = self.store {
            grants = grants.store(match &store.folder {
                None => realm::Store::in_memory(store.quota),
                Some(folder) => realm::Store::on_disk(folder, store.quota).map_err(realm::Error::from)?,
            });
        }
        for host in self.http {
            grants = grants.http(host);
        }
        for (name, tool) in self.tools {
            grants = grants.tool_async(name, move |arguments| {
                let tool = Arc::clone(&tool);
                async move { tool.call(arguments).await.map_err(|ToolError::Failed { message }| message) }
            });
        }
        Ok(grants)
    }
}

/// An identity with limits that hold over all models it uses.
#[derive(uniffi::Object)]
pub struct Tenant(pub(crate) realm::Tenant);

#[uniffi::export]
impl Tenant {
    /// Returns the tenant's name.
    pub fn name(&self) -> String {
        self.0.name().to_owned()
    }

    /// Returns the tenant's limits.
    pub fn limits(&self) -> Limits {
        self.0.limits().into()
    }

    /// Changes the limits, from the next step on. Requests that run or wait stay. Throws `InvalidArgument`
    /// for a limit that is out of range; the old ones then stay.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        Ok(self.0.set_limits(limits.into())?)
    }

    /// Returns a loaded model as this tenant sees it: requests to it count against the tenant's limits.
    /// Throws `LimitExceeded` for a model that the tenant may not use.
    pub fn model(&self, model: &Model) -> Result<Arc<Model>> {
        Ok(Arc::new(Model(self.0.model(&model.0)?)))
    }

    /// Compiles a program that the tenant brought, a WebAssembly component or module in bytes, on the
    /// tenant's account: programs of several tenants are compiled in fair turns by their weights, and the
    /// compiled code is the tenant's memory. Throws `InvalidProgram`, `LimitExceeded`, `Overloaded`.
    pub async fn compile_program(self: Arc<Self>, wasm: Vec<u8>) -> Result<Arc<Program>> {
        let tenant = self.0.clone();
        Ok(Arc::new(Program(unblock(move || tenant.compile_program(&wasm)).await?)))
    }

    /// Sets the program that answers the tenant's requests from now on; nil returns to Realm's own
    /// generation. Running requests finish with the program they started with.
    pub fn set_program(&self, program: Option<Arc<Program>>) {
        self.0.set_program(program.as_ref().map(|program| &program.0));
    }

    /// Returns whether a program answers the tenant's requests.
    pub fn has_program(&self) -> bool {
        self.0.program().is_some()
    }

    /// Adds a program, by a name, that the tenant's other programs may run. Replaces an earlier program of
    /// that name.
    pub fn add_program(&self, name: String, program: &Program) {
        self.0.add_program(name, &program.0);
    }

    /// Removes a program that others may run; returns whether there was one of that name.
    pub fn remove_program(&self, name: &str) -> bool {
        self.0.remove_program(name)
    }

    /// Sets what the tenant's programs may do besides asking models, from the next request on. Throws `Io`
    /// for a store's folder that cannot be created or read.
    pub fn set_grants(&self, grants: Grants) -> Result<()> {
        self.0.set_grants(grants.convert()?);
        Ok(())
    }

    /// Returns the number of requests that run now, over all models.
    pub fn running(&self) -> u64 {
        self.0.running() as u64
    }

    /// Returns the number of requests that wait now, over all models.
    pub fn waiting(&self) -> u64 {
        self.0.waiting() as u64
    }

    /// Returns the memory that the tenant holds now, in bytes, over all models; the limit `memory` bounds it.
    pub fn memory(&self) -> MemoryUse {
        self.0.memory().into()
    }

    /// Reads the tenant's counters, over all models that are loaded now.
    pub fn metrics(&self) -> Served {
        Served::from(&self.0.metrics())
    }
}
