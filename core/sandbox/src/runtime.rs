//! The state that all programs of a process share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::TenantProgram;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::compiler::Compiler;
use crate::executor::Executor;
use crate::slots::{Needs, Slots};
use crate::state::State;
use crate::{Error, ErrorKind, host, raw};

/// The options of a [`Sandbox`](crate::Sandbox).
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// The folder of compiled programs; `None` to compile at every start.
    pub cache: Option<PathBuf>,
    /// The most instances that exist at once. Each reserves addresses; it takes memory only as it is used.
    pub max_instances: u32,
    /// The number of threads for programs that do not compute on the threads of a model's step.
    pub threads: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self { cache: None, max_instances: 2048, threads: 2 }
    }
}

/// The engine of programs, and the threads and slots that they share.
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    /// For core modules.
    pub(crate) raw: raw::Linkers,
    pub(crate) executor: Executor,
    pub(crate) clock: Clock,
    pub(crate) cache: Option<Cache>,
    pub(crate) compiler: Compiler,
    /// The slots of instances.
    pub(crate) slots: Arc<Slots>,
    /// The threads of timers and sockets; `None` only while the sandbox is dropped.
    io: Option<tokio::runtime::Runtime>,
}

/// The bytes of a program's stack. Deeper recursion ends the program.
const STACK: usize = 512 << 10;

/// The bytes of stack that the host's functions have when the program has used all of its own: parsers of
/// regular expressions and JSON recurse as deep as their input nests. Only touched pages take memory.
const HOST_STACK: usize = 2 << 20;

/// The most core modules, memories and tables of one component: those made from Python have a dozen.
pub(crate) const MODULES: u32 = 64;
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 16;

impl Runtime {
    pub(crate) fn new(config: &SandboxConfig) -> Result<Self, Error> {
        let internal = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Internal, format!("the sandbox: {error:#}"))
        };
        let (engine, instances) = engine(config.max_instances).map_err(|error| internal(&error))?;
        let slots = Slots::new(Needs(pool(instances)));
        let mut linker = Linker::new(&engine);
        TenantProgram::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)
            .and_then(|()| host::wasi::add_to_linker(&mut linker))
            .map_err(|error| internal(&error))?;
        let raw = raw::Linkers::new(&engine).map_err(|error| internal(&error))?;
        let io = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("realm-io")
            .enable_all()
            .build()
            .map_err(|error| internal(&error))?;
        let executor =
            Executor::new(config.threads.max(1), io.handle().clone()).map_err(|error| internal(&error))?;
        let ticked = engine.clone();
        let computing = executor.computing();
        let clock =
            Clock::new(move || computing.load(Ordering::Relaxed) > 0, move || ticked.increment_epoch())
                .map_err(|error| internal(&error))?;
        let cache = config.cache.as_deref().and_then(Cache::open);
        Ok(Self {
            engine,
            linker,
            raw,
            executor,
            clock,
            cache,
            compiler: Compiler::default(),
            slots,
            io: Some(io),
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(io) = self.io.take() {
            // The last program may end on a thread that must not wait.
            io.shutdown_background();
        }
    }
}

/// Creates the engine, with the pool as large as asked for or as the address space allows.
fn engine(instances: u32) -> wasmtime::Result<(Engine, u32)> {
    let mut instances = instances.max(1);
    loop {
        match Engine::new(&settings(instances)) {
            Err(error) if instances > 16 => {
                tracing::warn!(%error, instances, "the address space has no room for this many instances; trying fewer");
                instances /= 4;
            }
            done => return Ok((done?, instances)),
        }
    }
}

/// Returns the numbers of runs, core instances, memories and tables in the pool.
fn pool(instances: u32) -> [u32; 4] {
    [instances, instances.saturating_mul(4), instances, instances.saturating_mul(4)]
}

fn settings(instances: u32) -> Config {
    let [runs, cores, memories, tables] = pool(instances);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(runs)
        .total_core_instances(cores)
        .total_memories(memories)
        .total_tables(tables)
        .total_stacks(runs)
        .max_core_instances_per_component(MODULES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(20_000)
        .max_memory_size(4 << 30)
        .max_unused_warm_slots(64)
        // Clearing this much is faster than mapping it again.
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(16 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .async_stack_size(STACK + HOST_STACK)
        .wasm_memory64(true);
    config
}
