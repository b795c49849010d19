//! Work beside the batch: commands of programs to their sequences, and the forward pass layer by layer.
//!
//! It is done on the engine's thread between passes, so all tenants wait for it. Its amount per step is
//! bounded for every tenant: in proportion to its weight a tenant may use as much time of a step as the
//! median of the tenants whose rows are in the pass, and no more than [`MOST`] rows' worth goes to all such
//! tenants together. A row alone takes [several times](crate::prices::Pace::alone) as long as in a batch,
//! which reads the weights once, and work beside the batch is charged at that factor. An operation that takes
//! longer leaves a debt: the tenant waits as many passes as pay for it. Long operations are cut into slices
//! of [`SLICE`] rows' worth, so that no single operation delays a step for long either.
//!
//! While no other tenant has rows in the passes, a tenant waits only for new commands to be received.

use std::time::Instant;

use super::Scheduler;
use super::fairness::Account;
use super::select::Pick;

/// The most that all tenants together may have done beside one pass of others, in rows of the batch.
pub(super) const MOST: f64 = 16.0;
/// The most that one slice of an operation costs beside others, in rows alone.
pub(super) const SLICE: f64 = 0.5;
/// The most that is done in one slice while no other tenant waits, in rows alone.
const GO: f64 = 4.0;

/// The work that tenants may have done beside a pass.
#[derive(Default)]
pub(super) struct Beside {
    /// Tenants with rows in the last pass.
    tenants: Vec<u64>,
    /// The layerwise work that all tenants together may still have done before the next pass, in rows alone.
    /// While it is negative they wait for further passes.
    left: f64,
    /// The work that was done beside the pass in the last step, in rows alone.
    #[cfg(test)]
    pub(super) done: f64,
}

impl Scheduler {
    /// Returns whether other tenants have rows in the passes.
    fn is_shared(&self, tenant: u64) -> bool {
        self.beside.tenants.iter().any(|&other| other != tenant)
    }

    /// Gives every tenant its credit for work beside this pass.
    pub(super) fn share(&mut self, picks: &[Pick]) {
        let mut rows: Vec<(u64, f64)> = Vec::new();
        for pick in picks {
            let Some(index) = self.place(pick.task) else { continue };
            let tenant = self.running[index].tenant.id();
            match rows.iter_mut().find(|of| of.0 == tenant) {
                Some(of) => of.1 += pick.rows as f64,
                None => rows.push((tenant, pick.rows as f64)),
            }
        }
        let tenants: Vec<u64> = rows.iter().map(|&(tenant, _)| tenant).collect();
        // Of the lower median, so that tenants with many sequences do not raise the others' shares.
        let mut paces: Vec<f64> =
            rows.iter().map(|&(tenant, rows)| rows / self.accounts.weight(tenant)).collect();
        paces.sort_unstable_by(f64::total_cmp);
        let pace = paces.get(paces.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
        let waits = |account: &&Account| !account.commands.is_empty() || account.layerwise > 0;
        let all: f64 = self.accounts.iter().filter(waits).map(|account| account.weight() * pace).sum();
        // Beyond [`MOST`], all tenants get less.
        let share = pace * (MOST / all.max(MOST)) / self.prices.pace.alone;
        let mut left: f64 = 0.0;
        for account in self.accounts.iter_mut() {
            let shared = tenants.iter().any(|&other| other != account.tenant.id());
            let gets = if shared { account.weight() * share } else { GO };
            // Unused credit does not accumulate. Debts are paid while others compute, and are void when no
            // other tenant does.
            let before = if shared { account.credit.min(0.0) } else { 0.0 };
            account.credit = before + gets;
            if account.layerwise > 0 {
                left += gets;
            }
        }
        let alone = tenants.is_empty();
        let before = if alone { 0.0 } else { self.beside.left.min(0.0) };
        self.beside = Beside {
            tenants,
            left: before + left,
            #[cfg(test)]
            done: self.beside.done,
        };
    }

    /// Returns whether a tenant may have work done before the next pass.
    fn has_credit(&self, tenant: u64) -> bool {
        self.accounts.credit(tenant) > 0.0
    }

    /// The most that the next slice of a tenant's work may cost.
    fn slice(&self, tenant: u64) -> f64 {
        if self.is_shared(tenant) { SLICE } else { GO }
    }

    /// Charges a tenant for work beside the batch, in rows alone.
    pub(super) fn charge_beside(&mut self, tenant: u64, rows: f64) {
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.credit -= rows;
        }
        self.accounts.charge(tenant, self.prices.pace.alone * rows);
        #[cfg(test)]
        {
            self.beside.done += rows;
        }
    }

    /// Carries out commands to sequences, one tenant after the other, as far as their credit goes.
    pub(super) fn run_commands(&mut self) {
        let waiting = self.accounts.iter().filter(|account| !account.commands.is_empty());
        for tenant in waiting.map(|account| account.tenant.id()).collect::<Vec<_>>() {
            while self.has_credit(tenant) {
                let Some(account) = self.accounts.get_mut(tenant) else { break };
                let Some((sent, command)) = account.commands.pop_front() else { break };
                let (rows, rest) = self.session_slice(command, self.slice(tenant));
                self.charge_beside(tenant, rows);
                if let Some(rest) = rest
                    && let Some(account) = self.accounts.get_mut(tenant)
                {
                    account.commands.push_front((sent, rest));
                    continue;
                }
                drop(sent);
            }
        }
    }

    /// Returns whether commands are left that wait only for their turn.
    pub(super) fn has_commands(&self) -> bool {
        self.accounts.iter().any(|account| !account.commands.is_empty())
    }

    /// Computes the pass layer by layer, one slice for each program in turn, as far as their tenants' credit
    /// goes.
    pub(super) fn run_layerwise(&mut self, now: Instant) {
        let _collecting = self.jobs.collect();
        // Programs in a row that had nothing to do or no credit.
        let mut idle = 0;
        while idle < self.layerwise.len() {
            let Some(mut work) = self.layerwise.pop_front() else { return };
            let tenant = work.tenant.id();
            let may = self.beside.left > 0.0 && self.has_credit(tenant);
            idle += 1;
            if may && work.is_waiting() && work.tenant.wait(now).is_zero() {
                idle = 0;
                let rows = work.run(&self.prices, self.slice(tenant));
                self.charge_beside(tenant, rows);
                self.beside.left -= rows;
                work.tenant.charge(rows, now);
            }
            self.layerwise.push_back(work);
        }
    }
}
