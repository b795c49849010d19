//! What administration had made before the server started.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::Error;
use crate::assets;
use crate::catalog::{Alias, Catalog, HeldAdapter, HeldProgram, Names, Origin, Served, TenantEntry};
use crate::config::{AdapterConfig, ModelConfig, TenantConfig};
use crate::keys::{Entry, Kind, Store, Version};
use crate::state::State;

/// Loads and adds all entries of the store. An entry that can't be had any more, such as a model whose file
/// is gone, is logged and listed as failed; the others are served.
pub(crate) fn all(state: &State, mut store: Box<dyn Store>) -> Result<Box<dyn Store>, Error> {
    let entries = store.entries().map_err(|error| Error::new(error.to_string()))?;
    // Models before what needs them, and tenants before what is theirs.
    for kind in [Kind::Tenant, Kind::Model, Kind::Alias, Kind::Adapter, Kind::Program] {
        for entry in entries.iter().filter(|entry| entry.kind == kind) {
            let done = match kind {
                Kind::Tenant => tenant(&state.catalog, entry),
                Kind::Model => model(state, entry),
                Kind::Alias => alias(&state.catalog, entry),
                Kind::Adapter => adapter(&state.catalog, entry),
                Kind::Program => program(&state.catalog, entry, &mut *store),
            };
            if let Err(why) = done {
                tracing::error!("the {} `{}` of administration: {why}", kind.as_str(), entry.name);
            }
        }
    }
    Ok(store)
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, String> {
    serde_json::from_value(entry.value.clone()).map_err(|error| error.to_string())
}

const TAKEN: &str = "the configuration has one of this name, which is served in its place";

fn tenant(catalog: &Arc<Catalog>, entry: &Entry) -> Result<(), String> {
    let config: TenantConfig = read(entry)?;
    config.check()?;
    catalog.change(|names| {
        if names.tenants.contains_key(&entry.name) {
            return Err(TAKEN.to_owned());
        }
        let held = TenantEntry { config, origin: Origin::Administration };
        names.tenants.insert(entry.name.clone(), Arc::new(held));
        Ok(())
    })
}

fn model(state: &State, entry: &Entry) -> Result<(), String> {
    let (name, config) = (&entry.name, read::<ModelConfig>(entry)?);
    let taken = |names: &Names| names.models.contains_key(name) || names.aliases.contains_key(name);
    if taken(&state.catalog.names()) {
        return Err(TAKEN.to_owned());
    }
    let work = state.catalog.works.load(name, config.clone())?;
    tracing::info!("loading `{name}`");
    let model = assets::load_model(state, name, &config, &work).inspect_err(|why| work.fail(why.to_string()));
    let served = Served::new(model.map_err(|error| error.to_string())?, config, Origin::Administration);
    state.catalog.change(|names| {
        names.models.insert(name.clone(), served);
        Ok::<_, String>(())
    })?;
    state.catalog.works.end(name, &work);
    Ok(())
}

fn alias(catalog: &Arc<Catalog>, entry: &Entry) -> Result<(), String> {
    let alias = Alias { model: read(entry)?, origin: Origin::Administration };
    catalog.change(|names| {
        if names.aliases.contains_key(&entry.name) || names.models.contains_key(&entry.name) {
            return Err(TAKEN.to_owned());
        }
        names.aliases.insert(entry.name.clone(), alias);
        Ok(())
    })
}

/// Returns the owner and the name of an adapter or a program.
fn owned(entry: &Entry) -> Result<(String, String), String> {
    let found = entry.name.split_once('/').ok_or("it has no owner")?;
    Ok((found.0.to_owned(), found.1.to_owned()))
}

fn adapter(catalog: &Arc<Catalog>, entry: &Entry) -> Result<(), String> {
    let (key, config): (_, AdapterConfig) = (owned(entry)?, read(entry)?);
    if catalog.names().adapters.contains_key(&key) {
        return Err(TAKEN.to_owned());
    }
    let served = catalog.names().models.get(&config.model).cloned();
    let adapter = match &served {
        Some(served) => assets::load_adapter(served, &config).map_err(|error| error.to_string()),
        None => Err(format!("its model `{}` is not loaded", config.model)),
    };
    let why = adapter.as_ref().err().cloned();
    let model = served.map_or(0, |served| served.id);
    let held = HeldAdapter { config, origin: Origin::Administration, model, adapter };
    catalog.change(|names| {
        names.adapters.insert(key, Arc::new(held));
        Ok::<_, String>(())
    })?;
    why.map_or(Ok(()), Err)
}

fn program(catalog: &Arc<Catalog>, entry: &Entry, store: &mut dyn Store) -> Result<(), String> {
    let (key, number): (_, u64) = (owned(entry)?, read(entry)?);
    if catalog.names().programs.contains_key(&key) {
        return Err(TAKEN.to_owned());
    }
    let versions = store.versions(&entry.name).map_err(|error| error.to_string())?;
    let version: Version =
        versions.into_iter().find(|version| version.number == number).ok_or("its version is gone")?;
    let wasm = store.wasm(&entry.name, number).map_err(|error| error.to_string())?;
    let wasm = wasm.ok_or("its version is gone")?;
    let program = assets::compile(catalog, &key.0, &wasm).map_err(|error| error.to_string());
    let why = program.as_ref().err().cloned();
    let held = HeldProgram { origin: Origin::Administration, version, program };
    catalog.change(|names| {
        names.programs.insert(key, Arc::new(held));
        Ok::<_, String>(())
    })?;
    why.map_or(Ok(()), Err)
}
