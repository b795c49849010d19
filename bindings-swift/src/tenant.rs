//! Tenants, their limits, programs and grants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use realm::unblock;

use crate::callback::{LogSink, Tool, ToolError};
use crate::error::Result;
use crate::metrics::{MemoryUse, Served};
use crate::model::Model;

/// What a tenant may use at most. nil is no limit.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct Limits {
    /// Share of the computation when there is more to do than can be done at once.
    #[uniffi(default = 1.0)]
    pub weight: f32,
    /// Requests that run at once; others wait.
    #[uniffi(default = None)]
    pub max_concurrent: Option<u64>,
    /// Requests that wait for a place; one more is refused with `LimitExceeded`.
    #[uniffi(default = 1024)]
    pub max_queued: u64,
    /// Tokens in the KV cache of one model over all running requests.
    #[uniffi(default = None)]
    pub kv_tokens: Option<u64>,
    /// Tokens computed a minute, prompts and generated ones, over all models. A tenant who used them up waits.
    #[uniffi(default = None)]
    pub tokens_per_minute: Option<u32>,
    /// Seconds from a request's start to its end, waiting included; then it ends with `LimitExceeded`.
    #[uniffi(default = None)]
    pub request_timeout: Option<f64>,
    /// Bytes of memory that the tenant causes at once, of every kind: 1 GiB.
    #[uniffi(default = 1073741824)]
    pub memory: u64,
    /// Names of the models that the tenant may use.
    #[uniffi(default = None)]
    pub models: Option<Vec<String>>,
    /// Names of the adapters that the tenant may use.
    #[uniffi(default = None)]
    pub adapters: Option<Vec<String>>,
    /// Bytes that one run of a program may use: 64 MiB.
    #[uniffi(default = 67108864)]
    pub program_memory: u64,
    /// Seconds that one run of a program computes itself.
    #[uniffi(default = 10.0)]
    pub program_cpu_time: f64,
    /// Handles that one run of a program holds at once.
    #[uniffi(default = 1024)]
    pub program_handles: u64,
    /// Bytes of text that one run of a program sends: 16 MiB.
    #[uniffi(default = 16777216)]
    pub program_output: u64,
}

/// Seconds as a duration; what is none becomes 0, which limits refuse.
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

/// Which level of the contract a program is written at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Contract {
    /// It answers requests.
    Program,
    /// It is asked at each token.
    Policy,
    /// It is a core module that answers requests with plain functions.
    Module,
}

/// What a program is.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ProgramInfo {
    /// Its level.
    pub contract: Contract,
    /// Interfaces that it imports.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
    /// Bytes of the component or module.
    pub bytes: u64,
}

/// A compiled WebAssembly program; any number of tenants may have it.
#[derive(uniffi::Object)]
pub struct Program(pub(crate) realm::Program);

#[uniffi::export]
impl Program {
    /// What it is.
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

/// Where a program's random numbers come from.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum RandomSource {
    /// The operating system.
    System,
    /// The same numbers in each run.
    Seed(u64),
}

/// Where a program keeps things between runs: `quota` bytes at most, in memory or in a folder of the tenant's own.
#[derive(Clone, uniffi::Object)]
pub struct Store {
    folder: Option<String>,
    quota: usize,
}

#[uniffi::export]
impl Store {
    /// `folder` nil is memory. What is in memory begins empty each time grants with it are set.
    #[uniffi::constructor(default(folder = None))]
    pub fn new(quota: u64, folder: Option<String>) -> Arc<Self> {
        Arc::new(Self { folder, quota: quota as usize })
    }
}

/// What a tenant's programs may do beside asking models. By default nothing.
#[derive(Clone, uniffi::Record)]
pub struct Grants {
    /// Who gets what programs write to the log.
    #[uniffi(default = None)]
    pub log: Option<Arc<dyn LogSink>>,
    /// Programs may read the time.
    #[uniffi(default = false)]
    pub clock: bool,
    /// Programs may have random numbers.
    #[uniffi(default = None)]
    pub random: Option<RandomSource>,
    /// Programs may keep things between runs.
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
    /// Its name.
    pub fn name(&self) -> String {
        self.0.name().to_owned()
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        self.0.limits().into()
    }

    /// Changes what it may use, from the next step on. Requests that run or wait stay. Throws `InvalidArgument` for limits that mean
    /// nothing; then the old ones stay.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        Ok(self.0.set_limits(limits.into())?)
    }

    /// A loaded model as this tenant sees it: what is asked of it counts against the tenant's limits. Throws `LimitExceeded` for a
    /// model that the tenant may not use.
    pub fn model(&self, model: &Model) -> Result<Arc<Model>> {
        Ok(Arc::new(Model(self.0.model(&model.0)?)))
    }

    /// Compiles a program that the tenant brought, a WebAssembly component or module in bytes, as work of the tenant: programs of
    /// several tenants are compiled in fair turns by their weights, and the compiled code is the tenant's memory. Throws
    /// `InvalidProgram`, `LimitExceeded`, `Overloaded`.
    pub async fn compile_program(self: Arc<Self>, wasm: Vec<u8>) -> Result<Arc<Program>> {
        let tenant = self.0.clone();
        Ok(Arc::new(Program(unblock(move || tenant.compile_program(&wasm)).await?)))
    }

    /// From now on this program answers the tenant's requests; with nil Realm generates as for everybody. What runs goes on with the
    /// program it started with.
    pub fn set_program(&self, program: Option<Arc<Program>>) {
        self.0.set_program(program.as_ref().map(|program| &program.0));
    }

    /// Whether a program answers the tenant's requests.
    pub fn has_program(&self) -> bool {
        self.0.program().is_some()
    }

    /// Gives the tenant a program that its other programs may run by this name, or another one for the name.
    pub fn add_program(&self, name: String, program: &Program) {
        self.0.add_program(name, &program.0);
    }

    /// Takes a program away from those that others may run; says whether there was one.
    pub fn remove_program(&self, name: &str) -> bool {
        self.0.remove_program(name)
    }

    /// What the tenant's programs may do beside asking models, from the next request on. Throws `Io` for a store's folder that can't
    /// be made or read.
    pub fn set_grants(&self, grants: Grants) -> Result<()> {
        self.0.set_grants(grants.convert()?);
        Ok(())
    }

    /// Requests that run now, over all models.
    pub fn running(&self) -> u64 {
        self.0.running() as u64
    }

    /// Requests that wait now, over all models.
    pub fn waiting(&self) -> u64 {
        self.0.waiting() as u64
    }

    /// Bytes of memory that it causes now, over all models: what the limit `memory` bounds.
    pub fn memory(&self) -> MemoryUse {
        self.0.memory().into()
    }

    /// What was done for it, over all models that are loaded now.
    pub fn metrics(&self) -> Served {
        Served::from(&self.0.metrics())
    }
}
