//! Tenants: the identities that requests belong to.

use std::fmt;
use std::sync::Arc;

use realm_engine::{MemoryCharge, MemoryKind, MemoryUse};

use crate::commons::Commons;
use crate::error::ErrorCode;
use crate::identity::Identity;
use crate::model::Inner;
use crate::remote::Server;
use crate::{Error, Limits, Model, Served};

/// An identity with [`Limits`] that hold over all models it uses. A clone is cheap and is the same tenant.
///
/// Tenants cannot infer each other's prompts from timing: they share no prompts, unless both mark them (see
/// [`SharedPrefix`](crate::SharedPrefix)); each gets its share of the computation by its weight; and each has
/// a part of the prefix cache whose size depends only on the tenants' weights.
///
/// Of a server it is the tenant of the caller's key. The server counts what it runs, waits for and holds.
#[derive(Clone)]
pub struct Tenant {
    pub(crate) identity: Arc<Identity>,
    pub(crate) home: Home,
}

/// The party whose tenant it is.
#[derive(Clone)]
pub(crate) enum Home {
    Local(Arc<Commons>),
    Remote(Arc<dyn Server>),
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
    /// `invalid-argument` for a limit that is out of range; the old ones then stay. `unsupported` for a
    /// server's tenant.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Error> {
        self.commons("its limits")?;
        Ok(self.identity.inner.set_limits(limits)?)
    }

    /// Returns a loaded model as this tenant sees it: requests to it count against the tenant's limits. Until
    /// the tenant is dropped, it has a part of the model's cache, even if it sends no requests.
    ///
    /// # Errors
    /// `limit-exceeded` for a model that the tenant may not use, `invalid-argument` if only one of both is a
    /// server's.
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
        match (&self.home, &model.inner) {
            (Home::Local(_), Inner::Local(model)) => Ok(Model::local(model.seen_by(&self.identity))),
            (Home::Remote(_), Inner::Remote(other)) if Arc::ptr_eq(&other.tenant, &self.identity) => {
                Ok(model.clone())
            }
            _ => {
                let why = format!(
                    "the model `{reference}` belongs to another realm than the tenant `{}`; load it with the tenant's realm",
                    self.name()
                );
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
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

    /// Takes bytes of the application's own on the tenant's account, until the charge is dropped: for what an
    /// application keeps for the tenant, such as results that wait for a slow reader.
    ///
    /// # Errors
    /// `limit-exceeded` if the tenant would hold more than its limit `memory`.
    pub fn charge(&self, kind: MemoryKind, bytes: usize) -> Result<MemoryCharge, Error> {
        Ok(self.identity.inner.memory().charge(kind, bytes)?)
    }

    /// Returns what the tenants of one runtime have in common.
    ///
    /// # Errors
    /// `unsupported` for a server's tenant, with the thing that it does not have here.
    pub(crate) fn commons(&self, lacks: &str) -> Result<&Arc<Commons>, Error> {
        match &self.home {
            Home::Local(commons) => Ok(commons),
            Home::Remote(server) => {
                let why = format!(
                    "`{}` is a tenant of the server {}, which administers {lacks}; see `realm admin tenants` and `realm admin \
                     programs`",
                    self.name(),
                    server.url()
                );
                Err(Error::new(ErrorCode::Unsupported, why))
            }
        }
    }

    /// Reads the tenant's counters, over all models that are loaded now.
    pub fn metrics(&self) -> Served {
        let mut served = Served::default();
        let Home::Local(commons) = &self.home else { return served };
        for model in commons.models.living() {
            served.add(&model.engine.tenant_metrics(&self.identity.inner));
        }
        served
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("name", &self.name()).finish_non_exhaustive()
    }
}
