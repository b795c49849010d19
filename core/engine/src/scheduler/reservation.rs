//! Pages that are reserved for requests beside a sequence above its tenant's share.
//!
//! A long sequence may take most of the cache while no other tenant needs it. Requests of tenants within
//! their share do not wait for its end: a request gets in if the pages that are free now hold all that it may
//! grow to, and these are reserved for it. The long sequence keeps its pages, takes no reserved page, and is
//! held up while too few others are left. Its tenant has its turn by its counter like any other: from then on
//! no further request gets in beside it, and it goes on when those that did have ended.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Scheduler;
use super::select::Pick;
use crate::kv::Owner;
use crate::task::{Task, Work};

/// Pages by owner.
pub(super) type Wanted = HashMap<Owner, usize, FxBuildHasher>;

impl Scheduler {
    /// Returns whether a waiting request gets in beside a sequence above its tenant's share; if so, reserves
    /// the pages that it needs.
    pub(super) fn reserve_beside(&self, task: &mut Task) -> bool {
        let above = self.above_share();
        if above.is_empty() || self.is_beyond_share(task) {
            return false;
        }
        let (tenant, pages) = (task.tenant.id(), self.pages_at_end(task));
        let counter = self.accounts.counter(tenant);
        let has_turn = |other: &Task| other.held_up && self.accounts.counter(other.tenant.id()) <= counter;
        if self.running.iter().any(has_turn) {
            return false;
        }
        let mut wanted = Wanted::default();
        wanted.insert(Some(tenant), pages.saturating_sub(task.pages.held()));
        for other in self.running.iter().filter(|other| !above.contains(&other.tenant.id())) {
            *wanted.entry(Some(other.tenant.id())).or_default() += self.still_to_take(other);
        }
        let fits = self.kv.has_room(wanted);
        if fits {
            task.reserved = pages;
        }
        fits
    }

    /// Pages that are reserved for the picked tasks and not taken yet, by tenant. A tenant whose tasks have
    /// taken all of theirs is listed with 0, since sequences above their share wait for the end of those
    /// tasks as well. Tasks that are not picked in this step hold up none.
    pub(super) fn reserved(&self, picks: &[Pick]) -> Wanted {
        let mut reserved = Wanted::default();
        for task in self.running.iter().filter(|task| task.reserved > 0) {
            if picks.iter().any(|pick| pick.task == task.id) {
                let pages = task.reserved.saturating_sub(task.pages.held());
                *reserved.entry(Some(task.tenant.id())).or_default() += pages;
            }
        }
        reserved
    }

    /// Returns whether a tenant must not touch reserved pages and has too few others for `missing` more.
    pub(super) fn must_wait(&self, tenant: u64, missing: usize, reserved: &Wanted) -> bool {
        let is_alone = reserved.keys().all(|&owner| owner == Some(tenant));
        if missing == 0 || is_alone || !self.above_share().contains(&tenant) {
            return false;
        }
        let others = reserved.iter().filter(|&(&owner, _)| owner != Some(tenant));
        !self.kv.has_room(others.map(|(&owner, &pages)| (owner, pages)).chain([(Some(tenant), missing)]))
    }

    /// Returns whether a waiting request would raise its tenant above its share.
    pub(super) fn is_beyond_share(&self, task: &Task) -> bool {
        let tenant = task.tenant.id();
        let running = self.running.iter().filter(|task| task.tenant.id() == tenant);
        let claim = self.pages_of(tenant) + running.map(|task| self.still_to_take(task)).sum::<usize>();
        (claim + self.pages_at_end(task)) as f64 > self.fair_pages(tenant)
    }

    /// Returns the tenants whose running tasks are about to hold more than their share.
    pub(super) fn above_share(&self) -> Vec<u64> {
        let mut claims: HashMap<u64, usize, FxBuildHasher> = HashMap::default();
        for task in &self.running {
            *claims.entry(task.tenant.id()).or_default() += task.pages.held() + self.still_to_take(task);
        }
        let all = self.active_pages();
        claims.retain(|&tenant, claim| {
            let resting = self.resting.of(tenant).map_or(0, |rest| rest.pages);
            (*claim + resting) as f64 > self.accounts.share(tenant) * all
        });
        claims.into_keys().collect()
    }

    fn still_to_take(&self, task: &Task) -> usize {
        self.pages_to_come(task).max(task.reserved.saturating_sub(task.pages.held()))
    }

    /// The most pages that a task will hold, as far as that is known.
    fn pages_at_end(&self, task: &Task) -> usize {
        let tokens = match task.work {
            Work::Generate(_) => task.limit,
            Work::Score(_) | Work::Embed(_) | Work::Session(_) => (task.tokens.len() + 1).min(task.limit),
        };
        self.kv.pages_for(tokens, self.config.prefill_chunk)
    }
}
