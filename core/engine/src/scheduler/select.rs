//! Which rows the next forward pass has: one for each sequence that generates, as far as there is room, and
//! chunks of prompts up to a budget, both by the tenants' counters.

use std::time::Instant;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::Scheduler;
use super::pacing::Beside;
use crate::task::{Task, Work};

/// The most rows with logits in one step, beside those of generating sequences: more take over 64 MiB with a
/// vocabulary of 262,144.
const EVERY_ROW_WANTED: usize = 64;

/// How far a tenant's counter may be ahead of the tenants that generate before its prompts leave most passes
/// to them, in rows over the weight: a short prompt is computed at once.
const AHEAD: f64 = 64.0;
/// A tenant further ahead has rows of prompts in one of this many passes: fewer than every second, so that
/// the others' median pass is one without.
const PATIENT_PASSES: f64 = 3.0;
/// The most sequences of one tenant, at a weight of 1, that generate in one pass beside other tenants'. A
/// batch with 8 more rows takes about twice the time.
const PATIENT_SEQUENCES: f64 = 8.0;
/// Up to `EAGER_ROWS` ahead of the others, a tenant has this many times as many sequences in a pass as each
/// of the others, if that is more.
const EAGER_TIMES: usize = 4;
const EAGER_ROWS: f64 = 1024.0;

/// The most time on the host's threads for choosing the tokens of one pass, in rows alone. Tenants whose
/// tokens take longer are in one pass, and not in the `PASSES_WITHOUT` passes after it.
const CHOOSING: f64 = 0.5;
const PASSES_WITHOUT: usize = 2;

/// A task of the running ones and how many of its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick {
    pub(crate) task: u64,
    pub(crate) rows: usize,
}

/// Counters as they will be after what was picked so far.
struct Claims(HashMap<u64, (f64, f64), FxBuildHasher>);

impl Claims {
    /// The index among `candidates` of the tenant that is served next: the lowest counter, then the oldest
    /// task.
    fn next(&self, candidates: &[(u64, usize)], running: &[Task]) -> Option<usize> {
        let counter = |tenant: u64| self.0.get(&tenant).map_or(0.0, |claim| claim.0);
        let order =
            |&(tenant, index): &(u64, usize)| (counter(tenant), running[index].served, running[index].id);
        (0..candidates.len()).min_by(|&a, &b| {
            let ((x, s, i), (y, t, j)) = (order(&candidates[a]), order(&candidates[b]));
            x.total_cmp(&y).then(s.cmp(&t)).then(i.cmp(&j))
        })
    }

    fn counter(&self, tenant: u64) -> f64 {
        self.0.get(&tenant).map_or(f64::INFINITY, |claim| claim.0)
    }

    /// Returns whether a tenant's counter is ahead of another generating tenant's by more than `rows`.
    fn is_ahead(&self, tenant: u64, generating: &[u64], rows: f64) -> bool {
        let others = generating.iter().filter(|&&other| other != tenant);
        let lowest = others.map(|&other| self.counter(other)).fold(f64::INFINITY, f64::min);
        lowest.is_finite() && self.counter(tenant) - lowest > rows
    }

    fn charge(&mut self, tenant: u64, rows: f64) {
        if let Some((counter, weight)) = self.0.get_mut(&tenant) {
            *counter += rows / *weight;
        }
    }
}

/// Tenants, each once.
fn distinct(tenants: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut all: Vec<u64> = tenants.collect();
    all.sort_unstable();
    all.dedup();
    all
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

    fn select_decoding(
        &mut self,
        mut candidates: Vec<(u64, usize)>,
        claims: &mut Claims,
        picks: &mut Vec<Pick>,
    ) {
        self.spare_others(&mut candidates, claims);
        self.spare_from_choosing(&mut candidates, claims);
        let all = candidates.len() <= self.config.decode_rows;
        while picks.len() < self.config.decode_rows {
            // If all candidates fit, their order is of no consequence.
            let next =
                if all { candidates.len().checked_sub(1) } else { claims.next(&candidates, &self.running) };
            let Some(next) = next else { break };
            let (tenant, index) = candidates.swap_remove(next);
            claims.charge(tenant, self.prices.pass(self.running[index].cached, 1, 1));
            picks.push(Pick { task: self.running[index].id, rows: 1 });
        }
    }

    /// Leaves a tenant that has many more sequences than others who generate, or has had much more, a few of
    /// them, in turn.
    fn spare_others(&mut self, candidates: &mut Vec<(u64, usize)>, claims: &Claims) {
        let tenants = distinct(candidates.iter().map(|&(tenant, _)| tenant));
        if tenants.len() < 2 {
            return;
        }
        let mut counts = vec![0; tenants.len()];
        for candidate in &*candidates {
            counts[tenants.partition_point(|&tenant| tenant < candidate.0)] += 1;
        }
        for (i, &tenant) in tenants.iter().enumerate() {
            let mut most = (PATIENT_SEQUENCES * self.accounts.weight(tenant)).max(1.0) as usize;
            if counts[i] > most && !claims.is_ahead(tenant, &tenants, EAGER_ROWS) {
                let others = counts.iter().enumerate().filter(|&(j, _)| j != i);
                let fewest = others.map(|(_, &count)| count).min().unwrap_or(usize::MAX);
                most = most.max(fewest.saturating_mul(EAGER_TIMES));
            }
            if counts[i] <= most {
                continue;
            }
            let own = |&&(other, _): &&(u64, usize)| other == tenant;
            let mut ids: Vec<u64> =
                candidates.iter().filter(own).map(|&(_, index)| self.running[index].id).collect();
            let Some(account) = self.accounts.get_mut(tenant) else { continue };
            // On from where the last pass ended.
            ids.sort_unstable_by_key(|&id| (id <= account.turn, id));
            ids.truncate(most);
            account.turn = ids.last().copied().unwrap_or_default();
            let running = &self.running;
            candidates.retain(|&(other, index)| other != tenant || ids.contains(&running[index].id));
        }
    }

    /// Leaves tenants out whose tokens take long to choose, where tenants whose tokens do not would wait for
    /// that: those with long ones have one pass in some, with no more of them than the bound allows, or one.
    fn spare_from_choosing(&mut self, candidates: &mut Vec<(u64, usize)>, claims: &Claims) {
        if candidates.iter().all(|candidate| candidate.0 == candidates[0].0) {
            return;
        }
        let threads = self.host_threads as f64;
        // Of each tenant the sum and the longest.
        let mut tenants: HashMap<u64, (f64, f64), FxBuildHasher> = HashMap::default();
        let cost = |index: usize| self.running[index].sampled(1, &self.prices);
        for &(tenant, index) in &*candidates {
            let (sum, longest) = tenants.entry(tenant).or_default();
            let cost = cost(index);
            *sum += cost;
            *longest = longest.max(cost);
        }
        let is_long = |tenant: &u64| {
            tenants.get(tenant).is_some_and(|&(sum, longest)| longest.max(sum / threads) > CHOOSING)
        };
        let long = tenants.keys().filter(|tenant| is_long(tenant)).count();
        if long == 0 || long == tenants.len() {
            return;
        }
        let mut left = CHOOSING * threads;
        if self.without_choosing > 0 {
            self.without_choosing -= 1;
            left = 0.0;
        } else {
            self.without_choosing = PASSES_WITHOUT;
        }
        let mut turns: Vec<(u64, usize)> =
            candidates.iter().copied().filter(|(tenant, _)| is_long(tenant)).collect();
        turns.sort_unstable_by(|a, b| {
            let served = |&(_, index): &(u64, usize)| (self.running[index].served, self.running[index].id);
            claims.counter(a.0).total_cmp(&claims.counter(b.0)).then(served(a).cmp(&served(b)))
        });
        let mut out = Vec::new();
        for (i, &(_, index)) in turns.iter().enumerate() {
            if left > 0.0 && (i == 0 || cost(index) <= left) {
                left -= cost(index);
            } else {
                out.push(index);
            }
        }
        candidates.retain(|&(_, index)| !out.contains(&index));
    }

    /// Whether the next pass may have rows of a tenant's prompts, where `ahead` says whether the tenant is
    /// ahead of those that generate in the pass.
    fn may_prompt(&mut self, tenant: u64, ahead: bool) -> bool {
        let Some(account) = self.accounts.get_mut(tenant) else { return true };
        if !ahead {
            account.patience = 0.0;
            return true;
        }
        account.patience += 1.0 / PATIENT_PASSES;
        let may = account.patience >= 1.0;
        if may {
            account.patience -= 1.0;
        }
        may
    }

    fn select_prompts(
        &mut self,
        mut candidates: Vec<(u64, usize)>,
        claims: &mut Claims,
        picks: &mut Vec<Pick>,
    ) {
        if candidates.is_empty() {
            return;
        }
        let chunk =
            if picks.is_empty() { self.config.prefill_chunk } else { self.config.shared_prefill_chunk };
        let (mut budget, mut every) = (chunk.max(1), EVERY_ROW_WANTED);
        let picked = picks.iter().filter_map(|pick| self.place(pick.task));
        let generating = distinct(picked.map(|index| self.running[index].tenant.id()));
        let prompting = distinct(candidates.iter().map(|&(tenant, _)| tenant));
        let beside = self.beside_whom(&generating, &prompting);
        let mut room = self.pacing.room(self.config.pass_times, beside, &self.prices);
        // Tenants that are ahead of those that generate wait for some passes, and all of them together take
        // no more of a pass than by their weight.
        let (mut ahead, mut waiting) = (Vec::new(), Vec::new());
        if !generating.is_empty() {
            for tenant in prompting {
                let is_ahead = claims.is_ahead(tenant, &generating, AHEAD);
                let may = self.may_prompt(tenant, is_ahead);
                if !may {
                    waiting.push(tenant);
                } else if is_ahead {
                    ahead.push(tenant);
                }
            }
            candidates.retain(|(tenant, _)| !waiting.contains(tenant));
        }
        let mut room_ahead = (!ahead.is_empty()).then(|| {
            let passes = PATIENT_PASSES * self.weight_of(&ahead) / self.weight_of(&generating);
            self.pacing.room_ahead(self.config.pass_times, passes, &self.prices)
        });
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
            let mut rows = task.due().min(budget);
            if let Some(room) = room_ahead.as_mut().filter(|_| ahead.contains(&tenant)) {
                rows = room.take(&self.prices, task.cached, rows);
            }
            let rows = room.take(&self.prices, task.cached, rows);
            let rows = task.clip(rows, &mut every);
            if rows > 0 {
                budget -= rows;
                claims.charge(tenant, self.prices.pass(task.cached, rows, 0));
                picks.push(Pick { task: task.id, rows });
            }
        }
    }

    /// Returns which sequences prompts of the tenants `prompting` delay in a pass in which the tenants
    /// `generating` generate.
    fn beside_whom(&self, generating: &[u64], prompting: &[u64]) -> Beside {
        if generating.is_empty() && prompting.len() == 1 {
            Beside::NoSequence
        } else if generating.is_empty() || (generating == prompting && generating.len() == 1) {
            Beside::Own
        } else {
            Beside::Others(self.weight_of(prompting) / self.weight_of(generating))
        }
    }

    /// The weight of all `tenants` together.
    fn weight_of(&self, tenants: &[u64]) -> f64 {
        tenants.iter().map(|&id| self.accounts.weight(id)).sum()
    }

    /// Attaches pages that another sequence has computed since, if this prompt continues with their tokens.
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
