//! Between steps: pieces of the forward pass that programs put together themselves.
//!
//! What one row costs in one half of a layer is one unit. Sessions take turns, and while others generate all of them
//! together get as many units a step as so many rows would cost, so that nobody is held up for long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use realm_model::Pieces;

use super::Scheduler;
use crate::pieces::{PieceCommand, PieceOp};
use crate::{Error, Tenant};

/// Rows' worth of pieces in a step while others generate.
const SHARED_ROWS: usize = 16;

/// One program's pieces, and what it waits for.
pub(super) struct PieceWork {
    id: u64,
    tenant: Arc<Tenant>,
    pieces: Box<dyn Pieces>,
    ops: VecDeque<PieceOp>,
    queued: Arc<AtomicUsize>,
    /// What went wrong and nobody was told yet.
    failed: Option<Error>,
    /// Units that were not charged yet, since they are less than a row's.
    units: usize,
}

impl Scheduler {
    /// Does what a program wishes.
    pub(crate) fn piece(&mut self, command: PieceCommand) {
        match command {
            PieceCommand::Open { id, tenant, pieces, queued } => {
                let ops = VecDeque::new();
                self.pieces.push_back(PieceWork { id, tenant, pieces, ops, queued, failed: None, units: 0 });
            }
            PieceCommand::Do { id, op } => {
                if let Some(work) = self.pieces.iter_mut().find(|work| work.id == id) {
                    work.ops.push_back(op);
                }
            }
            PieceCommand::Close { id } => self.pieces.retain(|work| work.id != id),
        }
    }

    /// Whether some program's pieces can be computed; notes when others may be.
    pub(super) fn has_pieces(&mut self, now: Instant) -> bool {
        let mut any = false;
        for work in self.pieces.iter().filter(|work| !work.ops.is_empty()) {
            let wait = work.tenant.wait(now);
            self.wake.note(wait);
            any |= wait.is_zero();
        }
        any
    }

    /// Computes pieces; as many as there are for now, or as many as others may be held up for.
    pub(super) fn run_pieces(&mut self, shared: bool, now: Instant) {
        let layers = self.runner.config().layers.max(1);
        let row = 2 * layers;
        let mut budget = if shared { SHARED_ROWS * row } else { usize::MAX };
        let _collecting = self.afterwards.collect();
        // Each gets a row's worth in turn.
        for _ in 0..self.pieces.len() {
            let Some(mut work) = self.pieces.pop_front() else { return };
            let mut slice = row.min(budget);
            while slice > 0 && work.tenant.wait(now).is_zero() {
                let Some(op) = work.ops.pop_front() else { break };
                let units = work.run(op, layers);
                work.queued.fetch_sub(1, Ordering::Relaxed);
                slice = slice.saturating_sub(units);
                budget = budget.saturating_sub(units);
                work.units += units;
                let rows = work.units / row;
                work.units %= row;
                self.accounts.charge(work.tenant.id(), rows);
                work.tenant.charge(rows, now);
            }
            self.pieces.push_back(work);
        }
    }
}

impl PieceWork {
    /// Computes one operation; returns what it cost.
    fn run(&mut self, op: PieceOp, layers: usize) -> usize {
        let pieces = &mut self.pieces;
        let (done, units) = match op {
            PieceOp::Upload { to, width, values } => {
                (pieces.upload(to, width, &values), 1 + values.len() / width.max(1) / 8)
            }
            PieceOp::Gather { x, rows, to } => (pieces.gather(x, &rows, to), 1 + rows.len() / 8),
            PieceOp::Add { x, other, scale } => (pieces.add(x, other, scale), 1),
            PieceOp::Embed { tokens, to } => (pieces.embed(&tokens, to), 1 + tokens.len() / 8),
            PieceOp::Attention { layer, x, rows, cache, to } => (pieces.attention(layer, x, cache, to), rows),
            PieceOp::FeedForward { layer, x, rows, to } => (pieces.feed_forward(layer, x, to), rows),
            PieceOp::MatMul { weight, x, rows, to } => (pieces.matmul(&weight, x, to), rows),
            PieceOp::OpenCache { cache, tokens } => (pieces.open_cache(cache, tokens), 1),
            PieceOp::TruncateCache { cache, len } => {
                pieces.truncate_cache(cache, len);
                (Ok(()), 0)
            }
            PieceOp::Free(piece) => {
                pieces.free(piece);
                (Ok(()), 0)
            }
            // If nobody waits any more, nobody wants to know.
            PieceOp::Read { x, reply } => {
                let values = self.told().and_then(|()| self.pieces.read(x).map_err(model_error));
                drop(reply.try_send(values));
                (Ok(()), 1)
            }
            PieceOp::Logits { x, rows, reply } => {
                let values = self.told().and_then(|()| self.pieces.logits(x).map_err(model_error));
                drop(reply.try_send(values));
                // The output matrix is about as large as a few layers.
                (Ok(()), rows * 2 * layers.div_ceil(8))
            }
            PieceOp::Flush { reply } => {
                drop(reply.try_send(self.told()));
                (Ok(()), 0)
            }
        };
        if let Err(error) = done {
            self.failed.get_or_insert(model_error(error));
        }
        units
    }

    /// What went wrong before, once.
    fn told(&mut self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

fn model_error(error: realm_model::Error) -> Error {
    match error {
        realm_model::Error::InvalidBatch(why) => Error::InvalidArgument(why),
        realm_model::Error::Compute(realm_compute::Error::OutOfMemory { .. }) => {
            Error::LimitExceeded(error.to_string())
        }
        other => Error::Model(other.to_string()),
    }
}
