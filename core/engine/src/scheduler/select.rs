//! Which rows the next forward pass has: one for each sequence that generates, as far as there is room, and chunks of
//! prompts up to a budget, both by the tenants' counters.

use std::time::Instant;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Scheduler;
use crate::task::{Task, Work};

/// Rows with logits in one step at most, beside those of generating sequences: beyond that a vocabulary of 262,144 takes
/// more than 64 MiB.
const EVERY_ROW_WANTED: usize = 64;

/// A task of the running ones and how many of its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick {
    pub(crate) task: u64,
    pub(crate) rows: usize,
}

/// Counters as they will be after what was picked so far.
struct Claims(HashMap<u64, (f64, f64), FxBuildHasher>);

impl Claims {
    /// The index among `candidates` of the tenant that is served next: the lowest counter, then the oldest task.
    fn next(&self, candidates: &[(u64, usize)], running: &[Task]) -> Option<usize> {
        let counter = |tenant: u64| self.0.get(&tenant).map_or(0.0, |claim| claim.0);
        let order =
            |&(tenant, index): &(u64, usize)| (counter(tenant), running[index].served, running[index].id);
        (0..candidates.len()).min_by(|&a, &b| {
            let ((x, s, i), (y, t, j)) = (order(&candidates[a]), order(&candidates[b]));
            x.total_cmp(&y).then(s.cmp(&t)).then(i.cmp(&j))
        })
    }

    fn charge(&mut self, tenant: u64, rows: usize) {
        if let Some((counter, weight)) = self.0.get_mut(&tenant) {
            *counter += rows as f64 / *weight;
        }
    }
}

impl Scheduler {
    /// Picks the rows of the next forward pass.
    pub(super) fn select(&mut self, now: Instant) -> Vec<Pick> {
        let (mut decoding, mut prompts) = (Vec::new(), Vec::new());
        let mut claims = Claims(HashMap::default());
        for (index, task) in self.running.iter().enumerate() {
            let tenant = task.tenant.id();
            if !claims.0.contains_key(&tenant) {
                let wait = task.tenant.wait(now);
                self.wake.note(wait);
                let counter = if wait.is_zero() { self.accounts.counter(tenant) } else { f64::INFINITY };
                claims.0.insert(tenant, (counter, self.accounts.weight(tenant)));
            }
            if claims.0[&tenant].0 == f64::INFINITY {
                continue;
            }
            if task.is_paused() {
                continue;
            }
            let kind = if task.decodes() { &mut decoding } else { &mut prompts };
            kind.push((tenant, index));
        }
        let mut picks = Vec::new();
        self.select_decoding(decoding, &mut claims, &mut picks);
        self.select_prompts(prompts, &mut claims, &mut picks);
        picks
    }

    fn select_decoding(&self, mut candidates: Vec<(u64, usize)>, claims: &mut Claims, picks: &mut Vec<Pick>) {
        let all = candidates.len() <= self.config.decode_rows;
        while picks.len() < self.config.decode_rows {
            // If there is room for everybody, nobody has to choose.
            let next =
                if all { candidates.len().checked_sub(1) } else { claims.next(&candidates, &self.running) };
            let Some(next) = next else { break };
            let (tenant, index) = candidates.swap_remove(next);
            claims.charge(tenant, 1);
            picks.push(Pick { task: self.running[index].id, rows: 1 });
        }
    }

    fn select_prompts(
        &mut self,
        mut candidates: Vec<(u64, usize)>,
        claims: &mut Claims,
        picks: &mut Vec<Pick>,
    ) {
        let chunk =
            if picks.is_empty() { self.config.prefill_chunk } else { self.config.shared_prefill_chunk };
        let (mut budget, mut every) = (chunk.max(1), EVERY_ROW_WANTED);
        // Of one tenant's prompts the oldest goes first, and is not cut short for the others' sake.
        candidates.sort_by_key(|&(_, index)| self.running[index].id);
        while budget > 0 && !candidates.is_empty() {
            let lowest = |&(tenant, index): &(u64, usize)| (claims.0[&tenant].0, self.running[index].id);
            let next = (0..candidates.len()).min_by(|&a, &b| {
                let ((x, i), (y, j)) = (lowest(&candidates[a]), lowest(&candidates[b]));
                x.total_cmp(&y).then(i.cmp(&j))
            });
            let Some(next) = next else { break };
            let (tenant, index) = candidates.remove(next);
            self.catch_up(index);
            let task = &self.running[index];
            let rows = task.clip(task.due().min(budget), &mut every);
            if rows > 0 {
                budget -= rows;
                claims.charge(tenant, rows);
                picks.push(Pick { task: task.id, rows });
            }
        }
    }

    /// Somebody else may have computed what this prompt needs next.
    fn catch_up(&mut self, index: usize) {
        let task = &mut self.running[index];
        let found = task.attach(&mut self.kv);
        task.meter.found(task.cached);
        match &mut task.work {
            Work::Generate(work) => work.found_cached(found),
            Work::Session(work) => work.found_cached(found),
            Work::Score(_) | Work::Embed(_) => {}
        }
    }
}
