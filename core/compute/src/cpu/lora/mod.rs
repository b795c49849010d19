//! The adapters' part of a product: `b · (a · x)` for the rows that use them.
//!
//! The threads share out the inner products `a · x` (*hidden* numbers, as many as the adapter's rank) of all
//! adapters and all matrices of a call together, in the region that quantizes the input. `b` is then part of
//! the product itself: a thread that has a panel's sums adds those of the adapters before it writes them. So
//! adapters need no region of their own, and the base weights are read once for all rows.
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
use super::{Buffer, CpuBackend, Isa};
use crate::checks::bad_tensor;
use crate::{Error, Lora};
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

/// A low-rank change of a matrix.
pub struct LowRank {
    rank: usize,
    inputs: usize,
    /// `[rank / 4][inputs / 8][4][8]`, filled up with zeros.
    a: Floats,
    /// `[outputs, rank]` in panels.
    b: FloatPanels,
}

impl LowRank {
    pub(super) fn new(pool: &Pool, a: &Tensor<'_>, b: &Tensor<'_>) -> Result<Self, Error> {
        let dims = |t: &Tensor<'_>| match t.info.shape[..] {
            [columns, rows] if columns > 0 && rows > 0 && t.data.len() == t.info.bytes() => {
                Ok((columns as usize, rows as usize))
            }
            _ => Err(bad_tensor(t, "is not a matrix")),
        };
        let ((inputs, rank), (columns, _)) = (dims(a)?, dims(b)?);
        if columns != rank {
            return Err(bad_tensor(b, &format!("does not fit an `a` of rank {rank}")));
        }
        let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let two = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        let tiles = match a.info.ty {
            TensorType::F32 => Floats::F32(tiles(a.data, 4, rank, inputs, four)),
            TensorType::F16 => Floats::F16(tiles(a.data, 2, rank, inputs, two)),
            TensorType::BF16 => Floats::BF16(tiles(a.data, 2, rank, inputs, two)),
            _ => return Err(bad_tensor(a, &format!("is {}, not F32, F16 or BF16", a.info.ty))),
        };
        match (b.info.ty, Matrix::new(pool, b)?) {
            (TensorType::F32 | TensorType::F16 | TensorType::BF16, Matrix::Float(b)) => {
                Ok(Self { rank, inputs, a: tiles, b })
            }
            (ty, _) => Err(bad_tensor(b, &format!("is {ty}, not F32, F16 or BF16"))),
        }
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.b.rows
    }

    fn tiles(&self) -> usize {
        self.rank.div_ceil(TILE)
    }
}

/// Lays out rows of `inputs` numbers of `bytes` bytes in the order of [`LowRank::a`].
fn tiles<T: Plain>(
    data: &[u8],
    bytes: usize,
    rank: usize,
    inputs: usize,
    read: impl Fn(&[u8]) -> T,
) -> Aligned<T> {
    let steps = inputs.div_ceil(LANES);
    let mut out = Aligned::zeroed(rank.div_ceil(TILE) * steps * TILE * LANES);
    for (r, row) in data.chunks_exact(inputs * bytes).enumerate() {
        let first = (r / TILE * steps * TILE + r % TILE) * LANES;
        for (k, number) in row.chunks_exact(bytes).enumerate() {
            out[first + k / LANES * TILE * LANES + k % LANES] = read(number);
        }
    }
    out
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
    lora: &'a Lora<'a, CpuBackend>,
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
    /// Returns the plan for products with these adapters; `None` without adapters.
    pub(super) fn new(products: impl ExactSizeIterator<Item = &'a [Lora<'a, CpuBackend>]>) -> Option<Self> {
        let mut plan = Self { uses: Vec::new(), first: vec![0], pieces: Vec::new(), numbers: 0 };
        for loras in products {
            for lora in loras.iter().filter(|l| !l.rows.is_empty()) {
                let (rows, tiles) = (lora.rows.len(), lora.pair.tiles());
                for row in (0..rows).step_by(PIECE_ROWS) {
                    plan.pieces.extend((0..tiles).step_by(PIECE_TILES).map(|tile| Piece {
                        of: plan.uses.len(),
                        rows: row..rows.min(row + PIECE_ROWS),
                        tiles: tile..tiles.min(tile + PIECE_TILES),
                    }));
                }
                plan.uses.push(Use { lora, at: plan.numbers });
                plan.numbers += rows * lora.pair.rank;
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

    /// Computes the hidden numbers of piece `piece` from the input `x`.
    ///
    /// # Safety
    /// `hidden` has [`Self::numbers`] numbers, and each piece is computed once, while no thread reads them.
    pub(super) unsafe fn piece(&self, isa: Isa, piece: usize, x: &Buffer, hidden: &Parts<f32>) {
        let Piece { of, rows, tiles } = &self.pieces[piece];
        let &Use { lora, at } = &self.uses[*of];
        let rank = lora.pair.rank;
        let inner = Inner { a: &lora.pair.a, x, rows: lora.rows };
        inner.run(isa, tiles.clone(), rows.clone(), |tile, row, sums| {
            let len = TILE.min(rank - tile * TILE);
            // SAFETY: no other piece has this row's ranks.
            let out = unsafe { hidden.part(at + row * rank + tile * TILE, len) };
            let scale = lora.scale * lora.rows[row].scale;
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
            let Lora { pair, .. } = u.lora;
            match pair.b.slice(panel, 0, pair.rank) {
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
