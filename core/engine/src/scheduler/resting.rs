//! Sessions that rest until their programs' next command. The sums that every step needs are kept up to date,
//! so that no step takes longer because many sequences rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::metrics::Tally;
use crate::task::Task;

/// Sessions that rest until their programs' next command.
#[derive(Default)]
pub(crate) struct Resting {
    /// In boxes, so that the table grows without moving the tasks.
    tasks: HashMap<u64, Box<Task>, FxBuildHasher>,
    tenants: HashMap<u64, Rest, FxBuildHasher>,
}

/// One tenant's resting sessions.
#[derive(Default)]
pub(crate) struct Rest {
    tasks: usize,
    /// Sessions that hold pages: the step that last served each, and its id.
    held: BTreeSet<(u64, u64)>,
    pub(crate) pages: usize,
    /// Tokens whose keys and values are kept.
    pub(crate) cached: usize,
    pub(crate) tally: Option<Arc<Tally>>,
}

impl Resting {
    pub(crate) fn insert(&mut self, task: Task) {
        let (id, key, pages) = (task.id, (task.served, task.id), task.pages.held());
        let rest = self.tenants.entry(task.tenant.id()).or_default();
        rest.tasks += 1;
        rest.pages += pages;
        rest.cached += task.cached;
        if rest.tally.is_none() {
            rest.tally = task.meter.tenant().cloned();
        }
        if pages > 0 {
            rest.held.insert(key);
        }
        self.tasks.insert(id, Box::new(task));
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Task> {
        let task = *self.tasks.remove(&id)?;
        let (key, pages, tenant) = ((task.served, task.id), task.pages.held(), task.tenant.id());
        if let Some(rest) = self.tenants.get_mut(&tenant) {
            rest.tasks -= 1;
            rest.pages -= pages;
            rest.cached -= task.cached;
            rest.held.remove(&key);
            if rest.tasks == 0 {
                self.tenants.remove(&tenant);
            }
        }
        Some(task)
    }

    /// Returns the tenant's session that has rested longest among those that hold pages.
    pub(crate) fn longest_of(&self, tenant: u64) -> Option<u64> {
        self.tenants.get(&tenant)?.held.first().map(|&(_, id)| id)
    }

    /// Returns the longest-resting session with pages over all tenants for which `may` returns true.
    pub(crate) fn longest(&self, may: impl Fn(u64) -> bool) -> Option<u64> {
        let asked = self.tenants.iter().filter(|&(&tenant, _)| may(tenant));
        asked.filter_map(|(_, rest)| rest.held.first()).min().map(|&(_, id)| id)
    }

    /// Returns a tenant's resting sessions.
    pub(crate) fn of(&self, tenant: u64) -> Option<&Rest> {
        self.tenants.get(&tenant)
    }

    /// Iterates over tenants by their ids.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = (u64, &Rest)> {
        self.tenants.iter().map(|(&id, rest)| (id, rest))
    }

    /// All sessions, which may be very many. For tests.
    #[cfg(test)]
    pub(crate) fn values(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(|task| &**task)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.tenants.is_empty()
    }

    /// Panics unless the sums match the sessions. For tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for (&tenant, rest) in &self.tenants {
            let own = || self.values().filter(|task| task.tenant.id() == tenant);
            assert_eq!(rest.tasks, own().count());
            assert_eq!(rest.pages, own().map(|task| task.pages.held()).sum::<usize>());
            assert_eq!(rest.cached, own().map(|task| task.cached).sum::<usize>());
            let held = own().filter(|task| task.pages.held() > 0).map(|task| (task.served, task.id));
            assert_eq!(rest.held, held.collect());
        }
        assert!(self.values().all(|task| self.tenants.contains_key(&task.tenant.id())));
    }
}
