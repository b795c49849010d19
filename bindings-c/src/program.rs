//! Programs of tenants.

use std::ffi::{CString, c_char};

use crate::memory::{free, put, text_of};

/// A compiled WebAssembly program; any number of tenants may use it.
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

/// The level of the contract that a program is written for.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Contract {
    /// The program answers requests.
    Program,
    /// The program is called at each token.
    Policy,
    /// The program is a core module that answers requests through plain functions.
    Module,
}

/// Facts about a program.
#[repr(C)]
pub struct ProgramInfo {
    /// The level of the contract that it exports.
    pub contract: Contract,
    /// The number of interfaces that it imports.
    pub imports: usize,
    /// The number of interfaces that it exports.
    pub exports: usize,
    /// The size of the component or module, in bytes.
    pub bytes: usize,
}

/// Writes facts about the program to `info`; false for NULL.
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

/// Returns import `index`, the name of an interface; NULL if `index` is out of range. Belongs to the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realm_program_import(program: *const Program, index: usize) -> *const c_char {
    // SAFETY: an object of ours, or NULL.
    let found = unsafe { program.as_ref() }.and_then(|program| program.imports.get(index));
    found.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// Returns export `index`, the name of an interface; NULL if `index` is out of range. Belongs to the program.
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
