//! Tenants and models, as callers see them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use realm::{Model, Realm, Tenant};
use realm_protocol::{ApiError, BoxFuture, ModelEntry, Models};

use crate::Error;
use crate::config::TenantConfig;
use crate::keys::LiveKey;
use crate::limits::Account;

/// The tenant of requests without a key.
pub(crate) const DEFAULT: &str = "default";

/// A model that clients can name.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) model: Model,
    /// The time of its loading, in seconds since 1970.
    pub(crate) created: u64,
}

/// The models and tenants of a server.
pub(crate) struct Tenants {
    realm: Realm,
    models: BTreeMap<String, Served>,
    configured: BTreeMap<String, TenantConfig>,
    living: RwLock<HashMap<String, Arc<LiveTenant>>>,
}

/// A tenant that has called.
pub(crate) struct LiveTenant {
    tenant: Tenant,
    /// The models that it may name; `None` for all.
    allowed: Option<Vec<String>>,
    pub(crate) account: Arc<Account>,
    /// The models that it has named. A tenant has a part of each one's cache from then on.
    models: Mutex<HashMap<String, Model>>,
}

impl Tenants {
    pub(crate) fn new(
        realm: Realm,
        models: BTreeMap<String, Served>,
        configured: BTreeMap<String, TenantConfig>,
    ) -> Result<Self, Error> {
        for (name, tenant) in &configured {
            let unknown = tenant.models.iter().flatten().find(|model| !models.contains_key(*model));
            if let Some(model) = unknown {
                let names: Vec<_> = models.keys().map(String::as_str).collect();
                return Err(Error(format!(
                    "tenant `{name}` may use `{model}`, which is not served; there are {}",
                    names.join(", ")
                )));
            }
        }
        Ok(Self { realm, models, configured, living: RwLock::default() })
    }

    /// Returns a tenant; the first call of a name creates it.
    pub(crate) fn tenant(&self, name: &str) -> Result<Arc<LiveTenant>, realm::Error> {
        let found = self.living.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(tenant) = found {
            return Ok(tenant);
        }
        let mut living = self.living.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = living.get(name) {
            return Ok(Arc::clone(tenant));
        }
        let config = self.configured.get(name).cloned().unwrap_or_default();
        let tenant = Arc::new(LiveTenant {
            tenant: self.realm.tenant(name, config.limits.limits())?,
            allowed: config.models,
            account: Account::new("tenant", &config.rates),
            models: Mutex::default(),
        });
        living.insert(name.to_owned(), Arc::clone(&tenant));
        Ok(tenant)
    }

    pub(crate) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The names of the models.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }
}

/// The models that one caller may name.
pub(crate) struct Visible {
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) tenant: Arc<LiveTenant>,
    pub(crate) key: Option<Arc<LiveKey>>,
}

impl Visible {
    /// Returns a model's served name and the model. A model that the caller may not use does not exist for
    /// it.
    fn find(&self, name: &str) -> Option<(&str, &Served)> {
        let (name, served) = self.tenants.models.get_key_value(name)?;
        self.may_use(name).then_some((name, served))
    }

    fn may_use(&self, name: &str) -> bool {
        let tenant = self.tenant.allowed.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
        tenant && self.key.as_ref().is_none_or(|key| key.may_use(name))
    }

    fn model_of_tenant(&self, name: &str) -> Result<Model, ApiError> {
        let (name, served) = self.find(name).ok_or_else(|| ApiError::no_model(name))?;
        let mut models = self.tenant.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = models.get(name) {
            return Ok(model.clone());
        }
        let model = self.tenant.tenant.model(&served.model)?;
        models.insert(name.to_owned(), model.clone());
        Ok(model)
    }
}

impl Models for Visible {
    fn model<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Model, ApiError>> {
        Box::pin(std::future::ready(self.model_of_tenant(name)))
    }

    fn list(&self) -> Result<Vec<ModelEntry>, ApiError> {
        let visible = self.tenants.models.iter().filter(|(name, _)| self.may_use(name));
        Ok(visible.map(|(name, served)| ModelEntry { name: name.clone(), created: served.created }).collect())
    }

    fn find(&self, name: &str) -> Result<ModelEntry, ApiError> {
        let (name, served) = self.find(name).ok_or_else(|| ApiError::no_model(name))?;
        Ok(ModelEntry { name: name.to_owned(), created: served.created })
    }
}
