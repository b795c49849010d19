//! Programs of tenants.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use realm_sandbox::{Job, ProgramInfo, Reply, Request, Sandbox, SandboxConfig};

use crate::error::ErrorCode;
use crate::metrics::Models;
use crate::tenant::Identity;
use crate::{Error, Realm, Tenant};

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
#[derive(Clone)]
pub(crate) struct Sandboxes(Arc<Lazy>);

struct Lazy {
    sandbox: OnceLock<Sandbox>,
    /// Held while the sandbox is made: there are not addresses for many of them.
    making: Mutex<()>,
    /// Where compiled code is kept.
    cache: PathBuf,
}

impl Sandboxes {
    /// With the runtime's cache folder.
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

    /// As [`load_program`](Self::load_program), from bytes. Compiling is then the application's own work; that of a program which
    /// a tenant brought is the tenant's ([`Tenant::compile_program`]).
    ///
    /// # Errors
    /// `invalid-program` for bytes that Realm can't run, `overloaded` if as many programs wait to be compiled as may.
    pub fn compile_program(&self, wasm: &[u8]) -> Result<Program, Error> {
        let sandbox = self.sandboxes.get()?;
        Ok(Program { inner: sandbox.compile(wasm)?, sandbox: sandbox.clone(), models: self.models.clone() })
    }
}

impl Tenant {
    /// Compiles a program, as [`Realm::compile_program`] does, as work of this tenant. Programs of several tenants are compiled in
    /// fair turns by their weights, so that however many one brings, those of others wait no longer. The tenant's
    /// [`memory`](Tenant::memory) holds the program's bytes while they wait and are compiled, and then the compiled code until
    /// the last clone of the program is gone; other tenants may have the program, too. Blocks; [`unblock`](crate::unblock) is
    /// for tasks.
    ///
    /// # Errors
    /// `invalid-program` for bytes that Realm can't run, `limit-exceeded` for more memory than the tenant may hold, `overloaded` if
    /// as many programs wait to be compiled as may and one of the tenant's is among them.
    pub fn compile_program(&self, wasm: &[u8]) -> Result<Program, Error> {
        let sandbox = self.sandboxes.get()?;
        let inner = sandbox.compile_for(&self.identity.inner, wasm)?;
        Ok(Program { inner, sandbox: sandbox.clone(), models: self.models.clone() })
    }
}
