//! Tenants that have called.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use realm::{Model, Realm, Tenant};

use super::{Lease, Names, Served};
use crate::config::TenantConfig;
use crate::limits::Account;

/// A tenant that has called.
pub(crate) struct LiveTenant {
    tenant: Tenant,
    pub(crate) account: Arc<Account>,
    /// The models that it has named, by their names, with the ids of their loads. A tenant has a part of each
    /// one's cache from then on.
    models: Mutex<HashMap<String, (u64, Model)>>,
    /// The data of the tenant's programs, and the most bytes of it: they outlive a change of other grants.
    #[cfg(feature = "sandbox")]
    store: Mutex<Option<(usize, realm::Grants)>>,
}

impl LiveTenant {
    pub(super) fn new(realm: &Realm, name: &str, config: &TenantConfig) -> Result<Self, realm::Error> {
        let this = Self {
            tenant: realm.tenant(name, config.limits.limits())?,
            account: Account::new("tenant", &config.rates),
            models: Mutex::default(),
            #[cfg(feature = "sandbox")]
            store: Mutex::default(),
        };
        this.grant(config);
        Ok(this)
    }

    pub(crate) fn name(&self) -> &str {
        self.tenant.name()
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Changes limits and grants. Requests that run or wait stay.
    pub(super) fn set(&self, config: &TenantConfig) {
        self.account.set_rates(&config.rates);
        if let Err(error) = self.tenant.set_limits(config.limits.limits()) {
            // Settings are checked before they get here.
            tracing::error!(tenant = self.name(), "the tenant keeps its limits: {error}");
        }
        self.grant(config);
    }

    #[cfg(feature = "sandbox")]
    fn grant(&self, config: &TenantConfig) {
        use realm::{Grants, Random, Store};
        let granted = &config.grants;
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.as_ref().map(|(quota, _)| *quota) != granted.store {
            *store = granted.store.map(|quota| (quota, Grants::none().store(Store::in_memory(quota))));
        }
        let mut grants = store.as_ref().map_or_else(Grants::none, |(_, grants)| grants.clone());
        if granted.log {
            grants = grants.log();
        }
        if granted.clock {
            grants = grants.clock();
        }
        if granted.random {
            grants = grants.random(Random::System);
        }
        let grants = granted.http.iter().fold(grants, |grants, host| grants.http(host));
        self.tenant.set_grants(grants);
    }

    #[cfg(not(feature = "sandbox"))]
    fn grant(&self, _: &TenantConfig) {}

    /// Returns the model that `find` finds in the names of now, as this tenant sees it, and what keeps it
    /// loaded.
    pub(crate) fn model(
        &self,
        names: impl FnOnce() -> Arc<Names>,
        find: impl FnOnce(&Names) -> Option<(String, Arc<Served>)>,
    ) -> Option<Result<(Model, u64, Lease), realm::Error>> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        // Read within the lock: a model that is unloaded meanwhile is not found, or is forgotten here after.
        let (name, served) = find(&names())?;
        let lease = served.lease();
        if let Some((id, model)) = models.get(&name)
            && *id == served.id
        {
            return Some(Ok((model.clone(), served.id, lease)));
        }
        let model = match self.tenant.model(&served.model) {
            Ok(model) => model,
            Err(error) => return Some(Err(error)),
        };
        let old = models.insert(name, (served.id, model.clone()));
        drop(models);
        drop(old);
        Some(Ok((model, served.id, lease)))
    }

    /// Forgets a load of a model.
    pub(super) fn forget(&self, name: &str, id: u64) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let old = models.get(name).is_some_and(|(known, _)| *known == id).then(|| models.remove(name));
        drop(models);
        // Dropping a model may wait for its engine's step.
        drop(old);
    }
}
