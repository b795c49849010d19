//! Tenants.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;

use crate::choice::{choice, known};
use crate::error::{Error, attempt, surely};
use crate::grants::Grants;
use crate::limits::Limits;
use crate::memory::{array, free, object, own, put, text, text_of};
use crate::metrics::Served;
use crate::model::Model;
use crate::program::Program;
use crate::runtime::Runtime;

/// An identity with limits that hold over all models it uses. It ends when its last handle, the last model
/// that it sees, and its last request are gone.
pub struct Tenant {
    tenant: realm::Tenant,
    name: CString,
}

/// Creates a tenant with limits of its own; `limits` may be NULL for the default ones, and stay the caller's.
/// Two tenants of the same name share nothing. Errors: `invalid-argument` for a limit that is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_runtime_tenant(
    runtime: *const Runtime,
    name: *const c_char,
    limits: *const Limits,
    error: *mut *mut Error,
) -> *mut Tenant {
    // SAFETY: objects of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let (runtime, name) = (object(runtime, "runtime")?, text(name, "name")?);
            let limits = limits.as_ref().map(|limits| limits.limits.clone()).unwrap_or_default();
            Ok(own(Tenant { tenant: runtime.0.tenant(name, limits)?, name: text_of(name) }))
        })
    }
}

/// Frees a tenant's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_free(tenant: *mut Tenant) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(tenant) }
}

/// Returns the tenant's name. Belongs to the tenant.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_name(tenant: *const Tenant) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    unsafe { tenant.as_ref() }.map_or(c"".as_ptr(), |tenant| tenant.name.as_ptr())
}

/// Returns the tenant's limits; the caller frees them. NULL only for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_limits(tenant: *const Tenant) -> *mut Limits {
    // SAFETY: an object of ours, or NULL.
    let tenant = unsafe { tenant.as_ref() };
    tenant.map_or(std::ptr::null_mut(), |tenant| own(Limits::from(tenant.tenant.limits())))
}

/// Changes the limits, from the next step on. Requests that run or wait stay. Errors: `invalid-argument` for
/// a limit that is out of range; the old ones then stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_set_limits(
    tenant: *const Tenant,
    limits: *const Limits,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: objects of ours, and the caller's place for an error.
    unsafe {
        attempt(error, false, || {
            let limits = object(limits, "limits")?.limits.clone();
            object(tenant, "tenant")?.tenant.set_limits(limits)?;
            Ok(true)
        })
    }
}

/// Returns a new handle of a loaded model as this tenant sees it: requests to it count against the tenant's
/// limits. Errors: `limit-exceeded` for a model that the tenant may not use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_model(
    tenant: *const Tenant,
    model: *const Model,
    error: *mut *mut Error,
) -> *mut Model {
    // SAFETY: objects of ours, and the caller's place for an error.
    unsafe {
        attempt(error, std::ptr::null_mut(), || {
            let seen = object(tenant, "tenant")?.tenant.model(&object(model, "model")?.model)?;
            Ok(own(Model::from(seen)))
        })
    }
}

/// Compiles a program that the tenant brought, a WebAssembly component or module in `len` bytes, on the
/// tenant's account: programs of several tenants are compiled in fair turns by their weights, and the
/// compiled code is the tenant's memory until the program's handle is freed and no tenant uses it. Blocks,
/// for seconds if the program is large and new. Errors: `invalid-program`, `limit-exceeded`, `overloaded`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_compile_program(
    tenant: *const Tenant,
    wasm: *const u8,
    len: usize,
    error: *mut *mut Error,
) -> *mut Program {
    let work = || {
        // SAFETY: an object of ours and the caller's bytes.
        let (tenant, wasm) = unsafe { (object(tenant, "tenant")?, array(wasm, len, "wasm")?) };
        Ok(own(Program::from(tenant.tenant.compile_program(wasm)?)))
    };
    // SAFETY: the caller's place for an error.
    unsafe { attempt(error, std::ptr::null_mut(), work) }
}

/// Sets the program that answers the tenant's requests from now on; NULL returns to Realm's own generation.
/// Running requests finish with the program they started with. The tenant keeps what it needs of the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_set_program(tenant: *const Tenant, program: *const Program) {
    // SAFETY: objects of ours, or NULL.
    let (tenant, program) = unsafe { (tenant.as_ref(), program.as_ref()) };
    if let Some(tenant) = tenant {
        surely((), || tenant.tenant.set_program(program.map(|program| &program.inner)));
    }
}

/// Returns whether a program answers the tenant's requests.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_has_program(tenant: *const Tenant) -> bool {
    // SAFETY: an object of ours, or NULL.
    unsafe { tenant.as_ref() }.is_some_and(|tenant| tenant.tenant.program().is_some())
}

/// Adds a program, by a name, that the tenant's other programs may run. Replaces an earlier program of that
/// name. Errors: `invalid-argument` for text that is not UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_add_program(
    tenant: *const Tenant,
    name: *const c_char,
    program: *const Program,
    error: *mut *mut Error,
) -> bool {
    // SAFETY: objects of ours, the caller's text and place for an error.
    unsafe {
        attempt(error, false, || {
            let program = &object(program, "program")?.inner;
            object(tenant, "tenant")?.tenant.add_program(text(name, "name")?, program);
            Ok(true)
        })
    }
}

/// Removes a program that others may run; returns whether there was one of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_remove_program(tenant: *const Tenant, name: *const c_char) -> bool {
    // SAFETY: an object of ours, or NULL, and the caller's text.
    match unsafe { (tenant.as_ref(), text(name, "name")) } {
        (Some(tenant), Ok(name)) => surely(false, || tenant.tenant.remove_program(name)),
        _ => false,
    }
}

/// Sets what the tenant's programs may do besides asking models, from the next request on. `grants` stay the
/// caller's; NULL means nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_set_grants(tenant: *const Tenant, grants: *const Grants) {
    // SAFETY: objects of ours, or NULL.
    let (tenant, grants) = unsafe { (tenant.as_ref(), grants.as_ref()) };
    if let Some(tenant) = tenant {
        surely((), || tenant.tenant.set_grants(grants.map(|grants| grants.0.clone()).unwrap_or_default()));
    }
}

/// Returns the number of requests that run now, over all models.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_running(tenant: *const Tenant) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { tenant.as_ref() }.map_or(0, |tenant| tenant.tenant.running())
}

/// Returns the number of requests that wait now, over all models.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_waiting(tenant: *const Tenant) -> usize {
    // SAFETY: an object of ours, or NULL.
    unsafe { tenant.as_ref() }.map_or(0, |tenant| tenant.tenant.waiting())
}

// generated by ci/api: enum MemoryKind to core
/// The purpose of memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum MemoryKind {
    /// Requests that wait or run: prompts, stop strings, biases, grammars, fields.
    Requests,
    /// Chunks, events and answers that no reader has taken yet.
    Results,
    /// Sequences: their tokens and the engine's records of them; also snapshots while they are taken or
    /// restored.
    Sequences,
    /// Runs of programs: instances, linear memories, tables and stacks.
    Programs,
    /// Values that programs hold handles of: logits, tensors, caches, samplers, guides through grammars,
    /// WASI's resources.
    Handles,
    /// Strings and lists on their way between a program and the host, and HTTP requests with their
    /// connections and answers.
    Transfers,
    /// Stores of programs in memory, and the keys of stores on disk.
    Stores,
    /// Compiled code of programs, the bytes of those that are being compiled, and compiled grammars.
    Code,
    /// Lines of programs' logs that the application has not taken yet.
    Logs,
}

impl From<MemoryKind> for realm::MemoryKind {
    fn from(value: MemoryKind) -> Self {
        match value {
            MemoryKind::Requests => Self::Requests,
            MemoryKind::Results => Self::Results,
            MemoryKind::Sequences => Self::Sequences,
            MemoryKind::Programs => Self::Programs,
            MemoryKind::Handles => Self::Handles,
            MemoryKind::Transfers => Self::Transfers,
            MemoryKind::Stores => Self::Stores,
            MemoryKind::Code => Self::Code,
            MemoryKind::Logs => Self::Logs,
        }
    }
}

choice!(MemoryKind { Requests, Results, Sequences, Programs, Handles, Transfers, Stores, Code, Logs });
// end of enum MemoryKind to core

/// Returns the memory of one kind that the tenant holds now, in bytes, over all models; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_memory(tenant: *const Tenant, kind: MaybeUninit<MemoryKind>) -> u64 {
    // SAFETY: an object of ours, or NULL.
    let (Some(tenant), Some(kind)) = (unsafe { tenant.as_ref() }, known(kind)) else { return 0 };
    tenant.tenant.memory().of(kind.into()) as u64
}

/// Returns the memory of all kinds that the tenant holds now, in bytes, over all models; the limit `memory`
/// bounds it. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_total_memory(tenant: *const Tenant) -> u64 {
    // SAFETY: an object of ours, or NULL.
    unsafe { tenant.as_ref() }.map_or(0, |tenant| tenant.tenant.memory().total() as u64)
}

/// Writes the tenant's counters to `served`, over all models that are loaded now; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_tenant_metrics(tenant: *const Tenant, served: *mut Served) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(tenant) = (unsafe { tenant.as_ref() }) else { return false };
    // SAFETY: the caller's place for it, or NULL.
    unsafe { put(served, Served::from(&tenant.tenant.metrics())) };
    true
}
