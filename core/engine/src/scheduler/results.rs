//! The results of a pass: each task gets its rows, readers get their text, and programs have their turns.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use realm_model::Outputs;

use crate::metrics::Outcome;
use crate::task::{Progress, Rows};

use super::Scheduler;
use super::passes::contain;
use super::select::Pick;

/// Choosing this many tokens from the likeliest ones takes as long as waking other threads.
const FEW_TASKS: usize = 16;

impl Scheduler {
    /// Sends what tasks have for their readers.
    pub(super) fn deliver(&mut self) {
        for task in &mut self.running {
            task.deliver();
        }
        self.jobs.run_meanwhile();
    }

    /// Gives every task the results of its rows.
    pub(super) fn hand_out(&mut self, picks: &[Pick], now: Instant) {
        let (outputs, hidden) = (self.runner.outputs(), self.runner.hidden());
        let few = matches!(outputs, Outputs::Device(_)) && !self.batch.outputs.is_empty();
        let (vocab, width) = (self.runner.config().vocab, self.runner.config().hidden);
        let (mut next_output, mut next_state) = (0, 0);
        let mut parts = Vec::with_capacity(picks.len());
        // Picks are in the order of the running tasks.
        let mut tasks = self.running.iter_mut();
        for (pick, span) in picks.iter().zip(&self.batch.spans) {
            let Some(task) = tasks.find(|task| task.id == pick.task) else { continue };
            let wanted = |rows: &[u32], next: &mut usize| {
                let first = *next;
                *next += rows[first..].iter().take_while(|&&row| span.rows.contains(&(row as usize))).count();
                first..*next
            };
            let output = wanted(&self.batch.outputs, &mut next_output);
            let state = wanted(&self.batch.hidden, &mut next_state);
            let rows = Rows {
                outputs,
                range: output,
                hidden: &hidden[state.start * width..state.end * width],
                vocab,
                width,
            };
            task.served = self.steps;
            let cached = task.cached;
            let work =
                self.prices.pass(cached, pick.rows, rows.len()) + task.sampled(rows.len(), &self.prices);
            parts.push(Mutex::new((task, (pick.rows, work), cached, rows, Progress::More)));
        }
        let later = self.runner.overlaps();
        let advance = |i: usize| {
            let mut part = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
            let (task, (rows, _), _, results, progress) = &mut *part;
            *progress = contain(|| task.advance(*rows, results, &self.tokenizer)).unwrap_or_else(|error| {
                task.fail(Outcome::Failed, error);
                Progress::Ended
            });
            if !later {
                task.deliver();
            }
        };
        let collecting = self.jobs.collect();
        if few && parts.len() <= FEW_TASKS {
            (0..parts.len()).for_each(advance);
        } else {
            // Sampling takes longer than handing it to other threads.
            self.runner.on_host_threads(parts.len(), &advance);
        }
        drop(collecting);
        let mut done = Vec::new();
        for part in parts {
            let (task, (_, work), cached, _, progress) =
                part.into_inner().unwrap_or_else(PoisonError::into_inner);
            // Rejected drafts took time, but are no tokens of the tenant's.
            self.accounts.charge(task.tenant.id(), work);
            task.tenant.charge((task.cached - cached) as f64, now);
            task.publish(&mut self.kv);
            if progress != Progress::More {
                done.push(task.id);
            }
        }
        self.retire(&done);
    }

    /// Runs the turns of programs that this step woke, so that their next rows are in the next step.
    pub(super) fn run_turns(&self) {
        let turns: Vec<_> = self.jobs.take_turns().into_iter().map(|turn| Mutex::new(Some(turn))).collect();
        let (jobs, overlaps) = (&self.jobs, self.runner.overlaps());
        self.runner.on_host_threads(turns.len(), &|i| {
            let turn = turns[i].lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(turn) = turn {
                jobs.run(turn, overlaps);
            }
        });
    }
}
