//! A snapshot of what can be named.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{HeldAdapter, HeldProgram, Origin, Served};
use crate::config::TenantConfig;

/// A further name of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) model: String,
    pub(crate) origin: Origin,
}

/// The settings of a tenant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TenantEntry {
    pub(crate) config: TenantConfig,
    pub(crate) origin: Origin,
}

/// What can be named. Adapters and programs are found by their owner and their name.
#[derive(Clone, Default)]
pub(crate) struct Names {
    pub(crate) models: BTreeMap<String, Arc<Served>>,
    pub(crate) aliases: BTreeMap<String, Alias>,
    pub(crate) tenants: BTreeMap<String, Arc<TenantEntry>>,
    pub(crate) adapters: BTreeMap<(String, String), Arc<HeldAdapter>>,
    pub(crate) programs: BTreeMap<(String, String), Arc<HeldProgram>>,
}

impl Names {
    /// Returns the model of a name or an alias, with the model's own name.
    pub(crate) fn model(&self, name: &str) -> Option<(&str, &Arc<Served>)> {
        let own = self.aliases.get(name).map_or(name, |alias| &alias.model);
        self.models.get_key_value(own).map(|(name, served)| (name.as_str(), served))
    }

    /// The names of models and aliases.
    pub(crate) fn all_models(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().filter(|(_, alias)| self.models.contains_key(&alias.model));
        self.models.keys().chain(aliases.map(|(name, _)| name)).map(String::as_str)
    }

    /// The settings of a tenant; the defaults if it has none.
    pub(crate) fn tenant(&self, name: &str) -> TenantConfig {
        self.tenants.get(name).map(|entry| entry.config.clone()).unwrap_or_default()
    }

    /// Returns whether a tenant may use the model that `name` stands for.
    pub(crate) fn may_use(&self, tenant: &str, name: &str) -> bool {
        let entry = self.tenants.get(tenant);
        entry.is_none_or(|entry| entry.config.models.as_deref().is_none_or(|list| self.lists(list, name)))
    }

    /// Returns whether a list has a name, or the model that it is an alias of.
    pub(crate) fn lists(&self, list: &[String], name: &str) -> bool {
        let own = self.aliases.get(name).map(|alias| &alias.model);
        list.iter().any(|listed| listed == name || Some(listed) == own)
    }

    /// Returns the adapter that a tenant means: its own, or `OWNER/NAME` if that is granted.
    pub(crate) fn adapter(&self, tenant: &str, name: &str) -> Option<&Arc<HeldAdapter>> {
        self.adapters.get(&self.owned(tenant, name, |entry| &entry.config.grants.adapters)?)
    }

    /// Same as [`adapter`](Self::adapter), for a program.
    pub(crate) fn program(&self, tenant: &str, name: &str) -> Option<&Arc<HeldProgram>> {
        self.programs.get(&self.owned(tenant, name, |entry| &entry.config.grants.programs)?)
    }

    fn owned(
        &self,
        tenant: &str,
        name: &str,
        granted: impl Fn(&TenantEntry) -> &Vec<String>,
    ) -> Option<(String, String)> {
        let Some((owner, own)) = name.split_once('/') else {
            return Some((tenant.to_owned(), name.to_owned()));
        };
        let may = owner == tenant
            || self.tenants.get(tenant).is_some_and(|entry| granted(entry).iter().any(|other| other == name));
        may.then(|| (owner.to_owned(), own.to_owned()))
    }

    /// Returns the adapters of a model, as `OWNER/NAME`.
    pub(crate) fn adapters_of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = String> + 'a {
        let of_model = self.adapters.iter().filter(move |(_, held)| held.config.model == model);
        of_model.map(|((owner, name), _)| format!("{owner}/{name}"))
    }

    /// Returns the aliases of a model.
    pub(crate) fn aliases_of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a str> {
        self.aliases.iter().filter(move |(_, alias)| alias.model == model).map(|(name, _)| name.as_str())
    }
}
