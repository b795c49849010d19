//! Programs of tenants, in builds with the feature `sandbox`.
//!
//! `lazy` compiles programs, `held` has those of one tenant, `methods` is what [`Realm`](crate::Realm)
//! and [`Tenant`](crate::Tenant) offer, and `run` has a program answer a request.

mod error;
mod held;
mod lazy;
mod methods;
mod run;

use std::fmt;
use std::sync::Arc;

use realm_engine::LoadedModel;
use realm_sandbox::{Job, ProgramInfo, Reply, Request, Sandbox};

use crate::Error;
use crate::registry::Registry;

pub(crate) use held::TenantPrograms;
pub(crate) use lazy::LazySandbox;

/// A compiled WebAssembly program, which answers a tenant's requests (see
/// [`Tenant::set_program`](crate::Tenant::set_program)). A clone is cheap; any number of tenants may use the
/// program.
#[derive(Clone)]
pub struct Program {
    inner: realm_sandbox::Program,
    sandbox: Sandbox,
    /// The models that the program may open by their names.
    models: Registry<LoadedModel>,
}

impl Program {
    /// Facts about the program: its level of the contract, its imports and its exports.
    pub fn info(&self) -> &ProgramInfo {
        self.inner.info()
    }

    /// Prepares the sandbox for runs of the program by a tenant.
    fn expect(&self, tenant: &Arc<realm_engine::Tenant>) {
        self.sandbox.reserve(tenant);
    }

    fn run(
        &self,
        model: &Arc<LoadedModel>,
        tenant: &Arc<realm_engine::Tenant>,
        programs: &TenantPrograms,
        request: Request,
    ) -> Result<Reply, Error> {
        let models = self.models.clone();
        // The model that was loaded by that name last.
        let find = move |name: &str| models.living().into_iter().rev().find(|model| model.name == name);
        Ok(self.sandbox.run(Job {
            program: self.inner.clone(),
            request,
            model: Arc::clone(model),
            models: Arc::new(find),
            tenant: Arc::clone(tenant),
            grants: programs.grants(),
            programs: Arc::clone(&programs.others),
        })?)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(self.info()).finish()
    }
}
