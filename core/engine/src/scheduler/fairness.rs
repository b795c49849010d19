//! Picks the tenant that is served next, by virtual token counters (Sheng et al., 'Fairness in Serving Large
//! Language Models', OSDI 2024).
//!
//! Every tenant has a counter of the work that was done for it, in rows ([`work`](super::work)), divided by
//! its weight. The tenant with the lowest is served next. A tenant that comes back after a pause starts at
//! the lowest counter of those that stayed, so that no tenant saves up claims while it has nothing to do. A
//! step computes at most `prefill_chunk + decode_rows` rows; the counters of tenants who always have prompts
//! to compute and sequences to continue differ by no more than two steps' rows over the smallest weight.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::Tenant;
use crate::command::SessionCommand;
use crate::task::{Task, Work};
use crate::tenant::Sent;

/// The work beside the batch, in rows, that a tenant which had nothing to do may have done before the next
/// pass gives it more: that of a tenant of weight 1 beside one row.
const BEGIN: f64 = 0.25;

/// A tenant as one engine knows it.
pub(crate) struct Account {
    pub(crate) tenant: Arc<Tenant>,
    /// Requests that wait, in order of arrival.
    pub(crate) queue: VecDeque<Task>,
    /// Tasks that run.
    pub(crate) running: usize,
    /// One of its requests was taken out of the queue and does not run yet.
    entering: bool,
    /// Commands of its programs for their sequences, in order of arrival.
    pub(crate) commands: VecDeque<(Sent, SessionCommand)>,
    /// Programs of its that compute the pass layer by layer.
    pub(crate) layerwise: usize,
    /// Work done, in rows over the weight.
    counter: f64,
    /// Work that may be done for it beside the batch before the next pass, in rows; below zero it waits for
    /// further passes.
    pub(crate) credit: f64,
    /// Passes that its prompts have waited for, as parts of one that may have rows of them.
    pub(crate) patience: f64,
    /// The last of its sequences that generated in a pass that had not all of them.
    pub(crate) turn: u64,
}

/// All tenants with something to do, and those whose counter is still ahead of the others'.
#[derive(Default)]
pub(crate) struct Accounts {
    all: HashMap<u64, Account, FxBuildHasher>,
    /// The lowest counter of those with something to do; it never falls.
    floor: f64,
}

impl Account {
    pub(crate) fn weight(&self) -> f64 {
        self.tenant.read().weight.into()
    }

    /// The first request in the queue whose reader reads. One that was given up never begins.
    fn ready(&self) -> Option<usize> {
        let gone = |task: &Task| !matches!(task.work, Work::Session(_)) && task.is_abandoned();
        self.queue.iter().position(|task| !task.is_paused() && !gone(task))
    }

    fn is_active(&self) -> bool {
        self.running > 0
            || self.entering
            || !self.queue.is_empty()
            || !self.commands.is_empty()
            || self.layerwise > 0
    }
}

impl Accounts {
    /// A tenant's account.
    pub(crate) fn of(&mut self, tenant: &Arc<Tenant>) -> &mut Account {
        let floor = self.floor;
        let account = self.all.entry(tenant.id()).or_insert_with(|| Account {
            tenant: Arc::clone(tenant),
            queue: VecDeque::new(),
            running: 0,
            entering: false,
            commands: VecDeque::new(),
            layerwise: 0,
            counter: floor,
            credit: BEGIN,
            patience: 0.0,
            turn: 0,
        });
        if !account.is_active() {
            account.counter = account.counter.max(floor);
        }
        account
    }

    /// All accounts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Account> {
        self.all.values()
    }

    /// All accounts.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Account> {
        self.all.values_mut()
    }

    /// Whether a tenant has something to do.
    pub(crate) fn is_active(&self, tenant: u64) -> bool {
        self.all.get(&tenant).is_some_and(Account::is_active)
    }

    /// A tenant's counter.
    pub(crate) fn counter(&self, tenant: u64) -> f64 {
        self.all.get(&tenant).map_or(self.floor, |a| a.counter)
    }

    /// Returns the work that may be done for a tenant beside the batch, in rows.
    pub(crate) fn credit(&self, tenant: u64) -> f64 {
        self.all.get(&tenant).map_or(BEGIN, |a| a.credit)
    }

    /// A tenant's weight.
    pub(crate) fn weight(&self, tenant: u64) -> f64 {
        self.all.get(&tenant).map_or(1.0, Account::weight)
    }

    /// A tenant's share of what all tenants with something to do may have together, from 0 to 1.
    pub(crate) fn share(&self, tenant: u64) -> f64 {
        let all: f64 = self.all.values().filter(|a| a.is_active()).map(Account::weight).sum();
        let own = self.weight(tenant);
        own / all.max(own)
    }

    /// A tenant's account, if it has one.
    pub(crate) fn get_mut(&mut self, tenant: u64) -> Option<&mut Account> {
        self.all.get_mut(&tenant)
    }

    /// Counts work that was done, in rows.
    pub(crate) fn charge(&mut self, tenant: u64, rows: f64) {
        if let Some(account) = self.all.get_mut(&tenant) {
            account.counter += rows / account.weight();
        }
    }

    /// Whose request is let in next: of the tenants that `may`, the one with the lowest counter once what its
    /// running tasks are about to compute, `ahead` rows, is counted too.
    pub(crate) fn next(
        &self,
        may: impl Fn(&Account) -> bool,
        ahead: impl Fn(&Tenant) -> usize,
    ) -> Option<u64> {
        let waiting = self.all.iter().filter(|(_, a)| a.ready().is_some() && may(a));
        let claims = waiting.map(|(&id, a)| (a.counter + ahead(&a.tenant) as f64 / a.weight(), id));
        claims.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map(|(_, id)| id)
    }

    /// Takes a tenant's next request out of its queue, for [`enter`](Self::enter) or
    /// [`put_back`](Self::put_back).
    pub(crate) fn take(&mut self, tenant: u64) -> Option<Task> {
        let account = self.all.get_mut(&tenant)?;
        let task = account.queue.remove(account.ready()?);
        account.entering = true;
        task
    }

    /// A task begins to run.
    pub(crate) fn enter(&mut self, task: &Task) {
        let account = self.of(&task.tenant);
        account.running += 1;
        account.entering = false;
    }

    /// A task runs no more.
    pub(crate) fn leave(&mut self, task: &Task) {
        self.of(&task.tenant).running -= 1;
    }

    /// Puts a request into its queue, in order of arrival.
    pub(crate) fn put_back(&mut self, task: Task) {
        let account = self.of(&task.tenant);
        let at = account.queue.partition_point(|other| other.id < task.id);
        account.queue.insert(at, task);
        account.entering = false;
    }

    /// After a step: raises the floor, and closes accounts of tenants who have nothing to do and owe nothing.
    pub(crate) fn settle(&mut self) {
        let counters =
            |active: bool| self.all.values().filter(move |a| !active || a.is_active()).map(|a| a.counter);
        let lowest = counters(true).fold(f64::INFINITY, f64::min);
        // While no tenant has anything to do, all debts are void.
        let floor = if lowest.is_finite() { lowest } else { counters(false).fold(self.floor, f64::max) };
        self.floor = self.floor.max(floor);
        let floor = self.floor;
        self.all.retain(|_, a| a.is_active() || a.counter > floor || a.credit < 0.0);
    }
}
