//! Tenants: the identities that requests belong to.

use std::sync::{Arc, PoisonError, RwLock};

use realm_engine::{MemoryCharge, MemoryKind, MemoryUse};
use realm_sandbox::Programs;

use crate::background::Turn;
use crate::error::ErrorCode;
use crate::metrics::Models;
use crate::program::Sandboxes;
use crate::{Error, Grants, Limits, Model, Program, Served};

/// An identity with [`Limits`] that hold over all models it uses. A clone is cheap and is the same tenant.
///
/// Tenants cannot infer each other's prompts from timing: they share no prompts, unless both mark them (see
/// [`SharedPrefix`](crate::SharedPrefix)); each gets its share of the computation by its weight; and each has
/// a part of the prefix cache whose size depends only on the tenants' weights.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub(crate) identity: Arc<Identity>,
    pub(crate) models: Models,
    pub(crate) sandboxes: Sandboxes,
}

/// The part of a tenant that models use.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) inner: Arc<realm_engine::Tenant>,
    /// The program that answers the tenant's requests; `None` for the built-in generation.
    program: RwLock<Option<(Program, Option<MemoryCharge>)>>,
    pub(crate) programs: Arc<Programs>,
    grants: RwLock<Arc<Grants>>,
    pub(crate) preparing: Turn,
}

impl Identity {
    pub(crate) fn new(name: &str, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            inner: Arc::new(realm_engine::Tenant::new(name, limits)?),
            program: RwLock::default(),
            programs: Arc::default(),
            grants: RwLock::default(),
            preparing: Turn::default(),
        })
    }

    pub(crate) fn program(&self) -> Option<Program> {
        self.program
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|(program, _)| program.clone())
    }

    /// Charges the tenant for a program's compiled code. `None` if this tenant had it compiled and is charged
    /// already.
    fn charge_code(&self, program: &Program) -> Option<MemoryCharge> {
        let ledger = self.inner.memory();
        if program.inner.is_charged_to(ledger) {
            return None;
        }
        let mut charge = ledger.open(MemoryKind::Code);
        charge.add(program.inner.memory());
        Some(charge)
    }

    pub(crate) fn grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tenant {
    pub(crate) fn new(
        name: &str,
        limits: Limits,
        models: Models,
        sandboxes: Sandboxes,
    ) -> Result<Self, Error> {
        let identity = Arc::new(Identity::new(name, limits)?);
        models.add_tenant(&identity);
        Ok(Self { identity, models, sandboxes })
    }

    /// The tenant's name.
    pub fn name(&self) -> &str {
        self.identity.inner.name()
    }

    /// The tenant's limits.
    pub fn limits(&self) -> Limits {
        self.identity.inner.limits()
    }

    /// Changes the limits, from the next step on. Requests that run or wait stay.
    ///
    /// # Errors
    /// `invalid-argument` for a limit that is out of range; the old ones then stay.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Error> {
        Ok(self.identity.inner.set_limits(limits)?)
    }

    /// Returns a loaded model as this tenant sees it: requests to it count against the tenant's limits. Until
    /// the tenant is dropped, it has a part of the model's cache, even if it sends no requests.
    ///
    /// # Errors
    /// `limit-exceeded` for a model that the tenant may not use.
    pub fn model(&self, model: &Model) -> Result<Model, Error> {
        let limits = self.identity.inner.limits();
        let reference = model.reference();
        if limits.models.as_ref().is_some_and(|models| !models.iter().any(|name| name == reference)) {
            let why = format!(
                "tenant `{}` may not use the model `{reference}`; add it to `models` of its limits",
                self.name()
            );
            return Err(Error::new(ErrorCode::LimitExceeded, why));
        }
        Ok(model.seen_by(&self.identity))
    }

    /// Sets the program that answers the tenant's requests from now on; `None` returns to Realm's own
    /// generation. Running requests finish with the program they started with, so none is lost or delayed.
    pub fn set_program(&self, program: Option<&Program>) {
        if let Some(program) = program {
            program.expect(&self.identity.inner);
        }
        let program = program.map(|program| (program.clone(), self.identity.charge_code(program)));
        *self.identity.program.write().unwrap_or_else(PoisonError::into_inner) = program;
    }

    /// The program that answers the tenant's requests.
    pub fn program(&self) -> Option<Program> {
        self.identity.program()
    }

    /// Adds a program, by a name, that the tenant's other programs may run (`capabilities.run-program`).
    /// Replaces an earlier program of that name.
    pub fn add_program(&self, name: impl Into<String>, program: &Program) {
        program.expect(&self.identity.inner);
        let charge = self.identity.charge_code(program);
        self.identity.programs.set_charged(name, program.inner.clone(), charge);
    }

    /// Removes a program that others may run; returns whether there was one of that name.
    pub fn remove_program(&self, name: &str) -> bool {
        self.identity.programs.remove(name)
    }

    /// Sets what the tenant's programs may do besides asking models, from the next request on. The default is
    /// nothing.
    pub fn set_grants(&self, grants: Grants) {
        grants.belong_to(self.identity.inner.memory());
        *self.identity.grants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grants);
    }

    /// The number of requests that run now, over all models.
    pub fn running(&self) -> usize {
        self.identity.inner.running()
    }

    /// The number of requests that wait now, over all models.
    pub fn waiting(&self) -> usize {
        self.identity.inner.waiting()
    }

    /// The memory that the tenant holds now, in bytes by kind, over all models. The limit `memory` bounds it.
    pub fn memory(&self) -> MemoryUse {
        self.identity.inner.memory().read()
    }

    /// Reads the tenant's counters, over all models that are loaded now.
    pub fn metrics(&self) -> Served {
        let mut served = Served::default();
        for model in self.models.loaded() {
            served.add(&model.engine.tenant_metrics(&self.identity.inner));
        }
        served
    }
}
