//! Tenants: the identities that requests belong to.

use std::sync::Arc;

use realm_engine::MemoryUse;

use crate::commons::Commons;
use crate::error::ErrorCode;
use crate::identity::Identity;
use crate::{Error, Limits, Model, Served};

/// An identity with [`Limits`] that hold over all models it uses. A clone is cheap and is the same tenant.
///
/// Tenants cannot infer each other's prompts from timing: they share no prompts, unless both mark them (see
/// [`SharedPrefix`](crate::SharedPrefix)); each gets its share of the computation by its weight; and each has
/// a part of the prefix cache whose size depends only on the tenants' weights.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub(crate) identity: Arc<Identity>,
    pub(crate) commons: Arc<Commons>,
}

impl Tenant {
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
        for model in self.commons.models.living() {
            served.add(&model.engine.tenant_metrics(&self.identity.inner));
        }
        served
    }
}
