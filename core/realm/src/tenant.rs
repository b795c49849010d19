//! Who requests belong to.

use std::sync::{Arc, PoisonError, RwLock};

use realm_engine::{MemoryCharge, MemoryKind, MemoryUse};
use realm_sandbox::Programs;

use crate::error::ErrorCode;
use crate::metrics::Models;
use crate::program::Sandboxes;
use crate::{Error, Grants, Limits, Model, Program, Served};

/// An identity with [`Limits`] that hold over all models it uses. Cloning it is cheap and shares everything.
///
/// What one tenant sends cannot be told from how another one's requests go: they share no prompts, unless both mark them
/// (see [`SharedPrefix`](crate::SharedPrefix)), each gets its share of the computation by its weight, and each has a part of
/// what is remembered for later that depends on the tenants' weights alone.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub(crate) identity: Arc<Identity>,
    pub(crate) models: Models,
    pub(crate) sandboxes: Sandboxes,
}

/// A tenant as models see it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) inner: Arc<realm_engine::Tenant>,
    /// What answers its requests; `None` for the built-in generation.
    program: RwLock<Option<(Program, Option<MemoryCharge>)>>,
    pub(crate) programs: Arc<Programs>,
    grants: RwLock<Arc<Grants>>,
}

impl Identity {
    pub(crate) fn new(name: &str, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            inner: Arc::new(realm_engine::Tenant::new(name, limits)?),
            program: RwLock::default(),
            programs: Arc::default(),
            grants: RwLock::default(),
        })
    }

    pub(crate) fn program(&self) -> Option<Program> {
        self.program
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|(program, _)| program.clone())
    }

    /// A charge for a program's code, which is there already; none if this tenant had it compiled, and is charged for it.
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

    /// Its name.
    pub fn name(&self) -> &str {
        self.identity.inner.name()
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        self.identity.inner.limits()
    }

    /// Changes what it may use, from the next step on. Requests that run or wait stay.
    ///
    /// # Errors
    /// `invalid-argument` for limits that mean nothing; then the old ones stay.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Error> {
        Ok(self.identity.inner.set_limits(limits)?)
    }

    /// A loaded model as this tenant sees it: what is asked of it counts against the tenant's limits. From now on until the
    /// tenant is dropped, it has a part of the model's cache, whether it asks anything or not.
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

    /// From now on this program answers the tenant's requests; with `None` Realm generates as for everybody. What runs goes on
    /// with the program it started with: nothing is lost and nothing waits.
    pub fn set_program(&self, program: Option<&Program>) {
        if let Some(program) = program {
            program.expect(&self.identity.inner);
        }
        let program = program.map(|program| (program.clone(), self.identity.charge_code(program)));
        *self.identity.program.write().unwrap_or_else(PoisonError::into_inner) = program;
    }

    /// What answers the tenant's requests.
    pub fn program(&self) -> Option<Program> {
        self.identity.program()
    }

    /// Gives the tenant a program that its other programs may run by this name (`capabilities.run-program`), or another one
    /// for the name.
    pub fn add_program(&self, name: impl Into<String>, program: &Program) {
        program.expect(&self.identity.inner);
        let charge = self.identity.charge_code(program);
        self.identity.programs.set_charged(name, program.inner.clone(), charge);
    }

    /// Takes a program away from those that others may run; says whether there was one.
    pub fn remove_program(&self, name: &str) -> bool {
        self.identity.programs.remove(name)
    }

    /// What the tenant's programs may do beside asking models, from the next request on. Nothing by default.
    pub fn set_grants(&self, grants: Grants) {
        grants.belong_to(self.identity.inner.memory());
        *self.identity.grants.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(grants);
    }

    /// Requests that run now, over all models.
    pub fn running(&self) -> usize {
        self.identity.inner.running()
    }

    /// Requests that wait now, over all models.
    pub fn waiting(&self) -> usize {
        self.identity.inner.waiting()
    }

    /// Bytes of memory that it causes now, by kind, over all models: what the limit `memory` bounds.
    pub fn memory(&self) -> MemoryUse {
        self.identity.inner.memory().read()
    }

    /// What was done for it, over all models that are loaded now.
    pub fn metrics(&self) -> Served {
        let mut served = Served::default();
        for model in self.models.loaded() {
            served.add(&model.engine.tenant_metrics(&self.identity.inner));
        }
        served
    }
}
