//! Models and aliases.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::errors::{absent, conflict, invalid, of_configuration, too_many};
use super::{Acting, Answer};
use crate::assets;
use crate::catalog::{Alias, Catalog, Names, Origin, Served, Stage, Work};
use crate::config::ModelConfig;
use crate::config::names::check_model;
use crate::keeper::of_store;
use crate::keys::{Entry, Kind};
use crate::state::State;
use realm_protocol::ApiError;

/// The most models, and the most aliases.
const MODELS: usize = 256;
const ALIASES: usize = 1024;

impl Acting {
    pub(super) fn list_models(&self) -> (u16, Value) {
        let shown = self.shown().into_values().map(Value::Object).collect::<Vec<_>>();
        (200, json!({"models": shown}))
    }

    pub(super) fn show_model(&self) -> Answer {
        let found = self.shown().remove(&self.names[0]);
        Ok((200, found.ok_or_else(|| absent("model", &self.names[0]))?.into()))
    }

    /// Returns what the caller may know of models, by name.
    fn shown(&self) -> BTreeMap<String, Map<String, Value>> {
        let names = self.state.catalog.names();
        let mut all = BTreeMap::new();
        for (name, served) in &names.models {
            all.insert(name.clone(), of_served(name, served));
        }
        for (name, work) in self.state.catalog.works.all() {
            let entry = all.entry(name).or_insert_with_key(|name| of_work(name, &work));
            add(entry, &work);
        }
        if let Some(tenant) = &self.by.tenant {
            all.retain(|name, entry| {
                entry.retain(|key, _| key == "name" || key == "state");
                names.models.contains_key(name) && names.may_use(tenant, name)
            });
        }
        all
    }

    /// Begins to load a model, on a thread of its own.
    pub(super) fn load_model(&self) -> Answer {
        let (name, config): (_, ModelConfig) = (self.names[0].clone(), self.read()?);
        check_model(&name).map_err(|why| invalid("name", why))?;
        if let Some(tokens) = config.context_length.filter(|&tokens| tokens == 0) {
            return Err(invalid(
                "context-length",
                format!("context-length is {tokens}; it must be at least 1"),
            ));
        }
        let (keeper, catalog) = (self.keeper()?, &self.state.catalog);
        let names = catalog.names();
        may_load(&names, &name)?;
        if let Some(served) = names.models.get(&name).filter(|served| served.config == config) {
            return Ok((200, of_served(&name, served).into()));
        }
        let work = catalog.works.load(&name, config.clone()).map_err(conflict)?;
        let mut shown = of_work(&name, &work);
        add(&mut shown, &work);
        let running = Running { catalog: Arc::clone(catalog), name, work, failed: None };
        let state = Arc::clone(&self.state);
        let load = move || running.load(&state, config, &keeper);
        let thread = std::thread::Builder::new().name("realm-load".into()).spawn(load);
        thread.map_err(|error| conflict(format!("no thread to load a model: {error}")))?;
        Ok((202, shown.into()))
    }

    /// Takes a model's name away, and unloads it when its requests have ended.
    pub(super) async fn unload_model(&self) -> Answer {
        let name = self.names[0].clone();
        self.keeper()?
            .run(move |state, store| {
                let catalog = &state.catalog;
                let names = catalog.names();
                let Some(served) = names.models.get(&name) else {
                    // A load that failed is forgotten, and with it an entry that could not be restored.
                    let failed = catalog.works.forget_failed(&name);
                    let kept = store.remove(Kind::Model, &name).map_err(of_store)?;
                    return if failed || kept {
                        Ok((200, json!({"name": name, "state": "unloaded"})))
                    } else {
                        Err(absent("model", &name))
                    };
                };
                owns(served.origin, "model", &name)?;
                is_unused(&names, &name)?;
                store.remove(Kind::Model, &name).map_err(of_store)?;
                let running = served.running();
                catalog.change(|names| {
                    names.models.remove(&name);
                    Ok::<_, ApiError>(())
                })?;
                Ok((202, json!({"name": name, "state": "unloading", "running": running})))
            })
            .await
    }

    pub(super) fn list_aliases(&self) -> (u16, Value) {
        let names = self.state.catalog.names();
        let may = |name: &str| self.by.tenant.as_ref().is_none_or(|tenant| names.may_use(tenant, name));
        let shown = names.aliases.iter().filter(|(name, _)| may(name));
        let shown = shown.map(|(name, alias)| {
            let mut entry = json!({"name": name, "origin": alias.origin});
            // A tenant that may use an alias alone learns nothing of the model behind it.
            if may(&alias.model) {
                entry["model"] = json!(alias.model);
            }
            entry
        });
        (200, json!({"aliases": shown.collect::<Vec<_>>()}))
    }

    pub(super) async fn set_alias(&self) -> Answer {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            model: String,
        }
        let (name, Body { model }) = (self.names[0].clone(), self.read()?);
        check_model(&name).map_err(|why| invalid("name", why))?;
        self.keeper()?
            .run(move |state, store| {
                let names = state.catalog.names();
                match names.aliases.get(&name) {
                    Some(alias) => owns(alias.origin, "alias", &name)?,
                    None if names.aliases.len() >= ALIASES => return Err(too_many("aliases", ALIASES)),
                    None => {}
                }
                if names.models.contains_key(&name) {
                    return Err(conflict(format!("`{name}` is a model; an alias needs a name of its own")));
                }
                if !names.models.contains_key(&model) {
                    return Err(absent("model", &model));
                }
                let entry = Entry { kind: Kind::Alias, name: name.clone(), value: json!(model) };
                store.put(&entry).map_err(of_store)?;
                state.catalog.change(|names| {
                    let alias = Alias { model: model.clone(), origin: Origin::Administration };
                    names.aliases.insert(name.clone(), alias);
                    Ok::<_, ApiError>(())
                })?;
                Ok((200, json!({"name": name, "model": model, "origin": Origin::Administration})))
            })
            .await
    }

    pub(super) async fn remove_alias(&self) -> Answer {
        let name = self.names[0].clone();
        self.keeper()?
            .run(move |state, store| {
                let names = state.catalog.names();
                let alias = names.aliases.get(&name).ok_or_else(|| absent("alias", &name))?;
                owns(alias.origin, "alias", &name)?;
                store.remove(Kind::Alias, &name).map_err(of_store)?;
                state.catalog.change(|names| {
                    names.aliases.remove(&name);
                    Ok::<_, ApiError>(())
                })?;
                Ok((200, json!({"name": name, "removed": true})))
            })
            .await
    }
}

/// Checks that administration may change an entry.
pub(super) fn owns(origin: Origin, kind: &str, name: &str) -> Result<(), ApiError> {
    if origin == Origin::Administration { Ok(()) } else { Err(of_configuration(kind, name)) }
}

/// Checks that a name can have a model, or another one.
fn may_load(names: &Names, name: &str) -> Result<(), ApiError> {
    match names.models.get(name) {
        Some(served) => {
            owns(served.origin, "model", name)?;
            let adapters: Vec<_> = names.adapters_of(name).collect();
            if !adapters.is_empty() {
                let why = format!(
                    "`{name}` has adapters, which fit it alone: unload {} first",
                    adapters.join(", ")
                );
                return Err(conflict(why));
            }
        }
        None if names.aliases.contains_key(name) => {
            return Err(conflict(format!("`{name}` is an alias; a model needs a name of its own")));
        }
        None if names.models.len() >= MODELS => return Err(too_many("models", MODELS)),
        None => {}
    }
    Ok(())
}

/// Checks that nothing needs a model.
fn is_unused(names: &Names, name: &str) -> Result<(), ApiError> {
    let aliases: Vec<_> = names.aliases_of(name).collect();
    if !aliases.is_empty() {
        let why = format!("aliases stand for `{name}`: point {} elsewhere first", aliases.join(", "));
        return Err(conflict(why));
    }
    let adapters: Vec<_> = names.adapters_of(name).collect();
    if !adapters.is_empty() {
        return Err(conflict(format!("`{name}` has adapters: unload {} first", adapters.join(", "))));
    }
    Ok(())
}

/// A load on its thread. Records its end when dropped, even if the load panics.
struct Running {
    catalog: Arc<Catalog>,
    name: String,
    work: Arc<Work>,
    failed: Option<String>,
}

impl Running {
    fn load(mut self, state: &Arc<State>, config: ModelConfig, keeper: &crate::keeper::Keeper) {
        self.failed = Some("the load stopped without a result".to_owned());
        let loaded = assets::load_model(state, &self.name, &config, &self.work);
        let added = loaded.map_err(|error| error.to_string()).and_then(|model| {
            let served = Served::new(model, config, Origin::Administration);
            let name = self.name.clone();
            let add = keeper.run_blocking(move |state, store| {
                may_load(&state.catalog.names(), &name)?;
                let value = json!(served.config);
                store.put(&Entry { kind: Kind::Model, name: name.clone(), value }).map_err(of_store)?;
                state.catalog.change(|names| {
                    names.models.insert(name, served);
                    Ok::<_, ApiError>(())
                })
            });
            add.map_err(|error| error.message().to_owned())
        });
        self.failed = added.err();
        match &self.failed {
            None => tracing::info!("`{}` is loaded", self.name),
            Some(why) => tracing::error!("`{}` can't be loaded: {why}", self.name),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match self.failed.take() {
            None => self.catalog.works.end(&self.name, &self.work),
            Some(why) => self.work.fail(why),
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn of_served(name: &str, served: &Served) -> Map<String, Value> {
    object(json!({
        "name": name,
        "state": "loaded",
        "origin": served.origin,
        "config": served.config,
        "created": served.created,
        "running": served.running(),
    }))
}

fn of_work(name: &str, work: &Work) -> Map<String, Value> {
    let state = match work.stage() {
        Stage::Fetching | Stage::Loading => "loading",
        Stage::Unloading(_) => "unloading",
        Stage::Failed(_) => "failed",
    };
    object(json!({"name": name, "state": state, "config": work.config}))
}

/// Adds what is known of a work to its model.
fn add(entry: &mut Map<String, Value>, work: &Work) {
    let mut loading = |stage: &str| {
        let (done, total) = work.progress();
        if entry.get("state").is_none_or(|state| state != "loaded") {
            entry.insert("state".into(), json!("loading"));
        }
        entry.insert("loading".into(), json!({"stage": stage, "done": done, "total": total}));
    };
    match work.stage() {
        Stage::Fetching => loading("fetching"),
        Stage::Loading => loading("loading"),
        Stage::Unloading(served) => {
            let all = entry.entry("unloading").or_insert_with(|| json!([]));
            if let Value::Array(list) = all {
                list.push(json!({"running": served.running()}));
            }
        }
        Stage::Failed(why) => {
            entry.insert("error".into(), json!(why));
        }
    }
}
