//! Adapters that an engine's requests may name.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use realm_compute::AdapterUse;

use crate::engine::{Command, Common};
use crate::{Error, Tenant};

/// A LoRA adapter in an engine. Clones are cheap; it is unloaded when the last clone and the last request
/// that uses it have gone.
#[derive(Clone)]
pub struct Adapter(Arc<Loaded>);

/// A reference to an adapter that does not keep it loaded.
pub(crate) struct WeakAdapter(Weak<Loaded>);

impl WeakAdapter {
    pub(crate) fn upgrade(&self) -> Option<Adapter> {
        self.0.upgrade().map(Adapter)
    }
}

struct Loaded {
    id: u32,
    name: String,
    engine: Sender<Command>,
    common: Arc<Common>,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // A stopped engine has already freed the adapter.
        let _ = self.engine.send(Command::RemoveAdapter(self.id));
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Adapter").field(&self.0.name).finish()
    }
}

impl Adapter {
    pub(crate) fn new(id: u32, name: String, engine: Sender<Command>, common: Arc<Common>) -> Self {
        Self(Arc::new(Loaded { id, name, engine, common }))
    }

    /// Returns a reference that does not keep the adapter loaded.
    pub(crate) fn downgrade(&self) -> WeakAdapter {
        WeakAdapter(Arc::downgrade(&self.0))
    }

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
    /// Checks that `tenant` may use the adapter in the engine that `common` belongs to.
    pub(crate) fn new(
        (adapter, scale): (Adapter, f32),
        common: &Arc<Common>,
        tenant: &Tenant,
    ) -> Result<Self, Error> {
        let name = adapter.name();
        if !Arc::ptr_eq(&adapter.0.common, common) {
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
