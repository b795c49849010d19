//! The sandbox that compiles and runs programs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use realm_engine::LoadedModel;
use realm_sandbox::{Sandbox, SandboxConfig};

use super::Program;
use crate::Error;
use crate::registry::Registry;

/// The sandbox of a runtime, created when the first program is loaded.
pub(crate) struct LazySandbox {
    sandbox: OnceLock<Sandbox>,
    /// Held while the sandbox is created: the address space does not hold many of them.
    making: Mutex<()>,
    /// The folder of compiled code.
    cache: PathBuf,
    /// The models that programs may open.
    models: Registry<LoadedModel>,
}

impl LazySandbox {
    /// Keeps compiled code in the runtime's cache folder.
    pub(crate) fn new(cache: &Path, models: &Registry<LoadedModel>) -> Self {
        Self {
            sandbox: OnceLock::new(),
            making: Mutex::default(),
            cache: cache.join("programs"),
            models: models.clone(),
        }
    }

    /// Compiles a program, on a tenant's account if there is one.
    pub(super) fn compile(
        &self,
        tenant: Option<&Arc<realm_engine::Tenant>>,
        wasm: &[u8],
    ) -> Result<Program, Error> {
        let sandbox = self.get()?;
        let inner = match tenant {
            Some(tenant) => sandbox.compile_for(tenant, wasm)?,
            None => sandbox.compile(wasm)?,
        };
        Ok(Program { inner, sandbox: sandbox.clone(), models: self.models.clone() })
    }

    fn get(&self) -> Result<&Sandbox, Error> {
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox);
        }
        let cache = Some(self.cache.clone());
        let sandbox = Sandbox::new(&SandboxConfig { cache, ..SandboxConfig::default() })?;
        Ok(self.sandbox.get_or_init(|| sandbox))
    }
}

impl fmt::Debug for LazySandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LazySandbox").field(&self.sandbox.get().is_some()).finish()
    }
}
