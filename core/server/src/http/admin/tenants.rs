//! Tenants: limits and grants.

use std::collections::BTreeMap;
use std::sync::Arc;

use realm_protocol::ApiError;
use serde_json::{Value, json};

use super::errors::{absent, conflict, invalid, too_many};
use super::models::owns;
use super::{Acting, Answer};
use crate::catalog::{DEFAULT, Names, Origin, TenantEntry};
use crate::config::TenantConfig;
use crate::config::names::check;
use crate::keeper::of_store;
use crate::keys::{Entry, Kind};

/// The most tenants with settings.
const TENANTS: usize = 10_000;

impl Acting {
    pub(super) fn list_tenants(&self) -> (u16, Value) {
        let names = self.state.catalog.names();
        let keys = self.keys_by_tenant();
        let mut all: Vec<&str> = names.tenants.keys().chain(keys.keys()).map(String::as_str).collect();
        all.push(DEFAULT);
        all.sort_unstable();
        all.dedup();
        all.retain(|name| self.by.tenant.as_ref().is_none_or(|own| own == name));
        let shown: Vec<_> = all.into_iter().map(|name| of_tenant(&names, &keys, name)).collect();
        (200, json!({"tenants": shown}))
    }

    pub(super) fn show_tenant(&self) -> Answer {
        let name = self.tenant()?;
        Ok((200, of_tenant(&self.state.catalog.names(), &self.keys_by_tenant(), name)))
    }

    fn keys_by_tenant(&self) -> BTreeMap<String, usize> {
        self.state.keys.as_ref().map(|keys| keys.tenants()).unwrap_or_default()
    }

    pub(super) async fn set_tenant(&self) -> Answer {
        let (name, config): (_, TenantConfig) = (self.names[0].clone(), self.read()?);
        check("tenants", &name).map_err(|why| invalid("name", why))?;
        if !config.adapters.is_empty() || !config.programs.is_empty() {
            let why = "adapters and programs have calls of their own: PUT /admin/tenants/TENANT/adapters/NAME and …/programs/NAME";
            return Err(invalid("adapters", why));
        }
        config.check().map_err(|why| invalid("tenant", why))?;
        let keys = self.keys_by_tenant();
        self.keeper()?
            .run(move |state, store| {
                let names = state.catalog.names();
                match names.tenants.get(&name) {
                    Some(entry) => owns(entry.origin, "tenant", &name)?,
                    None if names.tenants.len() >= TENANTS => return Err(too_many("tenants", TENANTS)),
                    None => {}
                }
                let unknown = |model: &&String| !names.all_models().any(|known| known == *model);
                let known = names.tenants.get(&name).and_then(|entry| entry.config.models.clone());
                let known = known.unwrap_or_default();
                // A model that was unloaded since may stay listed.
                let unknown =
                    config.models.iter().flatten().filter(|model| !known.contains(model)).find(unknown);
                if let Some(model) = unknown {
                    return Err(absent("model", model));
                }
                let value = json!(config);
                store.put(&Entry { kind: Kind::Tenant, name: name.clone(), value }).map_err(of_store)?;
                state.catalog.change(|names| {
                    let entry = TenantEntry { config, origin: Origin::Administration };
                    names.tenants.insert(name.clone(), Arc::new(entry));
                    Ok::<_, ApiError>(())
                })?;
                Ok((200, of_tenant(&state.catalog.names(), &keys, &name)))
            })
            .await
    }

    pub(super) async fn remove_tenant(&self) -> Answer {
        let name = self.names[0].clone();
        self.keeper()?
            .run(move |state, store| {
                let names = state.catalog.names();
                let entry = names.tenants.get(&name).ok_or_else(|| absent("tenant", &name))?;
                owns(entry.origin, "tenant", &name)?;
                if state.keys.as_ref().is_some_and(|keys| keys.has_tenant(&name)) {
                    return Err(conflict(format!("the tenant `{name}` has keys: revoke them first")));
                }
                let owned = names.adapters.keys().chain(names.programs.keys());
                let owned: Vec<_> =
                    owned.filter(|(owner, _)| *owner == name).map(|(_, own)| own.as_str()).collect();
                if !owned.is_empty() {
                    let why = format!("the tenant `{name}` has {}: remove that first", owned.join(", "));
                    return Err(conflict(why));
                }
                store.remove(Kind::Tenant, &name).map_err(of_store)?;
                state.catalog.change(|names| {
                    names.tenants.remove(&name);
                    Ok::<_, ApiError>(())
                })?;
                state.catalog.forget(&name);
                Ok((200, json!({"name": name, "removed": true})))
            })
            .await
    }
}

fn of_tenant(names: &Names, keys: &BTreeMap<String, usize>, name: &str) -> Value {
    let entry = names.tenants.get(name);
    // Adapters and programs have lists of their own, without the server's files.
    let own = TenantConfig { adapters: BTreeMap::new(), programs: BTreeMap::new(), ..names.tenant(name) };
    json!({
        "name": name,
        "origin": entry.map(|entry| entry.origin),
        "config": own,
        "keys": keys.get(name).copied().unwrap_or(0),
    })
}
