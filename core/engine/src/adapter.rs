//! Adapters that an engine's requests may name.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use realm_compute::AdapterUse;

use crate::{Error, Tenant};

/// A LoRA adapter in an engine. Clones are cheap; it is unloaded when the last clone and the last request
/// that uses it have gone.
#[derive(Clone)]
pub struct Adapter(Arc<Loaded>);

struct Loaded {
    id: u32,
    name: String,
    /// The adapters of the engine that has this one.
    adapters: Arc<Adapters>,
    /// Unloads the adapter.
    release: Box<dyn Fn() + Send + Sync>,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        (self.release)();
    }
}

/// The adapters of one engine, for look-ups by name.
#[derive(Default)]
pub(crate) struct Adapters {
    ids: AtomicU32,
    added: Mutex<Vec<Weak<Loaded>>>,
}

impl Adapters {
    /// Returns a new id.
    pub(crate) fn next_id(&self) -> u32 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds an adapter that the engine has. `release` unloads it, and is called by the last handle.
    pub(crate) fn add(
        self: &Arc<Self>,
        id: u32,
        name: String,
        release: impl Fn() + Send + Sync + 'static,
    ) -> Adapter {
        let loaded = Arc::new(Loaded { id, name, adapters: Arc::clone(self), release: Box::new(release) });
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.retain(|adapter| adapter.strong_count() > 0);
        added.push(Arc::downgrade(&loaded));
        Adapter(loaded)
    }

    /// Returns the adapter of that name that was added last, if a handle of it still exists.
    pub(crate) fn named(&self, name: &str) -> Option<Adapter> {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.iter().rev().filter_map(|adapter| adapter.upgrade().map(Adapter)).find(|a| a.name() == name)
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Adapter").field(&self.0.name).finish()
    }
}

impl Adapter {
    /// The name that `adapters` of a tenant's [`Limits`](crate::Limits) lists.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

/// An adapter and its scale, as one request uses them.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    adapter: Adapter,
    scale: f32,
}

impl Applied {
    /// Checks that `tenant` may use the adapter in the engine that `adapters` belong to.
    pub(crate) fn new(
        (adapter, scale): (Adapter, f32),
        adapters: &Arc<Adapters>,
        tenant: &Tenant,
    ) -> Result<Self, Error> {
        let name = adapter.name();
        if !Arc::ptr_eq(&adapter.0.adapters, adapters) {
            let why = format!("the adapter `{name}` was loaded for another model; load it for this one");
            return Err(Error::InvalidArgument(why));
        }
        if !scale.is_finite() {
            return Err(Error::InvalidArgument(format!("the adapter's scale is {scale}; it must be finite")));
        }
        if tenant.read().adapters.as_ref().is_some_and(|names| !names.iter().any(|n| n == name)) {
            let why = "may not use the adapter";
            return Err(Error::LimitExceeded(format!(
                "tenant `{}` {why} `{name}`; add it to `adapters` of its limits",
                tenant.name()
            )));
        }
        Ok(Self { adapter, scale })
    }

    /// Returns the adapter's name and its scale.
    pub(crate) fn name_and_scale(&self) -> (&str, f32) {
        (self.adapter.name(), self.scale)
    }

    /// Returns what the forward pass needs: the adapter's id and its scale.
    pub(crate) fn used(&self) -> AdapterUse {
        AdapterUse { id: self.adapter.0.id, scale: self.scale }
    }
}
