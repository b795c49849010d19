//! The adapters' part of a product: `b · (a · x)` for the rows that use them.
//!
//! The threads share out the inner products `a · x` (*hidden* numbers, as many as the adapter's rank) of all
//! adapters and all matrices of a call together, in the region that quantizes the input. `b` is then part of
//! the product itself: a thread that has a panel's sums adds those of the adapters before it writes them. So
//! adapters need no region of their own, and the base weights are read once for all rows.
//!
//! An adapter of experts has a pair of matrices for each of them. Its uses are by expert: the rows that an
//! expert has in common with the adapter; see `experts/adapters.rs`.
//!
//! A decoding row reads all of its adapter for one multiplication per weight, so bytes decide the speed.
//! Weights stay in 16 bits if the file has them so, and nothing is padded to a multiple of more than 4, the
//! rank included.

mod kernels;
mod vector;

use std::ops::Range;

use realm_gguf::{Tensor, TensorType};

use super::aligned::{Aligned, Plain};
use super::format::PANEL;
use super::lanes::LANES;
use super::matrix::{FloatPanels, FloatSlice, Floats, Matrix};
use super::pool::{Parts, Pool, Share};
use super::{CpuBackend, Isa};
use crate::checks::{self, bad_tensor};
use crate::{Error, Lora, LoraRow};
use kernels::{Inner, Outer};

/// Ranks whose weights are interleaved.
const TILE: usize = 4;
/// Tiles and rows per piece of work: about 10 KB of weights for the widths of small models.
const PIECE_TILES: usize = 2;
const PIECE_ROWS: usize = 32;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Distance of prefetching ahead of the kernels, in bytes.
const AHEAD: usize = 2048;

/// A low-rank change of a matrix, or of one matrix for each expert.
pub struct LowRank {
    count: usize,
    rank: usize,
    inputs: usize,
    outputs: usize,
    /// `[experts][rank / 4][inputs / 8][4][8]`, filled up with zeros.
    a: Floats,
    /// `[outputs, rank]` in panels, for each expert.
    b: FloatPanels,
}

impl LowRank {
    pub(super) fn new(pool: &Pool, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<Self, Error> {
        let ([inputs, rank, count], _) = checks::matrices(a, usize::MAX)?;
        let ([columns, outputs, of], _) = checks::matrices(b, usize::MAX)?;
        if columns != rank || of != count {
            return Err(bad_tensor(b, &format!("does not fit {count} matrices `a` of rank {rank}")));
        }
        let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let two = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        let shape = [count, rank, inputs];
        let tiles = match a.info.ty {
            TensorType::F32 => Floats::F32(tiles(a.data, 4, shape, four)),
            TensorType::F16 => Floats::F16(tiles(a.data, 2, shape, two)),
            TensorType::BF16 => Floats::BF16(tiles(a.data, 2, shape, two)),
            _ => return Err(bad_tensor(a, &format!("is {}, not F32, F16 or BF16", a.info.ty))),
        };
        match (b.info.ty, Matrix::stacked(pool, b, [columns, outputs, count])?) {
            (TensorType::F32 | TensorType::F16 | TensorType::BF16, Matrix::Float(b)) => {
                Ok(Self { count, rank, inputs, outputs, a: tiles, b })
            }
            (ty, _) => Err(bad_tensor(b, &format!("is {ty}, not F32, F16 or BF16"))),
        }
    }

    /// Number of changed matrices, their outputs and inputs.
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.count, self.outputs, self.inputs]
    }

    /// Tiles of one expert's `a`.
    fn tiles(&self) -> usize {
        self.rank.div_ceil(TILE)
    }

    /// A panel of an expert's `b`.
    fn panel(&self, expert: usize, panel: usize) -> FloatSlice<'_> {
        self.b.slice(expert * self.outputs.div_ceil(PANEL) + panel, 0, self.rank)
    }
}

/// Lays out rows of numbers of `bytes` bytes, `[count][rank][inputs]`, in the order of [`LowRank::a`].
fn tiles<T: Plain>(
    data: &[u8],
    bytes: usize,
    [count, rank, inputs]: [usize; 3],
    read: impl Fn(&[u8]) -> T,
) -> Aligned<T> {
    let steps = inputs.div_ceil(LANES);
    let each = rank.div_ceil(TILE) * steps * TILE * LANES;
    let mut out = Aligned::zeroed(count * each);
    for (i, row) in data.chunks_exact(inputs * bytes).enumerate() {
        let (expert, r) = (i / rank, i % rank);
        let first = expert * each + (r / TILE * steps * TILE + r % TILE) * LANES;
        for (k, number) in row.chunks_exact(bytes).enumerate() {
            out[first + k / LANES * TILE * LANES + k % LANES] = read(number);
        }
    }
    out
}

/// The change of a product's matrix, for some of its rows.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) pair: &'a LowRank,
    /// The index of the matrix among those that the pair changes.
    pub(super) expert: usize,
    /// The adapter's own factor.
    pub(super) scale: f32,
    /// Rows of the input.
    pub(super) from: &'a [LoraRow],
    /// The same rows, in the same order, by their numbers in the product.
    pub(super) to: &'a [LoraRow],
}

impl<'a> Change<'a> {
    /// Returns the change of a product in which every row has its number in the input.
    pub(super) fn of(lora: &'a Lora<'a, CpuBackend>) -> Self {
        Self { pair: lora.pair, expert: 0, scale: lora.scale, from: lora.rows, to: lora.rows }
    }
}

/// The adapters of one call, with a place for all hidden numbers.
pub(super) struct Plan<'a> {
    uses: Vec<Use<'a>>,
    /// The index of each product's first use, and the end.
    first: Vec<usize>,
    pieces: Vec<Piece>,
    numbers: usize,
}

/// One adapter in one product.
struct Use<'a> {
    change: Change<'a>,
    /// Where the hidden numbers of this use begin, `[rows, rank]`.
    at: usize,
}

/// A unit of work for a thread.
struct Piece {
    of: usize,
    rows: Range<usize>,
    tiles: Range<usize>,
}

impl<'a> Plan<'a> {
    /// Returns the plan for products with these changes; `None` without changes.
    pub(super) fn new<C: Iterator<Item = Change<'a>>>(products: impl Iterator<Item = C>) -> Option<Self> {
        let mut plan = Self { uses: Vec::new(), first: vec![0], pieces: Vec::new(), numbers: 0 };
        for changes in products {
            for change in changes.filter(|change| !change.from.is_empty()) {
                let (rows, tiles) = (change.from.len(), change.pair.tiles());
                for row in (0..rows).step_by(PIECE_ROWS) {
                    plan.pieces.extend((0..tiles).step_by(PIECE_TILES).map(|tile| Piece {
                        of: plan.uses.len(),
                        rows: row..rows.min(row + PIECE_ROWS),
                        tiles: tile..tiles.min(tile + PIECE_TILES),
                    }));
                }
                plan.uses.push(Use { change, at: plan.numbers });
                plan.numbers += rows * change.pair.rank;
            }
            plan.first.push(plan.uses.len());
        }
        (!plan.uses.is_empty()).then_some(plan)
    }

    /// Number of hidden numbers.
    pub(super) fn numbers(&self) -> usize {
        self.numbers
    }

    /// Returns the counter that shares out [`Self::piece`]s.
    pub(super) fn share(&self) -> Share {
        Share::new(self.pieces.len(), 1)
    }

    /// Computes the hidden numbers of piece `piece` from the input `x`, rows of `columns` numbers.
    ///
    /// # Safety
    /// `hidden` has [`Self::numbers`] numbers, and each piece is computed once, while no thread reads them.
    pub(super) unsafe fn piece(
        &self,
        isa: Isa,
        piece: usize,
        (x, columns): (&[f32], usize),
        hidden: &Parts<f32>,
    ) {
        let Piece { of, rows, tiles } = &self.pieces[piece];
        let &Use { change: Change { pair, expert, scale, from, .. }, at } = &self.uses[*of];
        let rank = pair.rank;
        let inner = Inner { a: &pair.a, first: expert * pair.tiles(), x, columns, rows: from };
        inner.run(isa, tiles.clone(), rows.clone(), |tile, row, sums| {
            let len = TILE.min(rank - tile * TILE);
            // SAFETY: no other piece has this row's ranks.
            let out = unsafe { hidden.part(at + row * rank + tile * TILE, len) };
            let scale = scale * from[row].scale;
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = scale * sum;
            }
        });
    }

    fn of(&self, product: usize) -> &[Use<'a>] {
        &self.uses[self.first[product]..self.first[product + 1]]
    }

    /// Prefetches the data that [`Self::add`] will read for panel `panel`.
    pub(super) fn fetch(&self, product: usize, panel: usize) {
        for u in self.of(product) {
            match u.change.pair.panel(u.change.expert, panel) {
                FloatSlice::F32(w) => fetch(w),
                FloatSlice::F16(w) | FloatSlice::BF16(w) => fetch(w),
            }
        }
    }

    /// Adds the adapters' products of product `product` to a panel's sums, `[rows][16]`.
    pub(super) fn add(
        &self,
        isa: Isa,
        product: usize,
        panel: usize,
        hidden: &[f32],
        acc: &mut [[f32; PANEL]],
    ) {
        Outer { uses: self.of(product), panel, hidden }.run(isa, acc);
    }
}

/// Prefetches all cache lines of `w`.
fn fetch<T>(w: &[T]) {
    for i in (0..size_of_val(w)).step_by(LINE) {
        prefetch(w.as_ptr().wrapping_byte_add(i));
    }
}

/// Prefetches the cache line at `p`, which may be any address.
#[inline(always)]
fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may name any address, and every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}
