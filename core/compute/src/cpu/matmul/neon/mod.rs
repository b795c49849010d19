//! Products with NEON, the vector instructions of every 64-bit Arm processor, and with its optional dot
//! products.
//!
//! A tile is unpacked once for all rows of activations: codes become signed bytes with their center
//! subtracted, so that one kind of product serves all types (codes of up to 6 bits stay small enough for
//! signed bytes). [`dot`] multiplies them with or without dot products, [`kernels`] applies scales to the
//! sums.
//!
//! These kernels were checked for their results under an emulator (`ci/test-neon`); their speed on an Arm
//! machine has not been measured yet, so they do not prefetch. The number of rows per pass follows from the
//! compiler's output: the loops over dot products keep everything in registers, 123 instructions with 64
//! `sdot` for 4 rows by half a panel by 32 columns of Q8_0, 67 with 32 for one row by a panel of Q4_K.
//! Without dot products only the kernel for one row of 8-bit codes moves registers to memory, 3 pairs in 200
//! instructions, which is no more than smaller passes would cost.

#[allow(clippy::needless_range_loop, reason = "rows and outputs index several arrays at a time")]
mod dot;
mod floats;
#[allow(clippy::needless_range_loop, reason = "as above")]
mod kernels;
mod unpack;

use super::tile::Tile;
use crate::cpu::Isa;
use crate::cpu::activations::Activations;
use crate::cpu::format::{Format, PANEL};
use dot::{DotProduct, Narrow, Wide};
pub(super) use floats::float_products;
use kernels::Job;
pub(super) use unpack::unpack;

/// Rows of activations that share one pass over a tile, with dot products and without: sums of products that
/// still have to be widened take twice the registers.
const ROWS: usize = 4;
const BASIC_ROWS: usize = 2;

/// Adds the products of a tile with rows of the activations, from `start` on, to `acc`, `[rows][16]`.
///
/// # Safety
/// `isa` is NEON with or without dot products, the processor has it, and `tile` was filled by [`unpack`].
pub(super) unsafe fn products(
    isa: Isa,
    format: &Format,
    tile: &Tile,
    a: &Activations,
    start: usize,
    first: usize,
    acc: &mut [[f32; PANEL]],
) {
    let dotprod = isa == Isa::NeonDot;
    let rows = if dotprod { ROWS } else { BASIC_ROWS };
    for (i, acc) in acc.chunks_mut(rows).enumerate() {
        let job = Job { format, tile, a, row: start + i * rows, first };
        // SAFETY: by the caller's promise.
        unsafe {
            match (dotprod, acc.len()) {
                (true, 1) => with_dotprod::<1, 4>(job, acc),
                (true, 2) => with_dotprod::<2, 4>(job, acc),
                (true, 3) => with_dotprod::<3, 2>(job, acc),
                (true, _) => with_dotprod::<4, 2>(job, acc),
                (false, 1) => basic::<1, 4>(job, acc),
                (false, _) => basic::<2, 2>(job, acc),
            }
        }
    }
}

/// # Safety
/// Same contract as [`Job::run`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn with_dotprod<const M: usize, const Q: usize>(job: Job<'_>, acc: &mut [[f32; PANEL]]) {
    // SAFETY: by the caller's promise.
    unsafe { job.run::<DotProduct, DotProduct, M, Q>(acc) }
}

/// # Safety
/// Same contract as [`Job::run`].
unsafe fn basic<const M: usize, const Q: usize>(job: Job<'_>, acc: &mut [[f32; PANEL]]) {
    // SAFETY: by the caller's promise.
    unsafe { job.run::<Narrow, Wide, M, Q>(acc) }
}
