//! Who requests belong to.

use std::sync::Arc;

use crate::error::ErrorCode;
use crate::metrics::Models;
use crate::{Error, Limits, Model, Served};

/// An identity with [`Limits`] that hold over all models it uses. Cloning it is cheap and shares everything.
///
/// What one tenant sends cannot be told from how another one's requests go: they share no prompts, unless both mark them
/// (see [`SharedPrefix`](crate::SharedPrefix)), and each gets its share of the computation by its weight.
#[derive(Clone, Debug)]
pub struct Tenant {
    inner: Arc<realm_engine::Tenant>,
    models: Models,
}

impl Tenant {
    pub(crate) fn new(name: &str, limits: Limits, models: Models) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new(realm_engine::Tenant::new(name, limits)?), models })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        self.inner.limits()
    }

    /// Changes what it may use, from the next step on. Requests that run or wait stay.
    ///
    /// # Errors
    /// `invalid-argument` for limits that mean nothing; then the old ones stay.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Error> {
        Ok(self.inner.set_limits(limits)?)
    }

    /// A loaded model as this tenant sees it: what is asked of it counts against the tenant's limits.
    ///
    /// # Errors
    /// `limit-exceeded` for a model that the tenant may not use.
    pub fn model(&self, model: &Model) -> Result<Model, Error> {
        let limits = self.inner.limits();
        let reference = model.reference();
        if limits.models.as_ref().is_some_and(|models| !models.iter().any(|name| name == reference)) {
            let why = format!(
                "tenant `{}` may not use the model `{reference}`; add it to `models` of its limits",
                self.name()
            );
            return Err(Error::new(ErrorCode::LimitExceeded, why));
        }
        Ok(model.seen_by(&self.inner))
    }

    /// Requests that run now, over all models.
    pub fn running(&self) -> usize {
        self.inner.running()
    }

    /// Requests that wait now, over all models.
    pub fn waiting(&self) -> usize {
        self.inner.waiting()
    }

    /// What was done for it, over all models that are loaded now.
    pub fn metrics(&self) -> Served {
        let mut served = Served::default();
        for model in self.models.loaded() {
            served.add(&model.engine.tenant_metrics(&self.inner));
        }
        served
    }
}
