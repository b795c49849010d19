//! Products with AVX-512 and its byte dot products (VNNI).
//!
//! Rows of activations are interleaved in tiles of up to [`TILE_ROWS`](super::TILE_ROWS), so that one pointer leads to the operands of
//! all rows, and rows that lie a power of two apart do not fall into the same few sets of the cache. A tile
//! that has all rows reads weights straight from the packed records; with more tiles, codes are unpacked once
//! for all of them. See [`planes`] for the weights, [`kernels`] for the products.

mod floats;
mod kernels;
mod planes;

use super::tile::Tile;
use crate::cpu::activations::Activations;
use crate::cpu::format::{Codes, Format, PANEL, Scales};
use crate::cpu::matrix::Packed;
pub(super) use floats::float_products;
use kernels::{Rows, Weights};
use planes::{I8, Table, U2, U3, U4, U5, U6, UNPACKED, Unpacked};

/// Columns unpacked at a time when there are several tiles of rows: 8 KiB, a quarter of the first-level cache.
const COLUMNS: usize = 512;

/// Adds the products of panel `panel` with all rows of the activations to `acc`, `[rows][16]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn panel(m: &Packed, panel: usize, a: &Activations, tile: &mut Tile, acc: &mut [[f32; PANEL]]) {
    let format = &m.format;
    assert!(a.rows == acc.len() && a.columns == m.columns && a.block == format.record_columns());
    let record_bytes = format.record_bytes();
    if acc.len() <= a.tile {
        let records = m.records(panel, 0, m.columns);
        let planes = records.as_ptr().wrapping_add(format.header_bytes());
        let count = records.len() / record_bytes;
        let weights =
            Weights { records: records.as_ptr(), record_bytes, count, planes, stride: record_bytes };
        let rows = Rows::new(a, 0, acc.len(), 0);
        // SAFETY: `records` are whole records of all columns, and `a` has as many columns.
        unsafe { packed_pass(format, weights, rows, acc) };
        return;
    }
    tile.codes.reserve(COLUMNS / 32 * UNPACKED);
    let stride = format.record_columns() / 32 * UNPACKED;
    for first in (0..m.columns).step_by(COLUMNS) {
        let records = m.records(panel, first, COLUMNS.min(m.columns - first));
        let count = records.len() / record_bytes;
        planes::unpack(format, records, &mut tile.codes);
        let weights =
            Weights { records: records.as_ptr(), record_bytes, count, planes: tile.codes.as_ptr(), stride };
        for (i, acc) in acc.chunks_mut(a.tile).enumerate() {
            let rows = Rows::new(a, i * a.tile, acc.len(), first);
            // SAFETY: as above, and the tile holds the unpacked planes of `records`.
            unsafe { unpacked_pass(format, weights, rows, acc) };
        }
    }
}

/// Runs a kernel for as many rows as `acc` has.
macro_rules! rows {
    ($kernel:ident, $planes:ty, [$($rest:tt)*], $weights:expr, $rows:expr, $acc:expr) => {
        match $acc.len() {
            1 => kernels::$kernel::<$planes, 1, $($rest)*>($weights, $rows, $acc),
            2 => kernels::$kernel::<$planes, 2, $($rest)*>($weights, $rows, $acc),
            3 => kernels::$kernel::<$planes, 3, $($rest)*>($weights, $rows, $acc),
            4 => kernels::$kernel::<$planes, 4, $($rest)*>($weights, $rows, $acc),
            5 => kernels::$kernel::<$planes, 5, $($rest)*>($weights, $rows, $acc),
            6 => kernels::$kernel::<$planes, 6, $($rest)*>($weights, $rows, $acc),
            7 => kernels::$kernel::<$planes, 7, $($rest)*>($weights, $rows, $acc),
            8 => kernels::$kernel::<$planes, 8, $($rest)*>($weights, $rows, $acc),
            9 => kernels::$kernel::<$planes, 9, $($rest)*>($weights, $rows, $acc),
            10 => kernels::$kernel::<$planes, 10, $($rest)*>($weights, $rows, $acc),
            11 => kernels::$kernel::<$planes, 11, $($rest)*>($weights, $rows, $acc),
            _ => kernels::$kernel::<$planes, 12, $($rest)*>($weights, $rows, $acc),
        }
    };
}

/// # Safety
/// `weights` are whole records of `format`, and `rows` are `acc.len()` rows of as many columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn packed_pass(format: &Format, weights: Weights, rows: Rows, acc: &mut [[f32; PANEL]]) {
    use Scales::{Block, Super};
    // SAFETY: by the caller's promise, with the planes of the format.
    unsafe {
        match (format.codes, format.scales) {
            (Codes::U4, Block { min: false }) => rows!(block, U4, [false], weights, rows, acc),
            (Codes::U4, Block { min: true }) => rows!(block, U4, [true], weights, rows, acc),
            (Codes::U5, Block { min: false }) => rows!(block, U5, [false], weights, rows, acc),
            (Codes::U5, Block { min: true }) => rows!(block, U5, [true], weights, rows, acc),
            (Codes::I8, Block { .. }) => rows!(block, I8, [false], weights, rows, acc),
            (Codes::Table, Block { .. }) => rows!(block, Table, [false], weights, rows, acc),
            (Codes::U2, Super { .. }) => rows!(super_block, U2, [16, true], weights, rows, acc),
            (Codes::U3, Super { .. }) => rows!(super_block, U3, [16, false], weights, rows, acc),
            (Codes::U4, Super { .. }) => rows!(super_block, U4, [32, true], weights, rows, acc),
            (Codes::U5, Super { .. }) => rows!(super_block, U5, [32, true], weights, rows, acc),
            (Codes::U6, Super { .. }) => rows!(super_block, U6, [16, false], weights, rows, acc),
            (Codes::Table, Super { .. }) => rows!(super_block, Table, [32, false], weights, rows, acc),
            _ => unreachable!("{format:?} is no GGUF type's"),
        }
    }
}

/// # Safety
/// As [`packed_pass`], with the codes unpacked.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn unpacked_pass(format: &Format, weights: Weights, rows: Rows, acc: &mut [[f32; PANEL]]) {
    use Scales::{Block, Super};
    // SAFETY: by the caller's promise.
    unsafe {
        match format.scales {
            Block { min: false } => rows!(block, Unpacked, [false], weights, rows, acc),
            Block { min: true } => rows!(block, Unpacked, [true], weights, rows, acc),
            Super { sub: 16, min: false } => rows!(super_block, Unpacked, [16, false], weights, rows, acc),
            Super { sub: 16, min: true } => rows!(super_block, Unpacked, [16, true], weights, rows, acc),
            Super { min: false, .. } => rows!(super_block, Unpacked, [32, false], weights, rows, acc),
            Super { min: true, .. } => rows!(super_block, Unpacked, [32, true], weights, rows, acc),
        }
    }
}
