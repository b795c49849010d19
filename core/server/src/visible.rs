//! What one caller may name.

use std::sync::{Arc, OnceLock};

use realm::{Adapter, Model};
use realm_protocol::{ApiError, BoxFuture, Extras, ModelEntry, Models};

use crate::call::{Call, Caller};
use crate::catalog::{Catalog, Names};

/// The models, adapters and programs that the caller of one call may name. What it may not use does not exist
/// for it.
pub(crate) struct Visible {
    catalog: Arc<Catalog>,
    caller: Caller,
    call: Arc<Call>,
    /// The id of the model that the call has found.
    found: OnceLock<u64>,
}

impl Visible {
    pub(crate) fn new(catalog: &Arc<Catalog>, caller: Caller, call: &Arc<Call>) -> Self {
        Self { catalog: Arc::clone(catalog), caller, call: Arc::clone(call), found: OnceLock::new() }
    }

    fn may_use(&self, names: &Names, name: &str) -> bool {
        let key = self.caller.key.as_ref().and_then(|key| key.key.models.as_deref());
        names.may_use(&self.caller.tenant_name, name) && key.is_none_or(|list| names.lists(list, name))
    }

    fn model_of_tenant(&self, name: &str) -> Result<Model, ApiError> {
        let find = |names: &Names| {
            let (own, served) = names.model(name)?;
            self.may_use(names, name).then(|| (own.to_owned(), Arc::clone(served)))
        };
        let found = self.caller.tenant.model(|| self.catalog.names(), find);
        let (model, id, lease) = found.ok_or_else(|| ApiError::no_model(name))??;
        self.call.holds(lease);
        // A call names one model.
        let _ = self.found.set(id);
        Ok(model)
    }

    /// Returns an adapter of the model that the call has found.
    pub(crate) fn adapter(&self, name: &str) -> Result<Adapter, ApiError> {
        let names = self.catalog.names();
        let held = names.adapter(&self.caller.tenant_name, name).ok_or_else(|| Extras::no_adapter(name))?;
        let adapter = held.adapter.as_ref().map_err(|_| Extras::no_adapter(name))?;
        if self.found.get() != Some(&held.model) {
            let why =
                format!("the adapter `{name}` is one of another model; leave it out, or name its model");
            return Err(ApiError::invalid("realm.adapter", why));
        }
        Ok(adapter.clone())
    }

    fn with_extras(&self, mut model: Model, extras: &Extras) -> Result<Model, ApiError> {
        let (names, tenant) = (self.catalog.names(), &*self.caller.tenant_name);
        if let Some((name, scale)) = &extras.adapter {
            model = model.adapted(&self.adapter(name)?, *scale);
        }
        let own = names.tenants.get(tenant).and_then(|entry| entry.config.program.as_ref());
        match extras.program.as_ref().or(own) {
            Some(name) => answered_by(&names, tenant, name, &model),
            None => Ok(model),
        }
    }
}

#[cfg(feature = "sandbox")]
fn answered_by(names: &Names, tenant: &str, name: &str, model: &Model) -> Result<Model, ApiError> {
    let held = names.program(tenant, name).ok_or_else(|| Extras::no_program(name))?;
    let program = held.program.as_ref().map_err(|_| Extras::no_program(name))?;
    Ok(model.answered_by(program))
}

#[cfg(not(feature = "sandbox"))]
fn answered_by(_: &Names, _: &str, name: &str, _: &Model) -> Result<Model, ApiError> {
    Err(Extras::no_program(name))
}

impl Models for Visible {
    fn model<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Model, ApiError>> {
        Box::pin(std::future::ready(self.model_of_tenant(name)))
    }

    fn equipped<'a>(&'a self, model: Model, extras: &'a Extras) -> BoxFuture<'a, Result<Model, ApiError>> {
        Box::pin(std::future::ready(self.with_extras(model, extras)))
    }

    fn list(&self) -> Result<Vec<ModelEntry>, ApiError> {
        let names = self.catalog.names();
        let visible = names.all_models().filter(|name| self.may_use(&names, name));
        let entry = |name: &str| {
            let (_, served) = names.model(name)?;
            Some(ModelEntry { name: name.to_owned(), created: served.created })
        };
        Ok(visible.filter_map(entry).collect())
    }

    fn find(&self, name: &str) -> Result<ModelEntry, ApiError> {
        let names = self.catalog.names();
        let found = names.model(name).filter(|_| self.may_use(&names, name));
        let (_, served) = found.ok_or_else(|| ApiError::no_model(name))?;
        Ok(ModelEntry { name: name.to_owned(), created: served.created })
    }
}
