//! Programs of tenants.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use realm_sandbox::{Job, ProgramInfo, Reply, Request, Sandbox, SandboxConfig};

use crate::error::ErrorCode;
use crate::metrics::Models;
use crate::tenant::Identity;
use crate::{Error, Realm, Tenant};

/// The most bytes of a program's file that are read. The sandbox refuses far smaller files, and its error
/// states the limit.
const MOST_PROGRAM_BYTES: u64 = 1 << 30;

/// A compiled WebAssembly program, which answers a tenant's requests (see
/// [`Tenant::set_program`](crate::Tenant::set_program)). A clone is cheap; any number of tenants may use the
/// program.
#[derive(Clone)]
pub struct Program {
    pub(crate) inner: realm_sandbox::Program,
    sandbox: Sandbox,
    models: Models,
}

impl Program {
    /// Facts about the program: its level of the contract, its imports and its exports.
    pub fn info(&self) -> &ProgramInfo {
        self.inner.info()
    }

    /// Prepares the sandbox for runs of the program by a tenant.
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

/// The sandbox of a runtime, created when the first program is loaded.
#[derive(Clone)]
pub(crate) struct Sandboxes(Arc<Lazy>);

struct Lazy {
    sandbox: OnceLock<Sandbox>,
    /// Held while the sandbox is created: the address space does not hold many of them.
    making: Mutex<()>,
    /// The folder of compiled code.
    cache: PathBuf,
}

impl Sandboxes {
    /// Keeps compiled code in the runtime's cache folder.
    pub(crate) fn new(cache: &Path) -> Self {
        Self(Arc::new(Lazy {
            sandbox: OnceLock::new(),
            making: Mutex::default(),
            cache: cache.join("programs"),
        }))
    }

    fn get(&self) -> Result<&Sandbox, Error> {
        if let Some(sandbox) = self.0.sandbox.get() {
            return Ok(sandbox);
        }
        let _making = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = self.0.sandbox.get() {
            return Ok(sandbox);
        }
        let cache = Some(self.0.cache.clone());
        let sandbox = Sandbox::new(&SandboxConfig { cache, ..SandboxConfig::default() })?;
        Ok(self.0.sandbox.get_or_init(|| sandbox))
    }
}

impl fmt::Debug for Sandboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sandboxes").field(&self.0.sandbox.get().is_some()).finish()
    }
}

impl Realm {
    /// Compiles a program from a file: a WebAssembly component, or a core module from a WebAssembly target of
    /// `cargo build`. Compiled code is kept in the cache folder, so each program is compiled once. Blocks,
    /// for seconds if the program is large and new.
    ///
    /// # Errors
    /// `io` for a file that cannot be read, `invalid-program` for one that Realm cannot run.
    pub fn load_program(&self, path: impl AsRef<Path>) -> Result<Program, Error> {
        let path = path.as_ref();
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
        let sandbox = self.sandboxes.get()?;
        Ok(Program { inner: sandbox.compile(wasm)?, sandbox: sandbox.clone(), models: self.models.clone() })
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
        let sandbox = self.sandboxes.get()?;
        let inner = sandbox.compile_for(&self.identity.inner, wasm)?;
        Ok(Program { inner, sandbox: sandbox.clone(), models: self.models.clone() })
    }
}
