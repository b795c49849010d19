//! Compiled programs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use realm_engine::{MemoryCharge, MemoryKind, MemoryLedger, Tenant};
use tokio::sync::Semaphore;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{Engine, InstancePre, Module};

use crate::bindings::TenantProgramPre;
use crate::bindings::policy::TenantPolicyPre;
use crate::cache::Source;
use crate::componentize;
use crate::log::Room;
use crate::pace::Pace;
use crate::runtime::{MEMORIES, MODULES, Runtime, TABLES};
use crate::slots::Needs;
use crate::state::State;
use crate::{Error, ErrorKind};

/// The most bytes of a component or module.
const MAX_BYTES: usize = 64 << 20;

/// A compiled program or policy. A clone is cheap.
#[derive(Clone)]
pub struct Program(pub(crate) Arc<Compiled>);

pub(crate) struct Compiled {
    pub(crate) kind: Kind,
    /// The slots that a run takes of those that tenants share.
    pub(crate) needs: Needs,
    info: ProgramInfo,
    /// The memory of the compiled code, in bytes.
    code: usize,
    /// The charge for that memory, if a tenant had the program compiled.
    charge: Option<MemoryCharge>,
}

pub(crate) enum Kind {
    Run(TenantProgramPre<State>),
    Policy(TenantPolicyPre<State>),
    Raw(InstancePre<State>),
}

/// The level of the contract that a program is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// The program answers requests.
    Program,
    /// The program is called at each token.
    Policy,
    /// The program is a core module that answers requests through plain functions.
    Module,
}

impl Contract {
    /// Returns the name in lower case, the same in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Policy => "policy",
            Self::Module => "module",
        }
    }
}

/// Facts about a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The level of the contract that it exports.
    pub contract: Contract,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The size of the component or module, in bytes.
    pub bytes: usize,
}

impl Program {
    /// Compiles a component, or a core module that can become a component.
    pub(crate) fn compile(runtime: &Runtime, owner: Option<&Tenant>, wasm: &[u8]) -> Result<Self, Error> {
        let invalid = |why: &dyn fmt::Display| Error::new(ErrorKind::InvalidProgram, why);
        if wasm.len() > MAX_BYTES {
            let why = format!("the program has {} bytes; it may have {MAX_BYTES}", wasm.len());
            return Err(Error::limit(why));
        }
        if !wasm.starts_with(b"\0asm") {
            let why = r"it does not begin with `\0asm`, as components and modules do; a text (WAT) has to be assembled";
            return Err(invalid(&format_args!("no WebAssembly: {why}")));
        }
        // The bytes are copied for the compiler, and are held while they wait.
        let charge = |owner: &Tenant| owner.memory().charge(MemoryKind::Code, wasm.len());
        let charge = owner.map(charge).transpose()?;
        let is_module = wasm.get(..8) == Some(b"\0asm\x01\0\0\0");
        let mut compiled = match is_module && !componentize::wants(wasm) {
            true => Self::of_module(runtime, owner, wasm)?,
            false => Self::of_component(runtime, owner, wasm, is_module)?,
        };
        if let Some(mut charge) = charge {
            let memory = compiled.memory();
            match memory.checked_sub(charge.bytes()) {
                Some(more) => charge.grow(more)?,
                None => charge.set(memory),
            }
            compiled.charge = Some(charge);
        }
        Ok(Self(Arc::new(compiled)))
    }

    /// Compiles a component, or a core module after making it a component.
    fn of_component(
        runtime: &Runtime,
        owner: Option<&Tenant>,
        wasm: &[u8],
        is_module: bool,
    ) -> Result<Compiled, Error> {
        let invalid = |why: &dyn fmt::Display| Error::new(ErrorKind::InvalidProgram, why);
        let encoded = if is_module {
            // Encoding validates the module, which takes time as well, so it is bounded first.
            crate::bounds::check(wasm)?;
            Some(componentize::encode(&runtime.engine, wasm)?)
        } else {
            None
        };
        let bytes = encoded.as_deref().unwrap_or(wasm);
        let cores = crate::bomb::check(bytes)?;
        let component = component(runtime, owner, bytes)?;
        let kind_of = component.component_type();
        let engine = &runtime.engine;
        let imports: Vec<String> = kind_of.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = kind_of
            .exports(engine)
            .filter(|(_, item)| {
                matches!(item.ty, ComponentItem::ComponentInstance(_) | ComponentItem::ComponentFunc(_))
            })
            .map(|(name, _)| name.to_owned())
            .collect();
        let exports_one = |name: &str| exports.iter().any(|export| export.starts_with(name));
        let pre = runtime
            .linker
            .instantiate_pre(&component)
            .map_err(|error| invalid(&format!("the program asks for what Realm does not have: {error:#}")))?;
        let (contract, kind) = if exports_one("realm:tenant/program@") {
            (Contract::Program, TenantProgramPre::new(pre).map(Kind::Run))
        } else if exports_one("realm:tenant/policy@") {
            (Contract::Policy, TenantPolicyPre::new(pre).map(Kind::Policy))
        } else {
            let why = "the component exports neither `realm:tenant/program` nor `realm:tenant/policy`; see the contract";
            return Err(invalid(&why));
        };
        let kind =
            kind.map_err(|error| invalid(&format!("the program was made for another contract: {error:#}")))?;
        let info = ProgramInfo { contract, imports, exports, bytes: wasm.len() };
        let cores = u32::try_from(cores).unwrap_or(MODULES).min(MODULES);
        let needs = match component.resources_required() {
            Some(needs) => Needs([1, cores, needs.num_memories, needs.num_tables]),
            None => Needs([1, MODULES, MEMORIES, TABLES]),
        };
        let code = component.image_range();
        let code = code.end as usize - code.start as usize;
        Ok(Compiled { kind, needs, info, code, charge: None })
    }

    fn of_module(runtime: &Runtime, owner: Option<&Tenant>, wasm: &[u8]) -> Result<Compiled, Error> {
        let compile = |engine: &Engine, wasm: &[u8]| Module::new(engine, wasm);
        // SAFETY: `compile_cached` passes only bytes that an engine of this version and settings serialized.
        let load = |compiled: &[u8]| unsafe { Module::deserialize(&runtime.engine, compiled) };
        let module = compile_cached(runtime, owner, wasm, load, compile, Module::serialize)?;
        let name = |module: &str, name: &str| format!("{module}.{name}");
        let info = ProgramInfo {
            contract: Contract::Module,
            imports: module.imports().map(|import| name(import.module(), import.name())).collect(),
            exports: module.exports().map(|export| export.name().to_owned()).collect(),
            bytes: wasm.len(),
        };
        let kind = Kind::Raw(runtime.raw.link(&module)?);
        let needs = module.resources_required();
        let needs = Needs([1, 1, needs.num_memories, needs.num_tables]);
        let code = module.image_range();
        let code = code.end as usize - code.start as usize;
        Ok(Compiled { kind, needs, info, code, charge: None })
    }

    /// Facts about the program.
    pub fn info(&self) -> &ProgramInfo {
        &self.0.info
    }

    /// Returns the bytes of memory that it takes: its compiled code, and the data about it.
    pub fn memory(&self) -> usize {
        self.0.memory()
    }

    /// Returns whether its memory is charged to this account already: that of the tenant that had it
    /// compiled.
    pub fn is_charged_to(&self, ledger: &MemoryLedger) -> bool {
        self.0.charge.as_ref().is_some_and(|charge| charge.ledger().is(ledger))
    }
}

impl Compiled {
    fn memory(&self) -> usize {
        self.code + COMPILED_BYTES
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(self.info()).finish()
    }
}

/// Compiles a component, or loads it from the cache.
fn component(runtime: &Runtime, owner: Option<&Tenant>, wasm: &[u8]) -> Result<Component, Error> {
    let compile = |engine: &Engine, wasm: &[u8]| Component::new(engine, wasm);
    // SAFETY: `compile_cached` passes only bytes that an engine of this version and settings serialized.
    let load = |compiled: &[u8]| unsafe { Component::deserialize(&runtime.engine, compiled) };
    compile_cached(runtime, owner, wasm, load, compile, Component::serialize)
}

/// Compiles a program, or loads it from the cache. `load` gets only bytes that `serialize` made, in an engine
/// with the same settings and version and in a process of this user, since the cache returns no others.
fn compile_cached<T: Send + 'static>(
    runtime: &Runtime,
    owner: Option<&Tenant>,
    wasm: &[u8],
    load: impl Fn(&[u8]) -> wasmtime::Result<T>,
    compile: impl FnOnce(&Engine, &[u8]) -> wasmtime::Result<T> + Send + 'static,
    serialize: impl FnOnce(&T) -> wasmtime::Result<Vec<u8>>,
) -> Result<T, Error> {
    let source = Source::new(&runtime.engine, wasm);
    if let Some(compiled) = runtime.cache.as_ref().and_then(|cache| cache.get(&source)) {
        match load(&compiled) {
            Ok(program) => return Ok(program),
            Err(error) => tracing::warn!(%error, "a kept program could not be used; it is compiled anew"),
        }
    }
    let steps = crate::bounds::check(wasm)?;
    let invalid = |why: String| Error::new(ErrorKind::InvalidProgram, why);
    let (engine, wasm) = (runtime.engine.clone(), wasm.to_vec());
    let compiled = runtime.compiler.start(owner, steps, move || compile(&engine, &wasm))?;
    let program = compiled
        .recv_blocking()
        .ok_or_else(|| invalid("the compiler failed on it; it said why on stderr".into()))?
        .map_err(|error| invalid(format!("no WebAssembly that Realm can run: {error:#}")))?;
    let compiled = match serialize(&program) {
        Ok(compiled) => compiled,
        Err(error) => {
            tracing::warn!(%error, "a compiled program could not be kept");
            return Ok(program);
        }
    };
    if let Some(cache) = &runtime.cache {
        cache.put(&source, &compiled);
    }
    // The compiler's output lies between its temporary allocations, which keeps the allocator from returning
    // their memory. A loaded copy lies close together.
    drop(program);
    load(&compiled).map_err(|error| invalid(format!("what was compiled can't be loaded: {error:#}")))
}

/// The bytes of a compiled program besides its image: mainly a component's types, those of the whole
/// contract. Measured as the growth of a process that loaded 300 components (`ledger` of the tests).
const COMPILED_BYTES: usize = 152 << 10;

/// The most HTTP requests that a tenant's programs have at once; further ones wait. The sockets of a process
/// are limited.
const CONNECTIONS: usize = 16;

/// A tenant's programs by name, for programs that call others, and the state that all of them share.
#[derive(Debug)]
pub struct Programs {
    by_name: RwLock<HashMap<String, (Program, Option<MemoryCharge>)>>,
    /// The recent computing times of the tenant's programs.
    pub(crate) pace: Arc<Pace>,
    /// The free connections to granted hosts.
    pub(crate) connections: Arc<Semaphore>,
    /// The free room for lines of its log.
    pub(crate) log: Room,
}

impl Default for Programs {
    fn default() -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Self { by_name: RwLock::default(), pace: Arc::default(), connections, log: Room::default() }
    }
}

impl Programs {
    /// Returns the program of that name.
    pub fn get(&self, name: &str) -> Option<Program> {
        self.by_name
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .map(|(program, _)| program.clone())
    }

    /// Adds a program, or replaces the one of that name. Runs that have started keep the old one.
    pub fn set(&self, name: impl Into<String>, program: Program) {
        self.set_charged(name, program, None);
    }

    /// Same as [`set`](Self::set), with a charge for the program's memory, which is kept as long as the
    /// program.
    pub fn set_charged(&self, name: impl Into<String>, program: Program, charge: Option<MemoryCharge>) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), (program, charge));
    }

    /// Removes a program; returns whether there was one of that name.
    pub fn remove(&self, name: &str) -> bool {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}
