//! Drafts for the sequences that generate, where they pay.

use std::time::Instant;

use super::Scheduler;
use super::passes::contain;
use super::select::Pick;
use crate::speculate::{MOST_DRAFTS, Speculating};
use crate::task::{Task, Work};

impl Scheduler {
    /// Adds drafts to the picked rows.
    pub(super) fn speculate(&mut self, picks: &mut [Pick], now: Instant) {
        picks.sort_unstable_by_key(|pick| pick.task);
        // A busy processor gains nothing by more rows: while prompts are computed, and while sequences take
        // turns.
        let mut idle = picks.len() < self.config.decode_rows;
        let mut sequences = Vec::new();
        // Both are in the order of ids.
        let mut running = self.running.iter_mut();
        for pick in picks.iter() {
            let Some(task) = running.find(|task| task.id == pick.task) else { continue };
            task.drafts.clear();
            if !task.decodes() {
                idle = false;
                continue;
            }
            // The last token that may come needs no row, and a sequence never writes more rows than a chunk.
            let room = task.limit.saturating_sub(task.tokens.len() + 1);
            let room = room.min(MOST_DRAFTS).min(self.config.prefill_chunk.saturating_sub(1));
            let Work::Generate(work) = &mut task.work else { continue };
            let Some(speculator) = work.look_ahead(&task.tokens, room) else { continue };
            let (id, tokens, drafts) = (task.id, &task.tokens[..], &mut task.drafts);
            sequences.push(Speculating { id, tokens, room, speculator, drafts });
        }
        if !idle || sequences.is_empty() {
            return;
        }
        match contain(|| self.drafting.propose(sequences, picks.len(), now)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "there are no drafts"),
            Err(error) => tracing::error!(%error, "there are no drafts"),
        }
        let mut running = self.running.iter();
        for pick in picks {
            let Some(task) = running.find(|task| task.id == pick.task) else { continue };
            pick.rows += task.drafts.len();
        }
    }

    /// Returns whether the picked rows do nothing but generate.
    pub(super) fn only_generates(&self, picks: &[Pick]) -> bool {
        let mut running = self.running.iter();
        picks.iter().all(|pick| running.find(|task| task.id == pick.task).is_some_and(Task::decodes))
    }
}
