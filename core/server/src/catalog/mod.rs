//! What clients can name: models, aliases, tenants, and tenants' adapters and programs.
//!
//! Requests read a snapshot of the [`Names`]. A change makes a new snapshot; requests that run keep what they
//! have found.
//!
//! - [`names`]: the snapshot.
//! - [`held`]: models, adapters and programs in memory.
//! - [`tenant`]: tenants that have called.
//! - [`work`]: models that are being loaded or unloaded.

mod held;
mod names;
mod tenant;
mod work;

pub(crate) use held::{Compiled, HeldAdapter, HeldProgram, Lease, Origin, Served};
pub(crate) use names::{Alias, Names, TenantEntry};
pub(crate) use tenant::LiveTenant;
pub(crate) use work::{Stage, Work, Works};

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use realm::Realm;

/// The tenant of requests without a key.
pub(crate) const DEFAULT: &str = "default";

/// The time between two looks at the requests of a model that is to be unloaded.
const LOOK: Duration = Duration::from_millis(20);

/// The catalog of a server.
pub(crate) struct Catalog {
    realm: Realm,
    names: RwLock<Arc<Names>>,
    living: RwLock<HashMap<String, Arc<LiveTenant>>>,
    pub(crate) works: Works,
}

impl Catalog {
    pub(crate) fn new(realm: Realm) -> Self {
        Self { realm, names: RwLock::default(), living: RwLock::default(), works: Works::default() }
    }

    pub(crate) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// Returns what can be named now.
    pub(crate) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
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
        // Read within the lock: a change of the tenant's settings comes before, or finds it living.
        let config = self.names().tenant(name);
        let tenant = Arc::new(LiveTenant::new(&self.realm, name, &config)?);
        living.insert(name.to_owned(), Arc::clone(&tenant));
        Ok(tenant)
    }

    fn living(&self) -> Vec<Arc<LiveTenant>> {
        self.living.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Changes what can be named, all or nothing, and gives living tenants their new settings. Models that
    /// have no name any more are unloaded when their requests have ended.
    pub(crate) fn change<T, E>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Names) -> Result<T, E>,
    ) -> Result<T, E> {
        let (old, result) = {
            let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            let mut new = Names::clone(&names);
            let result = change(&mut new)?;
            (std::mem::replace(&mut *names, Arc::new(new)), result)
        };
        let new = self.names();
        for tenant in self.living() {
            let (before, after) = (old.tenant(tenant.name()), new.tenant(tenant.name()));
            if before != after {
                tenant.set(&after);
            }
        }
        for (name, served) in &old.models {
            if new.models.get(name).is_none_or(|other| other.id != served.id) {
                self.retire(name, served);
            }
        }
        Ok(result)
    }

    /// Forgets a tenant that has no settings and no keys any more. Its requests run on.
    pub(crate) fn forget(&self, tenant: &str) {
        let old = self.living.write().unwrap_or_else(PoisonError::into_inner).remove(tenant);
        // Dropping a tenant may wait for an engine's step.
        drop(old);
    }

    /// Frees a model when the requests that have found it have ended.
    fn retire(self: &Arc<Self>, name: &str, served: &Arc<Served>) {
        for tenant in self.living() {
            tenant.forget(name, served.id);
        }
        let work = self.works.unloading(name, served);
        let (this, served, name) = (Arc::clone(self), Arc::clone(served), name.to_owned());
        let wait = move || {
            while served.is_in_use() {
                std::thread::sleep(LOOK);
            }
            drop(served);
            this.works.end(&name, &work);
        };
        if let Err(error) = std::thread::Builder::new().name("realm-unload".into()).spawn(wait) {
            tracing::error!("no thread waits for an unloaded model's requests: {error}");
        }
    }
}
