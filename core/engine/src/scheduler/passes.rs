//! The pass of a step, and whom one that fails ends.
//!
//! An error of one sequence's making ends that sequence alone. What a sequence brings to a batch is checked
//! before the batch is put together. A pass that fails all the same is computed again in halves, and the
//! halves that fail in halves again, down to the sequences that fail by themselves: those end, their tenants
//! owe the time, and the others get the bits that they would have got, since no row depends on which others
//! share its pass. So a sequence that makes passes fail costs the others the time of two more passes, and
//! once. A device that is lost fails for each sequence, and all end with its error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::select::Pick;
use super::{MOST_KEPT, Scheduler};
use crate::Error;
use crate::adapter::Applied;
use crate::metrics::Outcome;
use crate::task::Task;

impl Scheduler {
    /// Makes the picked rows ready for their pass. Tasks whose rows no batch may have end, and are no longer
    /// among the picks.
    pub(super) fn fit(&mut self, mut picks: Vec<Pick>) -> Vec<Pick> {
        for (from, to) in std::mem::take(&mut self.copies) {
            if let Err(error) = contained(|| self.runner.copy_page(from, to)) {
                tracing::error!(%error, "a page could not be copied");
                self.lose_page(to, &failure(&error));
            }
        }
        let mut tokens = Vec::new();
        picks.retain(|pick| {
            let Some(index) = self.place(pick.task) else { return false };
            let task = &mut self.running[index];
            task.tokens_of(pick.rows, &mut tokens);
            let adapter = task.adapter.as_ref().map(Applied::used);
            let fits = self.runner.check_rows(&tokens, task.cached, task.pages.groups(), adapter);
            let ready = fits
                .map_err(|error| failure(&error))
                .and_then(|()| contain(|| task.prepare(pick.rows - task.drafts.len())));
            if let Err(error) = &ready {
                tracing::error!(%error, "a sequence does not fit into a batch");
                self.fail(&[*pick], error);
            }
            ready.is_ok()
        });
        picks
    }

    /// Computes the picked rows and gives every task the results of its own. Returns how long passes took.
    pub(super) fn compute(&mut self, picks: &[Pick], now: Instant) -> Duration {
        self.compute_after(picks, now, 0.0)
    }

    /// The same after passes of `failed` rows that the picked ones made fail, or some of them.
    fn compute_after(&mut self, picks: &[Pick], now: Instant, failed: f64) -> Duration {
        let expected = std::mem::take(&mut self.last_forward);
        if picks.is_empty() {
            self.deliver();
            return Duration::ZERO;
        }
        self.fill_batch(picks);
        let before = Instant::now();
        let result = self.pass(before, expected);
        let time = before.elapsed();
        match result {
            Ok(()) => {
                self.last_forward = (self.batch.rows(), time);
                let generating = self.price_of(picks, Task::decodes);
                let prompts = self.price_of(picks, |task| !task.decodes());
                self.pacing.observe(generating > 0.0, prompts, time.as_secs_f64());
                self.hand_out(picks, now);
                time
            }
            Err(error) if picks.len() == 1 => {
                tracing::error!(%error, "a forward pass failed");
                self.charge_failed(picks[0], failed + self.price(picks));
                self.fail(picks, &failure(&error));
                time
            }
            Err(error) => {
                tracing::warn!(%error, sequences = picks.len(), "a forward pass failed and is computed again in halves");
                let failed = failed + self.price(picks);
                let (first, second) = picks.split_at(picks.len() / 2);
                time + self.compute_after(first, now, failed) + self.compute_after(second, now, failed)
            }
        }
    }

    /// Returns the price of a pass of the picked rows, in rows.
    fn price(&self, picks: &[Pick]) -> f64 {
        self.price_of(picks, |_| true)
    }

    /// The same of those tasks that `counts` selects.
    fn price_of(&self, picks: &[Pick], counts: impl Fn(&Task) -> bool) -> f64 {
        let tasks = picks.iter().filter_map(|pick| Some((pick.rows, &self.running[self.place(pick.task)?])));
        let counted = tasks.filter(|(_, task)| counts(task));
        counted.map(|(rows, task)| self.prices.pass(task.cached, rows, 0)).sum()
    }

    /// Charges a tenant for the passes that its sequence made fail.
    fn charge_failed(&mut self, pick: Pick, rows: f64) {
        if let Some(index) = self.place(pick.task) {
            self.accounts.charge(self.running[index].tenant.id(), rows);
        }
    }

    /// Computes the batch. `expected` are the rows of the last one and how long it took.
    fn pass(&mut self, before: Instant, expected: (usize, Duration)) -> Result<(), realm_model::Error> {
        let started = contained(|| self.runner.start(&self.batch));
        if self.batch.keep && expected.0 == self.batch.rows() {
            // Programs will think about these results as soon as they are there.
            self.runner.wake_hint(self.batch.outputs.len(), before + expected.1);
        }
        // While the device is at work, readers get what the step before had for them.
        self.deliver();
        started?;
        contained(|| self.runner.finish())
    }

    fn fill_batch(&mut self, picks: &[Pick]) {
        self.batch.clear();
        let (mut tokens, mut few, mut keep) = (Vec::new(), true, false);
        for pick in picks {
            let Some(index) = self.place(pick.task) else { continue };
            let task = &mut self.running[index];
            task.tokens_of(pick.rows, &mut tokens);
            let prompt_rows = pick.rows - task.drafts.len();
            self.batch.push(&tokens, task.cached, task.pages.groups(), task.want(prompt_rows));
            let wants = self
                .batch
                .outputs
                .last()
                .is_some_and(|&row| row as usize >= self.batch.rows() - tokens.len());
            few &= !wants || task.top_k_suffices();
            keep |= wants && task.keeps_rows();
            if let Some(span) = self.batch.spans.last_mut() {
                span.adapter = task.adapter.as_ref().map(Applied::used);
            }
        }
        // Rows that are kept take memory of the device's.
        self.batch.top_k = few && (!keep || self.batch.outputs.len() <= MOST_KEPT);
        self.batch.keep = keep;
    }

    /// Ends the task that a page is lost to. A session is computed again.
    fn lose_page(&mut self, page: u32, error: &Error) {
        let holds = |task: &Task| task.pages.groups().iter().flatten().any(|&held| held == page);
        let Some(index) = self.running.iter().position(holds) else { return };
        let task = &mut self.running[index];
        self.kv.release(&mut task.pages);
        task.restart();
        let pick = Pick { task: task.id, rows: 0 };
        self.fail(&[pick], error);
    }

    /// Ends the picked tasks.
    fn fail(&mut self, picks: &[Pick], error: &Error) {
        let failed: Vec<u64> = picks.iter().map(|pick| pick.task).collect();
        for task in self.running.iter_mut().filter(|task| failed.contains(&task.id)) {
            task.fail(Outcome::Failed, error.clone());
        }
        self.retire(&failed);
    }
}

/// Does what belongs to one task. A panic is an error of that task's; the panic hook has reported it.
pub(super) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    let fault = || Error::Model("a fault of Realm's ended this request; standard error has the place".into());
    caught(work).ok_or_else(fault)
}

/// Has the model compute. A panic is an error like others.
fn contained(compute: impl FnOnce() -> Result<(), realm_model::Error>) -> Result<(), realm_model::Error> {
    caught(compute).unwrap_or_else(|| Err(fault()))
}

/// The error that a panic in a pass, or in an operation of one, is reported as.
pub(super) fn fault() -> realm_model::Error {
    realm_compute::Error::Device("a fault of Realm's ended the pass; standard error has the place".into())
        .into()
}

/// Returns the result of `work`, or `None` if it panicked.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    // The payload's destructor could panic again.
    catch_unwind(AssertUnwindSafe(work)).map_err(std::mem::forget).ok()
}

/// The error that readers receive when a pass fails.
pub(super) fn failure(error: &realm_model::Error) -> Error {
    match error {
        realm_model::Error::Compute(realm_compute::Error::OutOfMemory { .. }) => {
            Error::LimitExceeded(error.to_string())
        }
        _ => Error::Model(error.to_string()),
    }
}
