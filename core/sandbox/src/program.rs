//! Compiled programs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::bindings::TenantProgramPre;
use crate::bindings::policy::TenantPolicyPre;
use crate::cache::Source;
use crate::sandbox::Core;
use crate::state::State;
use crate::{Error, ErrorKind};

/// Bytes of a component or module at most.
const MAX_BYTES: usize = 64 << 20;

/// A compiled program or policy. Cloning it is cheap.
#[derive(Clone)]
pub struct Program(pub(crate) Arc<Compiled>);

pub(crate) struct Compiled {
    pub(crate) kind: Kind,
    info: ProgramInfo,
}

pub(crate) enum Kind {
    Run(TenantProgramPre<State>),
    Policy(TenantPolicyPre<State>),
}

/// Which level of the contract a program is written at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// It answers requests.
    Program,
    /// It is asked at each token.
    Policy,
}

/// What a program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// What it exports.
    pub contract: Contract,
    /// Interfaces that it imports.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
    /// Bytes of the component or module.
    pub bytes: usize,
}

impl Program {
    /// Compiles a component, or a core module that a component can be made of.
    pub(crate) fn compile(core: &Core, wasm: &[u8]) -> Result<Self, Error> {
        let invalid = |why: &dyn fmt::Display| Error::new(ErrorKind::InvalidProgram, why);
        if wasm.len() > MAX_BYTES {
            let why = format!("the program has {} bytes; it may have {MAX_BYTES}", wasm.len());
            return Err(Error::limit(why));
        }
        let encoded = encode(wasm)?;
        let wasm_component = encoded.as_deref().unwrap_or(wasm);
        let component = component(core, wasm_component)?;
        let kind_of = component.component_type();
        let engine = &core.engine;
        let imports: Vec<String> = kind_of.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = kind_of
            .exports(engine)
            .filter(|(_, item)| {
                matches!(item.ty, ComponentItem::ComponentInstance(_) | ComponentItem::ComponentFunc(_))
            })
            .map(|(name, _)| name.to_owned())
            .collect();
        let exports_one = |name: &str| exports.iter().any(|export| export.starts_with(name));
        let pre = core
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
        Ok(Self(Arc::new(Compiled { kind, info })))
    }

    /// What it is.
    pub fn info(&self) -> &ProgramInfo {
        &self.0.info
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(self.info()).finish()
    }
}

/// Makes a component of a core module that says what component it wants to be.
fn encode(wasm: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let is_module = wasm.get(..8) == Some(b"\0asm\x01\0\0\0");
    if !is_module {
        return Ok(None);
    }
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(wasm)
        .and_then(|mut encoder| encoder.encode());
    match encoded {
        Ok(component) => Ok(Some(component)),
        Err(error) => {
            let why = format!("the module is no component, and none can be made of it: {error:#}");
            Err(Error::new(ErrorKind::InvalidProgram, why))
        }
    }
}

/// Compiles, or takes what was compiled before.
fn component(core: &Core, wasm: &[u8]) -> Result<Component, Error> {
    let source = Source::new(&core.engine, wasm);
    if let Some(compiled) = core.cache.as_ref().and_then(|cache| cache.get(&source)) {
        // SAFETY: the bytes came out of `Component::serialize` of an engine with the same settings and version, in a
        // process of this user: `Cache` gives nothing that it has not written itself.
        match unsafe { Component::deserialize(&core.engine, &compiled) } {
            Ok(component) => return Ok(component),
            Err(error) => tracing::warn!(%error, "a kept program could not be used; it is compiled anew"),
        }
    }
    let component = Component::new(&core.engine, wasm).map_err(|error| {
        Error::new(ErrorKind::InvalidProgram, format!("no WebAssembly component: {error:#}"))
    })?;
    if let Some(cache) = &core.cache {
        match component.serialize() {
            Ok(compiled) => cache.put(&source, &compiled),
            Err(error) => tracing::warn!(%error, "a compiled program could not be kept"),
        }
    }
    Ok(component)
}

/// A tenant's programs by name, for those that call others.
#[derive(Debug, Default)]
pub struct Programs(RwLock<HashMap<String, Program>>);

impl Programs {
    /// The program of that name.
    pub fn get(&self, name: &str) -> Option<Program> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Adds a program, or takes another for a name. What runs goes on with the old one.
    pub fn set(&self, name: impl Into<String>, program: Program) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), program);
    }

    /// Forgets a program; says whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}
