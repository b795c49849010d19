//! Programs of tenants.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use realm_sandbox::{Job, ProgramInfo, Reply, Request, Sandbox, SandboxConfig};

use crate::error::ErrorCode;
use crate::metrics::Models;
use crate::tenant::Identity;
use crate::{Error, Realm};

/// Bytes of a program's file that are read. The sandbox refuses far smaller ones, and says how large they may be.
const MOST_PROGRAM_BYTES: u64 = 1 << 30;

/// A compiled WebAssembly program: what answers a tenant's requests (see
/// [`Tenant::set_program`](crate::Tenant::set_program)). Cloning it is cheap; any number of tenants may have it.
#[derive(Clone)]
pub struct Program {
    pub(crate) inner: realm_sandbox::Program,
    sandbox: Sandbox,
    models: Models,
}

impl Program {
    /// What it is: which level of the contract, and what it imports and exports.
    pub fn info(&self) -> &ProgramInfo {
        self.inner.info()
    }

    /// A tenant may run it from now on.
    pub(crate) fn expect(&self, tenant: &Arc<realm_engine::Tenant>) {
        self.sandbox.expect(tenant);
    }

    pub(crate) fn run(
        &self,
        model: Arc<realm_sandbox::Model>,
        tenant: &Identity,
        request: Request,
    ) -> Result<Reply, Error> {
        let models = self.models.clone();
        Ok(self.sandbox.run(Job {
            program: self.inner.clone(),
            request,
            model,
            models: Arc::new(move |name| models.find(name)),
            tenant: Arc::clone(&tenant.inner),
            grants: tenant.grants(),
            programs: Arc::clone(&tenant.programs),
        })?)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(self.info()).finish()
    }
}

/// The sandboxes of a runtime, which costs nothing until the first program comes.
#[derive(Clone, Default)]
pub(crate) struct Sandboxes(Arc<OnceLock<Sandbox>>);

impl Sandboxes {
    fn get(&self, realm: &Realm) -> Result<&Sandbox, Error> {
        if let Some(sandbox) = self.0.get() {
            return Ok(sandbox);
        }
        let cache = Some(realm.hub().cache().join("programs"));
        let sandbox = Sandbox::new(&SandboxConfig { cache, ..SandboxConfig::default() })?;
        // Another thread may have been quicker.
        Ok(self.0.get_or_init(|| sandbox))
    }
}

impl fmt::Debug for Sandboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sandboxes").field(&self.0.get().is_some()).finish()
    }
}

impl Realm {
    /// Compiles a program from a file: a WebAssembly component, or what a WebAssembly target of `cargo build` makes. It is
    /// compiled once: compiled code is kept in the cache folder. Blocks, for seconds if the program is large and new.
    ///
    /// # Errors
    /// `io` for a file that can't be read, `invalid-program` for one that Realm can't run.
    pub fn load_program(&self, path: impl AsRef<Path>) -> Result<Program, Error> {
        let path = path.as_ref();
        let wasm = realm_gguf::read_file(path, MOST_PROGRAM_BYTES)
            .map_err(|error| Error::new(ErrorCode::Io, format!("`{}`: {error}", path.display())))?;
        self.compile_program(&wasm)
    }

    /// As [`load_program`](Self::load_program), from bytes.
    ///
    /// # Errors
    /// `invalid-program` for bytes that Realm can't run.
    pub fn compile_program(&self, wasm: &[u8]) -> Result<Program, Error> {
        let sandbox = self.sandboxes.get(self)?;
        Ok(Program { inner: sandbox.compile(wasm)?, sandbox: sandbox.clone(), models: self.models.clone() })
    }
}
