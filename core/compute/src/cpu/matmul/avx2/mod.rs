//! Integer products with AVX2.
//!
//! Unsigned codes of up to 6 bits: `vpmaddubsw` multiplies 32 weights with 32 activation bytes and adds pairs
//! into 16-bit lanes. Several such results are added in 16 bits before `vpmaddwd` widens them, so that a
//! product costs little more than one multiply and one add for 32 weights (widening each one would double
//! that). The result never overflows: 8 × 2 products of a 4-bit code and a signed byte are at most 30,480;
//! for codes with a center the lanes start at minus the center times the activations' sums, wrap around in
//! between, and end at the true sum of centered products, at most 8 × 2 × 16 × 127 = 32,512.
//!
//! Signed 8-bit codes are widened to 16 bits when the tile is unpacked and multiplied with `vpmaddwd`, which
//! is exact and no slower than splitting signs off for `vpmaddubsw`.
//!
//! [`unpack`] fills the tile, [`kernels`] multiplies it.

mod floats;
mod kernels;
mod unpack;

use super::tile::Tile;
use crate::cpu::activations::Activations;
use crate::cpu::format::{Format, GROUP, PANEL};
pub(super) use floats::float_products;
use kernels::product;
pub(super) use unpack::unpack;

/// Rows of activations that share one pass over a tile.
const ROWS: usize = 4;

/// Bytes of unpacked signed codes for 32 columns.
const WIDE_BLOCK: usize = 8 * 2 * GROUP;
/// Bytes of unpacked unsigned codes for 32 columns.
const NARROW_BLOCK: usize = 8 * GROUP;

/// Adds the products of a tile with rows of the activations, from `start` on, to `acc`, `[rows][16]`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn products(
    format: &Format,
    tile: &Tile,
    a: &Activations,
    start: usize,
    first: usize,
    acc: &mut [[f32; PANEL]],
) {
    for (i, acc) in acc.chunks_mut(ROWS).enumerate() {
        let row = start + i * ROWS;
        match acc.len() {
            4 => product::<4>(format, tile, a, row, first, acc),
            3 => product::<3>(format, tile, a, row, first, acc),
            2 => product::<2>(format, tile, a, row, first, acc),
            _ => product::<1>(format, tile, a, row, first, acc),
        }
    }
}
