//! The forward pass in pieces, put together by programs: one operation after the other, the long ones slice
//! by slice.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use realm_model::{PieceId, Pieces};

use super::Scheduler;
use super::passes::{caught, failure, fault};
use super::work::Prices;
use crate::pieces::{PieceCommand, PieceOp};
use crate::{Error, Tenant};

/// The most numbers that one slice makes, so that those of a tensor that were made together can be changed
/// together.
const MOST_NUMBERS: usize = 1 << 18;

/// The cost of an operation that panics, in rows.
const PANIC: f64 = 1.0;

/// One program's pieces, and its queue of operations.
pub(super) struct PieceWork {
    id: u64,
    pub(super) tenant: Arc<Tenant>,
    pieces: Box<dyn Pieces>,
    ops: VecDeque<PieceOp>,
    /// The number of rows of the first operation that are done, and the values for its answer so far.
    done: usize,
    values: Vec<f32>,
    queued: Arc<AtomicUsize>,
    /// An error that no answer has reported yet.
    failed: Option<Error>,
}

impl Scheduler {
    /// Takes a program's command.
    pub(crate) fn piece(&mut self, command: PieceCommand) {
        match command {
            PieceCommand::Open { id, tenant, pieces, queued } => {
                self.accounts.of(&tenant).pieces += 1;
                self.pieces.push_back(PieceWork {
                    id,
                    tenant,
                    pieces,
                    ops: VecDeque::new(),
                    done: 0,
                    values: Vec::new(),
                    queued,
                    failed: None,
                });
            }
            PieceCommand::Do { id, op } => {
                if let Some(work) = self.pieces.iter_mut().find(|work| work.id == id) {
                    work.ops.push_back(op);
                }
            }
            PieceCommand::Close { id } => {
                if let Some(at) = self.pieces.iter().position(|work| work.id == id)
                    && let Some(work) = self.pieces.remove(at)
                {
                    self.accounts.of(&work.tenant).pieces -= 1;
                }
            }
        }
    }

    /// Returns whether some program's pieces can be computed now; notes when others may be.
    pub(super) fn has_pieces(&mut self, now: Instant) -> bool {
        let mut any = false;
        for work in self.pieces.iter().filter(|work| work.is_waiting()) {
            let wait = work.tenant.wait(now);
            self.wake.note(wait);
            any |= wait.is_zero();
        }
        any
    }
}

/// Returns a range of rows from `from` on that cost no more than `slice` together, at least one row. `price`
/// gives the cost of a number of rows.
fn take(rows: usize, from: usize, width: usize, slice: f64, price: impl Fn(usize) -> f64) -> Range<usize> {
    let (mut low, mut high) = (1, (rows - from).min((MOST_NUMBERS / width.max(1)).max(1)).max(1));
    while low < high {
        let middle = (low + high).div_ceil(2);
        if price(middle) <= slice { low = middle } else { high = middle - 1 }
    }
    from..(from + low).min(rows)
}

impl PieceWork {
    /// Returns whether an operation waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.ops.is_empty()
    }

    /// Computes a slice of the first operation, which costs at most `slice` or is one row; returns its cost
    /// in rows.
    pub(super) fn run(&mut self, prices: &Prices, slice: f64) -> f64 {
        let Some(op) = self.ops.pop_front() else { return 0.0 };
        let from = self.done;
        // A panic is an error of this program's. The cost of its operation is unknown.
        let (result, cost, whole) =
            caught(|| self.compute(&op, prices, slice)).unwrap_or_else(|| (Err(fault()), PANIC, 0));
        let failed = result.is_err();
        if let Err(error) = result {
            self.failed.get_or_insert(model_error(error));
            if let (Some(to), true) = (op.makes(), from > 0) {
                // A tensor that is only partly computed is of no use.
                self.pieces.free(to);
            }
        }
        if failed || self.done >= whole {
            self.done = 0;
            self.answer(op);
            self.queued.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.ops.push_front(op);
        }
        cost
    }

    /// Computes some rows of an operation; returns their cost and the number of rows that the operation has
    /// in all.
    fn compute(
        &mut self,
        op: &PieceOp,
        prices: &Prices,
        slice: f64,
    ) -> (Result<(), realm_model::Error>, f64, usize) {
        let (from, pieces, values) = (self.done, &mut self.pieces, &mut self.values);
        let width_of = |pieces: &dyn Pieces, x: PieceId| pieces.shape(x).map_or(1, |[_, width]| width);
        let (result, cost, rows, whole) = match op {
            PieceOp::Upload { to, width, values } => {
                let whole = values.len() / (*width).max(1);
                let price = |rows: usize| prices.moved(2 * rows * width);
                let rows = take(whole, from, *width, slice, price);
                let part = &values[rows.start * width..rows.end * width];
                (pieces.upload(*to, *width, part), price(rows.len()), rows, whole)
            }
            PieceOp::Gather { x, rows: wanted, to } => {
                let width = width_of(&**pieces, *x);
                let price = |rows: usize| prices.moved(3 * rows * width);
                let rows = take(wanted.len(), from, width, slice, price);
                (pieces.gather(*x, &wanted[rows.clone()], *to), price(rows.len()), rows, wanted.len())
            }
            PieceOp::Add { x, other, scale } => {
                let [whole, width] = pieces.shape(*x).unwrap_or([0, 1]);
                // The rows are read, changed and written.
                let rows = pieces.made_with(*x, from).unwrap_or(0..0);
                let cost = prices.moved(4 * rows.len() * width);
                (pieces.add(*x, rows.clone(), *other, *scale), cost, rows, whole)
            }
            PieceOp::Embed { tokens, to } => {
                let width = prices.hidden();
                let price = |rows: usize| prices.moved(2 * rows * width);
                let rows = take(tokens.len(), from, width, slice, price);
                (pieces.embed(&tokens[rows.clone()], *to), price(rows.len()), rows, tokens.len())
            }
            PieceOp::Attention { layer, x, rows: whole, cache, to } => {
                let seen = pieces.cached(*cache, *layer);
                let price = |rows: usize| prices.attention(*layer, seen, rows);
                let rows = take(*whole, from, prices.hidden(), slice, price);
                (pieces.attention(*layer, *x, rows.clone(), *cache, *to), price(rows.len()), rows, *whole)
            }
            PieceOp::FeedForward { layer, x, rows: whole, to } => {
                let price = |rows: usize| prices.feed_forward(rows);
                let rows = take(*whole, from, prices.hidden(), slice, price);
                (pieces.feed_forward(*layer, *x, rows.clone(), *to), price(rows.len()), rows, *whole)
            }
            PieceOp::MatMul { weight, shape, x, rows: whole, to } => {
                let price = |rows: usize| prices.matmul(rows, *shape);
                let rows = take(*whole, from, shape[0], slice, price);
                (pieces.matmul(weight, *x, rows.clone(), *to), price(rows.len()), rows, *whole)
            }
            PieceOp::Read { x, .. } => {
                let [whole, width] = pieces.shape(*x).unwrap_or([0, 1]);
                let price = |rows: usize| prices.moved(2 * rows * width);
                let rows = take(whole, from, width, slice, price);
                values.reserve_exact((whole - from) * width);
                (pieces.read(*x, rows.clone(), values), price(rows.len()), rows, whole)
            }
            PieceOp::Logits { x, rows: whole, .. } => {
                let price = |rows: usize| prices.logits(rows);
                let rows = take(*whole, from, prices.vocab(), slice, price);
                values.reserve_exact((*whole - from) * prices.vocab());
                (pieces.logits(*x, rows.clone(), values), price(rows.len()), rows, *whole)
            }
            PieceOp::OpenCache { cache, tokens } => {
                // The cache's memory is taken when it is written to. Its tables take one number for each
                // page.
                (pieces.open_cache(*cache, *tokens), prices.moved(*tokens), 0..0, 0)
            }
            PieceOp::TruncateCache { cache, len } => {
                pieces.truncate_cache(*cache, *len);
                (Ok(()), prices.command(0), 0..0, 0)
            }
            PieceOp::Free(piece) => {
                let numbers = pieces.shape(*piece).map_or(0, |[rows, width]| rows * width);
                pieces.free(*piece);
                // Freeing memory takes less time than allocating it.
                (Ok(()), prices.command(numbers / 8), 0..0, 0)
            }
            PieceOp::Flush { .. } => (Ok(()), prices.command(0), 0..0, 0),
        };
        self.done = rows.end;
        (result, cost, whole)
    }

    /// Answers a completed operation. Fails silently if the caller is gone.
    fn answer(&mut self, op: PieceOp) {
        let values = std::mem::take(&mut self.values);
        match op {
            PieceOp::Read { reply, .. } | PieceOp::Logits { reply, .. } => {
                drop(reply.try_send(self.told().map(|()| values)));
            }
            PieceOp::Flush { reply } => drop(reply.try_send(self.told())),
            _ => {}
        }
    }

    /// Returns the error that was not reported yet, once.
    fn told(&mut self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

fn model_error(error: realm_model::Error) -> Error {
    match error {
        realm_model::Error::InvalidBatch(why) => Error::InvalidArgument(why),
        other => failure(&other),
    }
}
