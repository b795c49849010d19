//! The contract for core modules, with 32- or 64-bit memories: the same functions under plain names.
//!
//! A module imports functions of `realm` and exports `memory` and `realm_run`, which answers the request and
//! returns 0 (the text ended), 1 (`max-tokens` or the context ended it) or, if it failed, a negative number.
//! [`calls`] has the functions, and [`signatures`] describes how a function of the contract becomes a plain
//! one.

mod calls;
mod guest;
mod signatures;

use realm_engine::FinishReason;
use wasmtime::{Engine, FuncType, InstancePre, Linker, Module, Store, ValType};

use crate::state::State;
use crate::{Error, ErrorKind};

use calls::{ALIASES, FUNCTIONS};
use signatures::Kind;

/// The name of the module that core modules import.
const IMPORTS: &str = "realm";

/// Linkers for both widths of addresses.
pub(crate) struct Linkers {
    narrow: Linker<State>,
    wide: Linker<State>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        Ok(Self { narrow: linker(engine, ValType::I32)?, wide: linker(engine, ValType::I64)? })
    }

    /// Links a module; an error says which import or export does not fit the contract.
    pub(crate) fn link(&self, module: &Module) -> Result<InstancePre<State>, Error> {
        let invalid = |why: String| Error::new(ErrorKind::InvalidProgram, why);
        let memory = module.get_export("memory").and_then(|export| export.memory().cloned());
        let memory = memory.ok_or_else(|| invalid("the module exports no `memory`".into()))?;
        let run = module.get_export("realm_run").and_then(|export| export.func().cloned());
        let run = run.ok_or_else(|| {
            invalid("the module is no component and exports no `realm_run`; see the contract".into())
        })?;
        if run.params().len() != 0 || run.results().len() != 1 || !run.results().all(|ty| ty.is_i32()) {
            return Err(invalid(format!("`realm_run` is {run}; it has to take nothing and return an i32")));
        }
        let linker = if memory.is_64() { &self.wide } else { &self.narrow };
        linker
            .instantiate_pre(module)
            .map_err(|error| invalid(format!("the module asks for what Realm does not have: {error:#}")))
    }
}

fn linker(engine: &Engine, pointer: ValType) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    for function in FUNCTIONS {
        let of = |kind: &Kind| match kind {
            Kind::Pointer => pointer.clone(),
            Kind::Number => ValType::I32,
            Kind::Float => ValType::F32,
        };
        let ty = FuncType::new(engine, function.params.iter().map(of), [ValType::I64]);
        (function.define)(&mut linker, function.name, ty)?;
    }
    for (alias, name) in ALIASES {
        linker.alias(IMPORTS, name, IMPORTS, alias)?;
    }
    Ok(linker)
}

/// Runs a module to its end.
pub(crate) async fn run(
    store: &mut Store<State>,
    pre: &InstancePre<State>,
) -> wasmtime::Result<FinishReason> {
    let instance = pre.instantiate_async(&mut *store).await?;
    let run = instance.get_typed_func::<(), i32>(&mut *store, "realm_run")?;
    match run.call_async(&mut *store, ()).await? {
        0 => Ok(FinishReason::Stop),
        1 => Ok(FinishReason::Length),
        code => {
            let last = store.data_mut().raw_error.take();
            let error = last.unwrap_or_else(|| {
                Error::new(ErrorKind::Failed, format!("the program's `realm_run` returned {code}"))
            });
            Err(error.into())
        }
    }
}
