//! Tenants' LoRA adapters.

use std::sync::Arc;

use realm_protocol::ApiError;
use serde_json::{Value, json};

use super::errors::{absent, invalid, too_many};
use super::models::owns;
use super::{Acting, Answer, full_name, loaded, on_a_thread};
use crate::assets;
use crate::catalog::{HeldAdapter, Names, Origin};
use crate::config::AdapterConfig;
use crate::config::names::check;
use crate::keeper::of_store;
use crate::keys::{Entry, Kind};

/// The most adapters of a tenant.
const ADAPTERS: usize = 64;

impl Acting {
    pub(super) fn list_adapters(&self) -> Answer {
        let (tenant, names) = (self.tenant()?, self.state.catalog.names());
        let own = names.adapters.iter().filter(|((owner, _), _)| owner == tenant);
        let mut shown: Vec<_> =
            own.map(|((_, name), held)| of_adapter(name, held, self.by.tenant.is_none())).collect();
        for granted in &names.tenant(tenant).grants.adapters {
            if let Some(held) = names.adapter(tenant, granted) {
                shown.push(of_adapter(granted, held, false));
            }
        }
        // A tenant learns no name of a model that it may not use.
        if let Some(tenant) = &self.by.tenant {
            let may =
                |entry: &Value| entry["model"].as_str().is_some_and(|model| names.may_use(tenant, model));
            shown.iter_mut().filter(|entry| !may(entry)).for_each(|entry| entry["model"] = Value::Null);
        }
        Ok((200, json!({"adapters": shown})))
    }

    pub(super) async fn load_adapter(&self) -> Answer {
        let (tenant, name) = (self.tenant()?.to_owned(), self.names[1].clone());
        check("adapters", &name).map_err(|why| invalid("name", why))?;
        let config: AdapterConfig = self.read()?;
        let key = (tenant.clone(), name.clone());
        let names = self.state.catalog.names();
        may_load(&names, &key)?;
        let served = names.models.get(&config.model).ok_or_else(|| absent("model", &config.model))?;
        let (served, wanted) = (Arc::clone(served), config.clone());
        let (served, adapter) = on_a_thread(move || {
            let adapter = loaded(assets::load_adapter(&served, &wanted))?;
            Ok((served, adapter))
        })
        .await?;
        let keeper = self.keeper()?;
        keeper
            .run(move |state, store| {
                let names = state.catalog.names();
                if names.models.get(&config.model).is_none_or(|now| now.id != served.id) {
                    return Err(absent("model", &config.model));
                }
                may_load(&names, &key)?;
                let entry =
                    Entry { kind: Kind::Adapter, name: full_name(&tenant, &name), value: json!(config) };
                store.put(&entry).map_err(of_store)?;
                let held = HeldAdapter {
                    config,
                    origin: Origin::Administration,
                    model: served.id,
                    adapter: Ok(adapter),
                };
                let held = Arc::new(held);
                let shown = of_adapter(&name, &held, true);
                state.catalog.change(|names| {
                    names.adapters.insert(key, held);
                    Ok::<_, ApiError>(())
                })?;
                Ok((200, shown))
            })
            .await
    }

    pub(super) async fn unload_adapter(&self) -> Answer {
        let (tenant, name) = (self.tenant()?.to_owned(), self.names[1].clone());
        self.keeper()?
            .run(move |state, store| {
                let (names, key) = (state.catalog.names(), (tenant.clone(), name.clone()));
                let held = names.adapters.get(&key).ok_or_else(|| absent("adapter", &name))?;
                owns(held.origin, "adapter", &name)?;
                store.remove(Kind::Adapter, &full_name(&tenant, &name)).map_err(of_store)?;
                state.catalog.change(|names| {
                    names.adapters.remove(&key);
                    Ok::<_, ApiError>(())
                })?;
                Ok((200, json!({"name": name, "removed": true})))
            })
            .await
    }
}

/// Checks that a tenant can have an adapter of a name, or another one.
fn may_load(names: &Names, key: &(String, String)) -> Result<(), ApiError> {
    match names.adapters.get(key) {
        Some(held) => owns(held.origin, "adapter", &key.1),
        None if names.adapters.keys().filter(|(owner, _)| *owner == key.0).count() >= ADAPTERS => {
            Err(too_many("adapters", ADAPTERS))
        }
        None => Ok(()),
    }
}

/// Returns what is known of an adapter; of its file only for administrators.
fn of_adapter(name: &str, held: &HeldAdapter, all: bool) -> Value {
    let mut shown = json!({"name": name, "model": held.config.model, "origin": held.origin});
    match &held.adapter {
        Ok(adapter) => {
            shown["state"] = json!("loaded");
            shown["rank"] = json!(adapter.rank());
            shown["bytes"] = json!(adapter.bytes());
        }
        Err(why) => {
            shown["state"] = json!("failed");
            if all {
                shown["error"] = json!(why);
            }
        }
    }
    if all {
        shown["source"] = json!(held.config.source);
    }
    shown
}
