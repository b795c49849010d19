//! Admission of requests, and preemption where pages are missing.
//!
//! Requests are admitted in the order of their tenants' counters, while there are pages for what all running
//! ones are about to write. A tenant's *fair share* of the pages is in proportion to its weight among the
//! active tenants, out of the pages that inactive ones leave. A tenant within its share never gives up pages
//! for one above its share: if pages are missing, the last request of a tenant above its share goes back to
//! its queue, and only if there is none, the request that arrived last. So the request that arrived first
//! always makes progress, and two requests never preempt each other in turns.
//!
//! A tenant's pages in the prefix cache and its resting sessions are within its own part of the pages (see
//! `kv`), and no other tenant takes them from there: a part is never more than the tenant's share. The
//! exception is a sequence that has no room beside all of that even when nothing else runs. For it all other
//! tenants lose their pages in the prefix cache and their sessions' pages at once.

use std::time::Instant;

use super::Scheduler;
use super::fairness::Account;
use super::reservation::Wanted;
use super::select::Pick;
use crate::Tenant;
use crate::kv::Owner;
use crate::task::{Task, Work};
use crate::tenant::Place;

impl Scheduler {
    /// Admits waiting requests.
    pub(super) fn admit(&mut self, now: Instant) {
        // Tenants that can get no further in this step.
        let mut held_back: Vec<u64> = Vec::new();
        // True if a request above its tenant's share waits for another one of its kind. That one ends late,
        // so shorter requests may get in beside it until then.
        let mut waits = false;
        loop {
            // While all slots are taken, only tenants with less than their share of slots get one from
            // another tenant.
            let full = self.running.len() >= self.config.max_running;
            let slots = self.config.max_running as f64;
            let accounts = &self.accounts;
            let below = |a: &Account| (a.running + 1) as f64 <= accounts.share(a.tenant.id()) * slots;
            let may = |a: &Account| !held_back.contains(&a.tenant.id()) && (!full || below(a));
            let running = &self.running;
            let ahead = |tenant: &Tenant| {
                running.iter().filter(|t| t.tenant.id() == tenant.id()).map(Task::due).sum()
            };
            let Some(next) = accounts.next(may, ahead) else { break };
            let Some(mut task) = self.accounts.take(next) else { break };
            if full && !self.free_slot() {
                self.accounts.put_back(task);
                break;
            }
            if !self.tenant_may(&task, now) {
                held_back.push(task.tenant.id());
                self.accounts.put_back(task);
                continue;
            }
            let found = task.attach(&mut self.kv);
            if !(self.reserve_beside(&mut task) || !waits && self.make_room(&task)) {
                waits = !self.above_share().is_empty() && self.is_beyond_share(&task);
                held_back.push(task.tenant.id());
                self.send_back(task);
                if waits {
                    continue;
                }
                // Later requests must not take the pages that this one waits for.
                break;
            }
            if !task.place.as_mut().is_none_or(Place::start) {
                held_back.push(task.tenant.id());
                self.send_back(task);
                continue;
            }
            task.meter.started(task.cached);
            match &mut task.work {
                Work::Generate(work) => work.start(task.cached),
                Work::Session(work) => work.found_cached(found),
                Work::Score(_) | Work::Embed(_) => {}
            }
            self.run(task);
        }
    }

    /// Frees a slot of a tenant that has more than its share of them.
    fn free_slot(&mut self) -> bool {
        let slots = self.config.max_running as f64;
        let last =
            self.last_of(|a| a.running > 1 && a.running as f64 > self.accounts.share(a.tenant.id()) * slots);
        if let Some(last) = last {
            self.preempt(last);
        }
        last.is_some()
    }

    /// Returns whether the tenant's own limits let a request run, after preempting sessions of the tenant if
    /// need be.
    fn tenant_may(&mut self, task: &Task, now: Instant) -> bool {
        let wait = task.tenant.wait(now);
        self.wake.note(wait);
        let tokens = (task.tokens.len() + 1).min(task.limit);
        while wait.is_zero() && !self.within_tokens(task, tokens) {
            if !self.evict_resting(task.tenant.id()) {
                return false;
            }
        }
        wait.is_zero()
    }

    /// Returns whether there are pages for a waiting request, after another one gave way if need be.
    fn make_room(&mut self, task: &Task) -> bool {
        loop {
            let needed = self.pages_to_come(task);
            let mut wanted = Wanted::default();
            for task in self.running.iter().chain([task]) {
                *wanted.entry(Some(task.tenant.id())).or_default() += self.pages_to_come(task);
            }
            if self.kv.has_room(wanted) {
                return true;
            }
            if !self.give_way(task, needed) {
                // A task that runs alone is admitted even if the arithmetic says otherwise.
                return self.running.iter().all(Task::is_paused);
            }
        }
    }

    /// Puts a task back into its queue, without its pages.
    fn send_back(&mut self, mut task: Task) {
        self.kv.release(&mut task.pages);
        self.drafting.forget(task.id);
        task.restart();
        if let Some(place) = &mut task.place {
            place.wait();
        }
        self.accounts.put_back(task);
    }

    /// Adds a task to the running ones.
    pub(super) fn run(&mut self, task: Task) {
        self.accounts.enter(&task);
        let at = self.running.partition_point(|other| other.id < task.id);
        self.running.insert(at, task);
    }

    /// The number of pages that a task will take until all its tokens and one more are computed.
    pub(super) fn pages_to_come(&self, task: &Task) -> usize {
        let tokens = (task.tokens.len() + 1).min(task.limit);
        self.kv.pages_for(tokens, self.config.prefill_chunk).saturating_sub(task.pages.held())
    }

    /// Returns whether a task may hold `tokens` tokens beside the others of its tenant. A task alone always
    /// may.
    fn within_tokens(&self, task: &Task, tokens: usize) -> bool {
        let Some(most) = task.tenant.read().kv_tokens else { return true };
        let same = |other: &&Task| other.tenant.id() == task.tenant.id() && other.id != task.id;
        let running = self.running.iter().filter(same).map(|other| other.tokens.len());
        let resting = self.resting.of(task.tenant.id()).map_or(0, |rest| rest.cached);
        let others = running.sum::<usize>() + resting;
        others == 0 || others + tokens <= most
    }

    /// Makes room for a waiting request: takes pages from resting sessions, or from a tenant above its share
    /// if the request stays within its own.
    fn give_way(&mut self, task: &Task, needed: usize) -> bool {
        let id = task.tenant.id();
        if self.evict_idle(id, needed) {
            return true;
        }
        let held = self.pages_of(id) + task.pages.held() + needed;
        if held as f64 > self.fair_pages(id) {
            return false;
        }
        match self.last_above_share(|running| running > 1) {
            Some(index) => {
                self.preempt(index);
                true
            }
            None => false,
        }
    }

    /// Takes the pages that the picked rows will be written to. A task that has to give way is removed from
    /// the picks. Copies stay in order: a page that changes hands in between is copied from before it is
    /// copied to.
    pub(super) fn reserve(&mut self, picks: Vec<Pick>) -> Vec<Pick> {
        self.copies.clear();
        let mut reserved: Vec<Pick> = Vec::with_capacity(picks.len());
        let for_others = self.reserved(&picks);
        // Tasks that arrived first are served first.
        let mut picks = picks;
        picks.sort_unstable_by_key(|pick| pick.task);
        for mut pick in picks {
            while let Some(index) = self.place(pick.task) {
                let task = &mut self.running[index];
                let tokens = task.cached + pick.rows;
                let missing = self.kv.missing(&task.pages, task.cached, tokens);
                let drafted = !task.drafts.is_empty();
                let tenant = task.tenant.id();
                let too_much = !self.kv.has_room([(Some(tenant), missing)])
                    || !self.within_tokens(&self.running[index], tokens);
                if drafted && too_much {
                    // No task gives way for drafts, which may turn out to be wrong.
                    let drafts = std::mem::take(&mut self.running[index].drafts);
                    pick.rows -= drafts.len();
                    continue;
                }
                if !self.within_tokens(&self.running[index], tokens) && self.yield_to(index) {
                    continue;
                }
                if self.must_wait(tenant, missing, &for_others) {
                    self.running[index].held_up = true;
                    break;
                }
                let task = &mut self.running[index];
                if self.kv.reserve(&mut task.pages, task.cached, tokens, &mut self.copies).is_ok() {
                    task.held_up = false;
                    reserved.push(pick);
                    break;
                }
                if self.evict_idle(tenant, missing) || self.clear_for(pick.task, tenant) {
                    continue;
                }
                let victim = self.last_above_share(|_| true).unwrap_or(self.running.len() - 1);
                self.preempt(victim);
            }
        }
        reserved.retain(|pick| self.place(pick.task).is_some());
        reserved
    }

    /// For a tenant above its limit of tokens, preempts its latest task other than the given one, or the
    /// given one itself.
    fn yield_to(&mut self, index: usize) -> bool {
        let (tenant, id) = (self.running[index].tenant.id(), self.running[index].id);
        if self.evict_resting(tenant) {
            return true;
        }
        let last = self.running.iter().rposition(|task| task.tenant.id() == tenant);
        match last {
            Some(last) if self.running[last].id != id || self.has_others(tenant, id) => {
                self.preempt(last);
                true
            }
            _ => false,
        }
    }

    fn has_others(&self, tenant: u64, id: u64) -> bool {
        self.running.iter().any(|task| task.tenant.id() == tenant && task.id != id)
    }

    /// The number of pages that a tenant's tasks hold.
    pub(super) fn pages_of(&self, tenant: u64) -> usize {
        let running = self.running.iter().filter(|task| task.tenant.id() == tenant);
        let resting = self.resting.of(tenant).map_or(0, |rest| rest.pages);
        running.map(|task| task.pages.held()).sum::<usize>() + resting
    }

    /// The last running task of a tenant that holds more than its share and for whose number of running tasks
    /// `enough` returns true.
    fn last_above_share(&self, enough: impl Fn(usize) -> bool) -> Option<usize> {
        self.last_of(|a| {
            let id = a.tenant.id();
            enough(a.running) && self.pages_of(id) as f64 > self.fair_pages(id)
        })
    }

    /// A tenant's share of the pages that inactive tenants leave.
    pub(super) fn fair_pages(&self, tenant: u64) -> f64 {
        self.accounts.share(tenant) * self.active_pages()
    }

    /// The number of pages that inactive tenants leave.
    pub(super) fn active_pages(&self) -> f64 {
        let rests = |owner: Owner| !owner.is_some_and(|tenant| self.accounts.is_active(tenant));
        (self.kv.total() - self.kv.pages_of_all(rests)) as f64
    }

    /// The last running task of a tenant for whose account `wanted` returns true.
    fn last_of(&self, wanted: impl Fn(&Account) -> bool) -> Option<usize> {
        let with_tasks = self.accounts.iter().filter(|a| a.running > 0);
        let tenants: Vec<u64> = with_tasks.filter(|a| wanted(a)).map(|a| a.tenant.id()).collect();
        self.running.iter().rposition(|task| tenants.contains(&task.tenant.id()))
    }

    /// Takes the pages of the tenant's session that has rested longest.
    fn evict_resting(&mut self, tenant: u64) -> bool {
        self.evict_session(self.resting.longest_of(tenant))
    }

    /// Takes a session's pages.
    fn evict_session(&mut self, id: Option<u64>) -> bool {
        let Some(mut session) = id.and_then(|id| self.resting.remove(id)) else { return false };
        tracing::debug!(tokens = session.cached, "a resting session gave its pages up");
        self.kv.release(&mut session.pages);
        session.restart();
        self.resting.insert(session);
        true
    }

    /// Takes pages, for `more` of a tenant's, from an owner above its part that does not use them now: from a
    /// resting session, or a request whose reader does not read.
    fn evict_idle(&mut self, tenant: u64, more: usize) -> bool {
        let may = |id: u64| self.kv.hold_beyond(Some(id), if id == tenant { more } else { 0 });
        let session = self.resting.longest(may);
        let idle = |task: &Task| task.is_paused() && task.pages.held() > 0 && may(task.tenant.id());
        let paused = self.running.iter().rposition(idle);
        if self.evict_session(session) {
            return true;
        }
        if let Some(index) = paused {
            self.preempt(index);
        }
        paused.is_some()
    }

    /// Makes room for a task that has none although nothing else runs: takes the pages of all other tasks and
    /// of the prefix cache. Returns whether that freed any.
    fn clear_for(&mut self, id: u64, tenant: u64) -> bool {
        let other = |task: &Task| task.id != id && task.pages.held() > 0;
        if !self.running.iter().all(|task| task.id == id || task.is_paused()) {
            return false;
        }
        tracing::debug!(tenant, "a sequence takes what others remember");
        let mut cleared = false;
        while let Some(paused) = self.running.iter().rposition(other) {
            self.preempt(paused);
            cleared = true;
        }
        while self.evict_session(self.resting.longest(|_| true)) {
            cleared = true;
        }
        self.kv.forget_others(Some(tenant)) || cleared
    }

    /// Sends a running task back to its queue.
    fn preempt(&mut self, index: usize) {
        let task = self.running.remove(index);
        tracing::debug!(tokens = task.tokens.len(), tenant = task.tenant.name(), "preempted");
        self.preempted = true;
        task.meter.preempted();
        self.accounts.leave(&task);
        self.send_back(task);
    }
}
