//! Who may run, and who has to give pages up.
//!
//! Requests are let in by their tenants' counters, while there are pages for what all running ones are about to write.
//! A tenant's *fair share* of the pages is in proportion to its weight among the tenants with something to do. Nobody
//! within their share gives pages up for somebody above theirs: if pages are missing, the last request of a tenant above
//! its share goes back to its queue, and only if there is none, the one that came last. So whoever came first always
//! gets on, and two requests never take turns in throwing each other out.

use std::time::Instant;

use super::Scheduler;
use super::fairness::Account;
use super::select::Pick;
use crate::Tenant;
use crate::task::{Task, Work};
use crate::tenant::Place;

impl Scheduler {
    /// Lets waiting requests in.
    pub(super) fn admit(&mut self, now: Instant) {
        // Tenants that cannot get any further in this step.
        let mut held_back: Vec<u64> = Vec::new();
        loop {
            // While all slots are taken, only tenants that have less than their share of them get one of another's.
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
            if !self.make_room(&task) {
                // Later requests must not take the pages that this one waits for.
                self.send_back(task);
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

    /// Takes a slot from a tenant that has more than its share of them.
    fn free_slot(&mut self) -> bool {
        let slots = self.config.max_running as f64;
        let last =
            self.last_of(|a| a.running > 1 && a.running as f64 > self.accounts.share(a.tenant.id()) * slots);
        if let Some(last) = last {
            self.preempt(last);
        }
        last.is_some()
    }

    /// Whether the tenant's own limits let a request run, perhaps after sessions of the tenant gave their pages up.
    fn tenant_may(&mut self, task: &Task, now: Instant) -> bool {
        let wait = task.tenant.wait(now);
        self.wake.note(wait);
        let tokens = (task.tokens.len() + 1).min(task.limit);
        while wait.is_zero() && !self.within_tokens(task, tokens) {
            if !self.evict_resting(Some(task.tenant.id())) {
                return false;
            }
        }
        wait.is_zero()
    }

    /// Whether there are pages for a request that waits, perhaps after somebody gave way.
    fn make_room(&mut self, task: &Task) -> bool {
        loop {
            let promised: usize = self.running.iter().map(|task| self.pages_to_come(task)).sum();
            let needed = self.pages_to_come(task);
            // A task that has everything to itself is let in whatever the arithmetic says.
            if promised + needed <= self.kv.available()
                || (self.running.is_empty() && self.resting.pages() == 0)
            {
                return true;
            }
            if !self.give_way(task, needed) {
                return false;
            }
        }
    }

    /// Puts a task into its queue, without its pages.
    fn send_back(&mut self, mut task: Task) {
        self.kv.release(&mut task.pages);
        self.drafting.forget(task.id);
        task.restart();
        if let Some(place) = &mut task.place {
            place.wait();
        }
        self.accounts.put_back(task);
    }

    /// Puts a task among the running ones.
    pub(super) fn run(&mut self, task: Task) {
        self.accounts.enter(&task);
        let at = self.running.partition_point(|other| other.id < task.id);
        self.running.insert(at, task);
    }

    /// Pages that a task takes until it has computed what it holds, and one token more.
    fn pages_to_come(&self, task: &Task) -> usize {
        let tokens = (task.tokens.len() + 1).min(task.limit);
        self.kv.pages_for(tokens, self.config.prefill_chunk).saturating_sub(task.pages.held())
    }

    /// Whether a task may hold so many tokens beside the others of its tenant. One alone always may.
    fn within_tokens(&self, task: &Task, tokens: usize) -> bool {
        let Some(most) = task.tenant.read().kv_tokens else { return true };
        let same = |other: &&Task| other.tenant.id() == task.tenant.id() && other.id != task.id;
        let running = self.running.iter().filter(same).map(|other| other.tokens.len());
        let resting = self.resting.of(task.tenant.id()).map_or(0, |rest| rest.cached);
        let others = running.sum::<usize>() + resting;
        others == 0 || others + tokens <= most
    }

    /// Makes room for a request that waits: takes pages from resting sessions, or from a tenant above its share if the
    /// request stays within its own.
    fn give_way(&mut self, task: &Task, needed: usize) -> bool {
        if self.evict_idle() {
            return true;
        }
        let id = task.tenant.id();
        let held = self.pages_of(id) + task.pages.held() + needed;
        if held as f64 > self.accounts.share(id) * self.kv.total() as f64 {
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

    /// Takes the pages that the picked rows will be written to. Whoever has to give way is no longer among the picks.
    /// Copies stay in order: a page that changes hands in between is copied from before anybody copies to it.
    pub(super) fn reserve(&mut self, picks: Vec<Pick>) -> Vec<Pick> {
        self.copies.clear();
        let mut reserved: Vec<Pick> = Vec::with_capacity(picks.len());
        // Who came first is served first.
        let mut picks = picks;
        picks.sort_unstable_by_key(|pick| pick.task);
        for mut pick in picks {
            while let Some(index) = self.place(pick.task) {
                let task = &mut self.running[index];
                let tokens = task.cached + pick.rows;
                let missing = self.kv.missing(&task.pages, task.cached, tokens);
                let drafted = !task.drafts.is_empty();
                let too_much =
                    missing > self.kv.available() || !self.within_tokens(&self.running[index], tokens);
                if drafted && too_much {
                    // Nobody gives way for what may not be needed.
                    let drafts = std::mem::take(&mut self.running[index].drafts);
                    pick.rows -= drafts.len();
                    continue;
                }
                if !self.within_tokens(&self.running[index], tokens) && self.yield_to(index) {
                    continue;
                }
                let task = &mut self.running[index];
                if self.kv.reserve(&mut task.pages, task.cached, tokens, &mut self.copies).is_ok() {
                    reserved.push(pick);
                    break;
                }
                if !self.evict_idle() {
                    let victim = self.last_above_share(|_| true).unwrap_or(self.running.len() - 1);
                    self.preempt(victim);
                }
            }
        }
        reserved.retain(|pick| self.place(pick.task).is_some());
        reserved
    }

    /// A tenant above its limit of tokens: its own latest task but the given one gives way, or the given one itself.
    fn yield_to(&mut self, index: usize) -> bool {
        let (tenant, id) = (self.running[index].tenant.id(), self.running[index].id);
        if self.evict_resting(Some(tenant)) {
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

    /// Pages that a tenant's tasks hold.
    fn pages_of(&self, tenant: u64) -> usize {
        let running = self.running.iter().filter(|task| task.tenant.id() == tenant);
        let resting = self.resting.of(tenant).map_or(0, |rest| rest.pages);
        running.map(|task| task.pages.held()).sum::<usize>() + resting
    }

    /// The last running task of a tenant that holds more than its share and has `enough` running tasks.
    fn last_above_share(&self, enough: impl Fn(usize) -> bool) -> Option<usize> {
        let total = self.kv.total() as f64;
        self.last_of(|a| {
            let id = a.tenant.id();
            enough(a.running) && self.pages_of(id) as f64 > self.accounts.share(id) * total
        })
    }

    /// The last running task of a tenant whose account is as asked.
    fn last_of(&self, wanted: impl Fn(&Account) -> bool) -> Option<usize> {
        let with_tasks = self.accounts.iter().filter(|a| a.running > 0);
        let tenants: Vec<u64> = with_tasks.filter(|a| wanted(a)).map(|a| a.tenant.id()).collect();
        self.running.iter().rposition(|task| tenants.contains(&task.tenant.id()))
    }

    /// Takes the pages of the session that has rested longest, of one tenant or of anybody.
    fn evict_resting(&mut self, tenant: Option<u64>) -> bool {
        let longest = self.resting.longest(tenant);
        let Some(mut session) = longest.and_then(|id| self.resting.remove(id)) else { return false };
        tracing::debug!(tokens = session.cached, "a resting session gave its pages up");
        self.kv.release(&mut session.pages);
        session.restart();
        self.resting.insert(session);
        true
    }

    /// Takes pages from somebody who does not use them now: a session that rests, or a request whose reader sleeps.
    fn evict_idle(&mut self) -> bool {
        if self.evict_resting(None) {
            return true;
        }
        let paused = self.running.iter().rposition(|task| task.is_paused() && task.pages.held() > 0);
        if let Some(index) = paused {
            self.preempt(index);
        }
        paused.is_some()
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
