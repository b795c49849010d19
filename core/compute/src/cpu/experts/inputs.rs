//! The input of products with several matrices, in the forms that they need.

use std::ops::Range;

use super::super::Isa;
use super::super::activations::{Activations, Fill};
use super::super::format::{BLOCK, SUPER};
use super::super::matmul::{Rows, wide};
use super::super::matrix::Matrix;
use super::super::pool::{Pool, Share};

/// Fewer numbers than this are quantized on the calling thread: waking the others costs more.
const ALONE: usize = 8192;

/// The forms that matrices need. Within a form, set if it is with 16-bit codes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    small: Option<bool>,
    large: Option<bool>,
    /// Set if there is a matrix of floats.
    pub(super) floats: bool,
}

impl Kinds {
    pub(super) fn of<'a>(isa: Isa, matrices: impl IntoIterator<Item = &'a Matrix>) -> Self {
        let mut kinds = Self::default();
        for matrix in matrices {
            let Some(packed) = matrix.packed() else {
                kinds.floats = true;
                continue;
            };
            let form =
                if packed.format.record_columns() == SUPER { &mut kinds.large } else { &mut kinds.small };
            *form = Some(form.unwrap_or(false) || wide(isa, packed));
        }
        kinds
    }
}

/// The rows of an input, quantized.
#[derive(Default)]
pub(super) struct Inputs {
    small: Activations,
    large: Activations,
}

impl Inputs {
    /// Makes room for `rows` rows.
    pub(super) fn prepare(&mut self, isa: Isa, kinds: Kinds, rows: usize, columns: usize) {
        if let Some(wide) = kinds.small {
            self.small.prepare(isa, rows, columns, BLOCK, wide);
        }
        if let Some(wide) = kinds.large {
            self.large.prepare(isa, rows, columns, SUPER, wide);
        }
    }

    /// Returns writers of the forms, with the arguments given to [`Self::prepare`].
    pub(super) fn fills(&mut self, isa: Isa, kinds: Kinds) -> Fills {
        let Self { small, large } = self;
        Fills {
            small: kinds.small.map(|wide| small.fill(isa, wide)),
            large: kinds.large.map(|wide| large.fill(isa, wide)),
        }
    }

    /// Returns the rows of a group from row `first` on, which are `floats`, `stride` apart, in floats.
    pub(super) fn rows<'a>(&'a self, first: usize, floats: &'a [f32], stride: usize) -> Rows<'a> {
        Rows { small: &self.small, large: &self.large, first, floats, stride }
    }
}

/// Writes the forms of rows from several threads.
pub(super) struct Fills {
    small: Option<Fill>,
    large: Option<Fill>,
}

impl Fills {
    /// Quantizes the rows of tile number `tile` of the rows `group`, each from `x(row)`.
    ///
    /// # Safety
    /// The inputs are alive, no thread reads them, and no two threads fill the same tile.
    pub(super) unsafe fn tile<'a>(&self, group: &Range<usize>, tile: usize, x: impl Fn(usize) -> &'a [f32]) {
        for fill in [&self.small, &self.large].into_iter().flatten() {
            // SAFETY: by the caller's promise.
            unsafe { fill.tile(group, tile, &x) };
        }
    }

    /// Calls `each(item)` for every one of `items`, which have `numbers` numbers together, on all threads if
    /// there is enough work.
    pub(super) fn each(&self, pool: &Pool, items: usize, numbers: usize, each: impl Fn(&Self, usize) + Sync) {
        if self.small.is_none() && self.large.is_none() {
            return;
        }
        if numbers < ALONE {
            return (0..items).for_each(|item| each(self, item));
        }
        let share = Share::new(items, (items / (pool.threads() * 6)).clamp(1, 4));
        pool.run(&|_| {
            while let Some(items) = share.next() {
                items.for_each(|item| each(self, item));
            }
        });
    }
}
