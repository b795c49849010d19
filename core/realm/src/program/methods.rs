//! The methods of [`Realm`] and [`Tenant`] for programs.

use std::path::Path;

use realm_engine::{MemoryCharge, MemoryKind};

use super::Program;
use crate::error::ErrorCode;
use crate::model::{Inner, LocalModel};
use crate::remote::RemoteModel;
use crate::{Error, Grants, Model, Realm, Tenant};

/// The most bytes of a program's file that are read. The sandbox refuses far smaller files, and its error
/// states the limit.
const MOST_PROGRAM_BYTES: u64 = 1 << 30;

impl Realm {
    /// Compiles a program from a file: a WebAssembly component, or a core module from a WebAssembly target of
    /// `cargo build`. Compiled code is kept in the cache folder, so each program is compiled once. Blocks,
    /// for seconds if the program is large and new.
    ///
    /// # Errors
    /// `io` for a file that cannot be read, `invalid-program` for one that Realm cannot run.
    pub fn load_program(&self, path: impl AsRef<Path>) -> Result<Program, Error> {
        let path = path.as_ref();
        self.local("compiling programs")?;
        let wasm = realm_gguf::read_file(path, MOST_PROGRAM_BYTES)
            .map_err(|error| Error::new(ErrorCode::Io, format!("`{}`: {error}", path.display())))?;
        self.compile_program(&wasm)
    }

    /// Same as [`load_program`](Self::load_program), from bytes. The application does the compiling; use
    /// [`Tenant::compile_program`] for a program that a tenant brought, so that the tenant is charged for it.
    ///
    /// # Errors
    /// `invalid-program` for bytes that Realm cannot run, `overloaded` if the queue of programs to compile is
    /// full.
    pub fn compile_program(&self, wasm: &[u8]) -> Result<Program, Error> {
        self.local("compiling programs")?.commons.sandbox.compile(None, wasm)
    }
}

impl Model {
    /// Returns the same model with a program that answers its requests in place of the tenant's own
    /// ([`Tenant::set_program`]). The program runs as the model's tenant, within that tenant's limits and
    /// grants; its code stays on the account of the tenant that compiled it.
    pub fn answered_by(&self, program: &Program) -> Self {
        match &self.inner {
            Inner::Local(model) => {
                program.expect(&model.tenant.inner);
                Self::local(LocalModel { program: Some(program.clone()), ..model.clone() })
            }
            // A program of this process can't run there; the model says so when it is asked.
            Inner::Remote(model) => {
                Self { inner: Inner::Remote(RemoteModel { foreign_program: true, ..model.clone() }) }
            }
        }
    }
}

impl Tenant {
    /// Compiles a program as [`Realm::compile_program`] does, on this tenant's account. Programs of several
    /// tenants are compiled in fair turns by the tenants' weights, so one tenant's many programs do not delay
    /// those of others. The tenant's [`memory`](Tenant::memory) holds the program's bytes while they wait and
    /// are compiled, and then the compiled code until the last clone of the program is dropped; other tenants
    /// may use the program, too. Blocks; [`unblock`](crate::unblock) is for tasks.
    ///
    /// # Errors
    /// `invalid-program` for bytes that Realm cannot run, `limit-exceeded` for more memory than the tenant
    /// may hold, `overloaded` if the queue of programs to compile is full and one of the tenant's programs is
    /// in it.
    pub fn compile_program(&self, wasm: &[u8]) -> Result<Program, Error> {
        self.commons("its programs")?.sandbox.compile(Some(&self.identity.inner), wasm)
    }

    /// Sets the program that answers the tenant's requests from now on; `None` returns to Realm's own
    /// generation. Running requests finish with the program they started with, so none is lost or delayed.
    pub fn set_program(&self, program: Option<&Program>) {
        if let Some(program) = program {
            program.expect(&self.identity.inner);
        }
        let program = program.map(|program| (program.clone(), self.charge_code(program)));
        self.identity.programs.set_answering(program);
    }

    /// The program that answers the tenant's requests.
    pub fn program(&self) -> Option<Program> {
        self.identity.programs.answering()
    }

    /// Adds a program, by a name, that the tenant's other programs may run (`capabilities.run-program`).
    /// Replaces an earlier program of that name.
    pub fn add_program(&self, name: impl Into<String>, program: &Program) {
        program.expect(&self.identity.inner);
        let charge = self.charge_code(program);
        self.identity.programs.others.set_charged(name, program.inner.clone(), charge);
    }

    /// Removes a program that others may run; returns whether there was one of that name.
    pub fn remove_program(&self, name: &str) -> bool {
        self.identity.programs.others.remove(name)
    }

    /// Sets what the tenant's programs may do besides asking models, from the next request on. The default is
    /// nothing.
    pub fn set_grants(&self, grants: Grants) {
        grants.belong_to(self.identity.inner.memory());
        self.identity.programs.set_grants(grants);
    }

    /// Charges the tenant for a program's compiled code. `None` if this tenant had it compiled and is charged
    /// already.
    fn charge_code(&self, program: &Program) -> Option<MemoryCharge> {
        let ledger = self.identity.inner.memory();
        if program.inner.is_charged_to(ledger) {
            return None;
        }
        let mut charge = ledger.open(MemoryKind::Code);
        charge.add(program.inner.memory());
        Some(charge)
    }
}
