//! Products in which every row has matrices of its own: mixtures of experts, and a matrix for each head.
//!
//! A mixture is a few parallel regions, however many experts there are: the input is quantized and the router
//! scores the experts; `route` chooses among them and groups the rows by expert; one region multiplies gates
//! and ups of all groups and applies the activation; and one multiplies the downs. There a thread has the
//! same 16 outputs of all rows and adds up the experts' results in the order of their numbers, so a row's
//! result does not depend on the other rows, and nothing is scattered.
//!
//! Adapters of experts add to these products where they are computed, before biases and activations: see
//! `adapters`.
//!
//! A row is quantized as a group of one row, which serves the router and experts that only this row chose,
//! and once more in each group of several rows: tiles of rows are quantized together.

mod adapters;
mod inputs;
mod mixture;
mod route;

use realm_gguf::Tensor;

use super::activations::tiles;
use super::format::PANEL;
use super::matmul::{Unpacked, add_panel};
use super::matrix::Matrix;
use super::pool::{Parts, Pool, Share};
use super::{Buffer, Isa};
use crate::{Error, checks};
use inputs::{Inputs, Kinds};
pub(super) use mixture::mixture;
use mixture::{Block, Router};

/// Matrices of one shape, one for each expert or head.
pub struct Experts {
    /// All of them, one after the other.
    matrix: Matrix,
    count: usize,
    outputs: usize,
}

impl Experts {
    pub(super) fn new(pool: &Pool, tensor: &Tensor<'_>) -> Result<Self, Error> {
        let ([columns, outputs, count], _) = checks::matrices(tensor, usize::MAX)?;
        Ok(Self { matrix: Matrix::stacked(pool, tensor, [columns, outputs, count])?, count, outputs })
    }

    /// Their number, outputs and inputs.
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.count, self.outputs, self.matrix.columns()]
    }

    /// Where the weights lie.
    pub(super) fn address(&self) -> usize {
        self.matrix.address()
    }

    /// Panels of one matrix.
    fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }
}

/// Work memory, kept from call to call.
#[derive(Default)]
pub(super) struct Space {
    router: Router,
    x: Inputs,
    hidden: Inputs,
    threads: Vec<std::sync::Mutex<ThreadSpace>>,
}

/// Work memory of one thread.
#[derive(Default)]
struct ThreadSpace {
    unpacked: Unpacked,
    gate: Vec<Block>,
    up: Vec<Block>,
    sums: Vec<Block>,
}

impl Space {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| Default::default()).collect(), ..Self::default() }
    }
}

/// Calls `each(items, space)` for pieces of `0..items` on all threads. `piece` limits their length.
fn share_out(
    pool: &Pool,
    threads: &[std::sync::Mutex<ThreadSpace>],
    items: usize,
    piece: usize,
    each: impl Fn(std::ops::Range<usize>, &mut ThreadSpace) + Sync,
) {
    // Several pieces per thread, so that threads finish at about the same time.
    let share = Share::new(items, (items / (pool.threads() * 6)).clamp(1, piece.max(1)));
    pool.run(&|thread| {
        let mut space = threads[thread].lock().unwrap_or_else(|e| e.into_inner());
        while let Some(items) = share.next() {
            each(items, &mut space);
        }
    });
}

/// Implements [`Backend::each_head`](crate::Backend::each_head) for operands that were checked.
pub(super) fn each_head(pool: &Pool, isa: Isa, space: &mut Space, x: &Buffer, w: &Experts, out: &mut Buffer) {
    let [heads, outputs, inputs] = w.shape();
    let rows = x.rows();
    if rows == 0 {
        return;
    }
    let Space { x: input, threads, .. } = space;
    let kinds = Kinds::of(isa, [&w.matrix]);
    input.prepare(isa, kinds, heads * rows, inputs);
    let group = |head: usize| head * rows..(head + 1) * rows;
    let fills = input.fills(isa, kinds);
    let tiles = tiles(rows);
    fills.each(pool, heads * tiles, heads * rows * inputs, |fills, item| {
        let (head, tile) = (item / tiles, item % tiles);
        let input = |at: usize| &x.row(at % rows)[head * inputs..][..inputs];
        // SAFETY: every tile of every head is filled once.
        unsafe { fills.tile(&group(head), tile, input) };
    });
    let width = heads * outputs;
    let parts = Parts::new(out.data_mut());
    share_out(pool, threads, heads * w.panels(), 64, |items, space| {
        for item in items {
            let (head, panel) = (item / w.panels(), item % w.panels());
            space.sums.clear();
            space.sums.resize(rows, [0.0; PANEL]);
            let rows = input.rows(group(head).start, &x.data()[head * inputs..], x.columns());
            add_panel(isa, &w.matrix, item, rows, &mut space.unpacked, &mut space.sums);
            let (first, len) = (panel * PANEL, PANEL.min(outputs - panel * PANEL));
            for (row, sums) in space.sums.iter().enumerate() {
                // SAFETY: a panel's outputs of a head are this thread's alone.
                let out = unsafe { parts.part(row * width + head * outputs + first, len) };
                out.copy_from_slice(&sums[..len]);
            }
        }
    });
}
