//! Compiles and runs programs.

use std::sync::Arc;

use crate::Error;
use crate::program::Program;
use crate::runtime::{Runtime, SandboxConfig};

/// Compiles and runs programs. A clone is cheap and is the same sandbox.
#[derive(Clone)]
pub struct Sandbox(pub(crate) Arc<Runtime>);

impl Sandbox {
    /// Reserves the pool of instances and starts threads.
    ///
    /// # Errors
    /// `Internal` if the system gives no threads or no addresses.
    pub fn new(config: &SandboxConfig) -> Result<Self, Error> {
        Ok(Self(Arc::new(Runtime::new(config)?)))
    }

    /// Reserves a tenant's part of the slots of instances, from now until the tenant is dropped. Parts are
    /// proportional to the tenants' weights. A tenant's first run reserves its part too; this call reserves
    /// it earlier.
    pub fn reserve(&self, tenant: &Arc<realm_engine::Tenant>) {
        self.0.slots.reserve(tenant);
    }

    /// Compiles a component, or a core module that can become one. Takes from milliseconds to seconds, unless
    /// the program is in the cache. At most 2 programs are compiled at once; the others wait.
    ///
    /// # Errors
    /// `InvalidProgram` says why the program cannot run, or which count is too large for it to compile in
    /// bounded time. `LimitExceeded` for too many bytes, and `Overloaded` if the queue of waiting programs is
    /// full.
    pub fn compile(&self, wasm: &[u8]) -> Result<Program, Error> {
        Program::compile(&self.0, None, wasm)
    }

    /// Same as [`compile`](Self::compile), on a tenant's account: one tenant's many programs do not delay
    /// those of others. The tenant's memory ([`MemoryKind::Code`](realm_engine::MemoryKind::Code)) holds the
    /// program's bytes while they are compiled, and then the compiled code until the last clone of the
    /// program is dropped.
    ///
    /// # Errors
    /// Same as [`compile`](Self::compile), and `LimitExceeded` for more memory than the tenant may hold. A
    /// tenant without another waiting program is never refused because of other tenants' programs.
    pub fn compile_for(&self, tenant: &realm_engine::Tenant, wasm: &[u8]) -> Result<Program, Error> {
        Program::compile(&self.0, Some(tenant), wasm)
    }
}
