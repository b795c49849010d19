//! Programs of tenants.

use std::ffi::{CString, c_char};

use crate::memory::{free, put, text_of};

/// A compiled WebAssembly program; any number of tenants may have it.
pub struct Program {
    pub(crate) inner: realm::Program,
    imports: Vec<CString>,
    exports: Vec<CString>,
}

impl From<realm::Program> for Program {
    fn from(inner: realm::Program) -> Self {
        let texts = |names: &[String]| names.iter().map(|name| text_of(name)).collect();
        let (imports, exports) = (texts(&inner.info().imports), texts(&inner.info().exports));
        Self { inner, imports, exports }
    }
}

/// Which level of the contract a program is written at.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Contract {
    /// It answers requests.
    Program,
    /// It is asked at each token.
    Policy,
    /// It is a core module that answers requests with plain functions.
    Module,
}

/// What a program is.
#[repr(C)]
pub struct ProgramInfo {
    /// Its level.
    pub contract: Contract,
    /// Interfaces that it imports.
    pub imports: usize,
    /// Interfaces that it exports.
    pub exports: usize,
    /// Bytes of the component or module.
    pub bytes: usize,
}

/// Writes what the program is to `info`; false for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_program_info(program: *const Program, info: *mut ProgramInfo) -> bool {
    // SAFETY: an object of ours, or NULL.
    let Some(program) = (unsafe { program.as_ref() }) else { return false };
    let known = program.inner.info();
    let said = ProgramInfo {
        contract: match known.contract {
            realm::Contract::Program => Contract::Program,
            realm::Contract::Policy => Contract::Policy,
            realm::Contract::Module => Contract::Module,
        },
        imports: program.imports.len(),
        exports: program.exports.len(),
        bytes: known.bytes,
    };
    // SAFETY: the caller's place for it, or NULL.
    unsafe { put(info, said) };
    true
}

/// An interface that the program imports; NULL if there are not so many. Belongs to the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_program_import(program: *const Program, index: usize) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    let found = unsafe { program.as_ref() }.and_then(|program| program.imports.get(index));
    found.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// An interface that the program exports; NULL if there are not so many. Belongs to the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_program_export(program: *const Program, index: usize) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    let found = unsafe { program.as_ref() }.and_then(|program| program.exports.get(index));
    found.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// Frees a program's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_program_free(program: *mut Program) {
    // SAFETY: an object of ours, or NULL.
    unsafe { free(program) }
}
