//! Applies a configuration: when the server starts, and again while requests run.
//!
//! All that takes time and all that can fail comes first: reading, checking, loading. Then everything changes
//! at once, or nothing does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::assets::{self, Models};
use crate::catalog::{Alias, Catalog, HeldAdapter, HeldProgram, Names, Origin, Served, TenantEntry};
use crate::keys::{Version, now};
use crate::state::{Settings, State};
use crate::{Config, Error};

type ByOwner<T> = BTreeMap<(String, String), Arc<T>>;

/// A configuration whose models, adapters and programs are in memory.
struct Ready<'a> {
    config: &'a Config,
    models: Models,
    adapters: ByOwner<HeldAdapter>,
    programs: ByOwner<HeldProgram>,
}

/// Applies the configuration of a server that starts, whose models are loaded.
pub(crate) fn begin(
    catalog: &Arc<Catalog>,
    config: &Config,
    models: Vec<(String, Arc<Served>)>,
) -> Result<(), Error> {
    let begun = begun(catalog, config, models.into_iter().collect());
    begun.map_err(|error| config.located(error))
}

fn begun(catalog: &Arc<Catalog>, config: &Config, models: Models) -> Result<(), Error> {
    check_references(config, &models)?;
    // Programs are compiled on the accounts of their tenants, with these limits.
    let first = Ready { config, models, adapters: BTreeMap::new(), programs: BTreeMap::new() };
    catalog.change(|names| first.commit(names))?;
    let models = first.models;
    let (adapters, programs) = (adapters(catalog, config, &models)?, programs(catalog, config)?);
    catalog.change(|names| Ready { config, models, adapters, programs }.commit(names))
}

/// Reads the configuration again and applies it.
pub(crate) fn reload(state: &Arc<State>) -> Result<(), Error> {
    let Some(read) = &state.reread else {
        return Err(Error::new("this server has no configuration to read again"));
    };
    if state.reloading.swap(true, Ordering::SeqCst) {
        return Err(Error::new("the configuration is being read already; wait for its end"));
    }
    let _ended = Ended(&state.reloading);
    let config = read()?;
    config.check()?;
    apply(state, &config).map_err(|error| config.located(error))
}

/// Applies a configuration while requests run.
fn apply(state: &Arc<State>, config: &Config) -> Result<(), Error> {
    if let Some(option) = state.settings().config.fixed(config) {
        return Err(Error::new(format!(
            "`{option}` can't change while the server runs; restart it, or leave the option as it was"
        ))
        .at(option.split('.')));
    }
    let settings = Settings::new(config.clone())?;
    let models = models(state, config)?;
    check_references(config, &models)?;
    let catalog = &state.catalog;
    let (adapters, programs) = (adapters(catalog, config, &models)?, programs(catalog, config)?);
    catalog.change(|names| Ready { config, models, adapters, programs }.commit(names))?;
    state.set(settings);
    Ok(())
}

struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Returns the configuration's models and the application's, each loaded unless it is already.
fn models(state: &State, config: &Config) -> Result<Models, Error> {
    let names = state.catalog.names();
    let mut models: Models = names.models.clone();
    models.retain(|_, served| served.origin == Origin::Application);
    for (name, wanted) in &config.models {
        if let Some(served) = names.models.get(name) {
            if served.origin == Origin::Configuration && served.config == *wanted {
                models.insert(name.clone(), Arc::clone(served));
                continue;
            }
            if served.origin != Origin::Configuration {
                return Err(taken(&["models", name]));
            }
        }
        let work = state.catalog.works.load(name, wanted.clone()).map_err(Error::new)?;
        let loaded = assets::load_model(state, name, wanted, &work);
        state.catalog.works.end(name, &work);
        let model = loaded.map_err(|error| fault(&["models", name], &error))?;
        models.insert(name.clone(), Served::new(model, wanted.clone(), Origin::Configuration));
    }
    Ok(models)
}

/// The error for an entry of the configuration.
fn fault(place: &[&str], why: &dyn std::fmt::Display) -> Error {
    Error::new(format!("{}: {why}", place.join("."))).at(place)
}

fn taken(place: &[&str]) -> Error {
    fault(place, &"administration has made one of this name; name it otherwise, or remove that one first")
}

/// Loads the adapters of a configuration, and again those whose models are loaded anew.
fn adapters(catalog: &Catalog, config: &Config, models: &Models) -> Result<ByOwner<HeldAdapter>, Error> {
    let names = catalog.names();
    let mut all = BTreeMap::new();
    for (tenant, entry) in &config.tenants {
        for (name, wanted) in &entry.adapters {
            let key = (tenant.clone(), name.clone());
            let place = ["tenants", tenant, "adapters", name];
            let Some(served) = models.get(&wanted.model) else {
                let why = format!("there is no model `{}`{}", wanted.model, list(models.keys()));
                return Err(fault(&place, &why));
            };
            let held = names.adapters.get(&key);
            if held.is_some_and(|held| held.origin == Origin::Administration) {
                return Err(taken(&place));
            }
            if let Some(held) = held.filter(|held| held.config == *wanted && held.model == served.id) {
                all.insert(key, Arc::clone(held));
                continue;
            }
            let adapter = assets::load_adapter(served, wanted).map_err(|error| fault(&place, &error))?;
            let held = HeldAdapter {
                config: wanted.clone(),
                origin: Origin::Configuration,
                model: served.id,
                adapter: Ok(adapter),
            };
            all.insert(key, Arc::new(held));
        }
    }
    // Administration's adapters of the configuration's models go with the new loads of these.
    for (key, held) in names.adapters.iter().filter(|(_, held)| held.origin == Origin::Administration) {
        let before = names.models.get(&held.config.model);
        if before.is_none_or(|served| served.origin == Origin::Administration) {
            continue;
        }
        let place = format!("{}/{}", key.0, key.1);
        let Some(served) = models.get(&held.config.model) else {
            return Err(Error::new(format!(
                "models.{} can't go: the adapter {place}, which administration loaded, needs it; unload that first",
                held.config.model
            )));
        };
        if served.id != held.model {
            let adapter = assets::load_adapter(served, &held.config).map_err(|error| {
                Error::new(format!("the adapter {place} for the new models.{}: {error}", held.config.model))
            })?;
            let new = HeldAdapter {
                config: held.config.clone(),
                origin: held.origin,
                model: served.id,
                adapter: Ok(adapter),
            };
            all.insert(key.clone(), Arc::new(new));
        }
    }
    Ok(all)
}

/// Compiles the programs of a configuration whose files have changed.
fn programs(catalog: &Catalog, config: &Config) -> Result<ByOwner<HeldProgram>, Error> {
    let names = catalog.names();
    let mut all = BTreeMap::new();
    for (tenant, entry) in &config.tenants {
        for (name, wanted) in &entry.programs {
            let key = (tenant.clone(), name.clone());
            let place = ["tenants", tenant, "programs", name];
            let held = names.programs.get(&key);
            if held.is_some_and(|held| held.origin == Origin::Administration) {
                return Err(taken(&place));
            }
            let wasm = assets::read_program(&wanted.source).map_err(|why| fault(&place, &why))?;
            let sha256 = assets::sha256(&wasm);
            if let Some(held) = held.filter(|held| held.version.sha256 == sha256) {
                all.insert(key, Arc::clone(held));
                continue;
            }
            let program = assets::compile(catalog, tenant, &wasm).map_err(|error| fault(&place, &error))?;
            let number = held.map_or(1, |held| held.version.number + 1);
            let version = Version { number, sha256, bytes: wasm.len() as u64, created: now() };
            let held = HeldProgram { origin: Origin::Configuration, version, program: Ok(program) };
            all.insert(key, Arc::new(held));
        }
    }
    Ok(all)
}

impl Ready<'_> {
    /// Replaces all that the old configuration had made. What administration made stays.
    fn commit(&self, names: &mut Names) -> Result<(), Error> {
        let is_administrations = |origin: Origin| origin == Origin::Administration;
        let before: BTreeSet<String> = names.models.keys().cloned().collect();
        names.models.retain(|_, served| is_administrations(served.origin));
        for (name, served) in &self.models {
            if names.models.insert(name.clone(), Arc::clone(served)).is_some() {
                return Err(taken(&["models", name]));
            }
        }
        names.aliases.retain(|_, alias| is_administrations(alias.origin));
        for (name, model) in &self.config.aliases {
            let alias = Alias { model: model.clone(), origin: Origin::Configuration };
            if names.models.contains_key(name) || names.aliases.insert(name.clone(), alias).is_some() {
                return Err(taken(&["aliases", name]));
            }
        }
        let lost = |alias: &Alias| before.contains(&alias.model) && !names.models.contains_key(&alias.model);
        if let Some((name, alias)) = names.aliases.iter().find(|(_, alias)| lost(alias)) {
            return Err(Error::new(format!(
                "models.{} can't go: the alias `{name}` stands for it; point that elsewhere first",
                alias.model
            )));
        }
        if let Some(name) = self.models.keys().find(|name| names.aliases.contains_key(*name)) {
            return Err(taken(&["models", name]));
        }
        names.tenants.retain(|_, entry| is_administrations(entry.origin));
        for (name, config) in &self.config.tenants {
            let entry = TenantEntry { config: config.clone(), origin: Origin::Configuration };
            if names.tenants.insert(name.clone(), Arc::new(entry)).is_some() {
                return Err(taken(&["tenants", name]));
            }
        }
        names.adapters.retain(|_, held| is_administrations(held.origin));
        names.adapters.extend(self.adapters.iter().map(|(key, held)| (key.clone(), Arc::clone(held))));
        let stale = |held: &HeldAdapter| {
            held.adapter.is_ok()
                && names.models.get(&held.config.model).is_none_or(|served| served.id != held.model)
        };
        if let Some((owner, name)) = names.adapters.iter().find(|(_, held)| stale(held)).map(|(key, _)| key) {
            return Err(Error::new(format!(
                "the adapter {owner}/{name} came while the configuration was read; read it again"
            )));
        }
        names.programs.retain(|_, held| is_administrations(held.origin));
        names.programs.extend(self.programs.iter().map(|(key, held)| (key.clone(), Arc::clone(held))));
        Ok(())
    }
}

/// Checks that what entries name exists. Where there is administration, tenants may name what comes later.
fn check_references(config: &Config, models: &Models) -> Result<(), Error> {
    if let Some((name, model)) = config.aliases.iter().find(|(_, model)| !models.contains_key(*model)) {
        let why = format!("there is no model `{model}`{}", list(models.keys()));
        return Err(fault(&["aliases", name], &why));
    }
    if config.admin.is_some() {
        return Ok(());
    }
    let known: BTreeSet<&String> = models.keys().chain(config.aliases.keys()).collect();
    for (tenant, entry) in &config.tenants {
        if let Some(unknown) = entry.models.iter().flatten().find(|name| !known.contains(name)) {
            let served = list(known.iter().copied());
            let why = format!("tenant `{tenant}` may use `{unknown}`, which is not served{served}");
            return Err(fault(&["tenants", tenant, "models"], &why));
        }
        let has = |kind: &str, name: &str| {
            let (owner, own) = name.split_once('/').unwrap_or((tenant, name));
            config.tenants.get(owner).is_some_and(|owner| match kind {
                "adapters" => owner.adapters.contains_key(own),
                _ => owner.programs.contains_key(own),
            })
        };
        for (kind, names) in [("adapters", &entry.grants.adapters), ("programs", &entry.grants.programs)] {
            if let Some(name) = names.iter().find(|name| !has(kind, name)) {
                return Err(fault(&["tenants", tenant, "grants", kind], &format!("there is no `{name}`")));
            }
        }
        if let Some(name) = entry.program.as_ref().filter(|name| !has("programs", name)) {
            let why = format!("there is no program `{name}`{}", list(entry.programs.keys()));
            return Err(fault(&["tenants", tenant, "program"], &why));
        }
    }
    Ok(())
}

/// Returns the names that there are, for errors.
fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "; there is none".into() } else { format!("; there are {}", names.join(", ")) }
}
