//! Products with AVX-512 and its byte dot products (VNNI).
//!
//! Rows of activations are interleaved in tiles of up to [`TILE_ROWS`](super::TILE_ROWS), so that one pointer
//! leads to the operands of all rows, and rows that lie a power of two apart do not fall into the same few
//! sets of the cache.
//!
//! Kernels read the packed records themselves, again for every tile of rows: with several rows in a tile,
//! unpacking in registers hides behind the multiplications, while unpacking through memory does not
//! (measured: 16 rows are 1.3 times as fast). See [`planes`] for the weights, [`kernels`] for the products.

mod floats;
mod kernels;
mod planes;

use crate::cpu::activations::{Activations, tile_rows};
use crate::cpu::format::{Codes, Float, Format, PANEL, SUPER, Scales};
use crate::cpu::matrix::Packed;
pub(super) use floats::float_products;
use kernels::{Rows, Weights};
use planes::{Book, Float4, I8, Table, U2, U3, U4, U5, U6};

/// Most columns multiplied at a time if there are several tiles of rows: the first-level cache holds their
/// weights and the activations of 8 rows.
const COLUMNS: usize = 1024;

/// Adds the products of panel `panel` with a group of rows, from `start` on, to `acc`, `[rows][16]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn panel(m: &Packed, panel: usize, a: &Activations, start: usize, acc: &mut [[f32; PANEL]]) {
    let format = &m.format;
    assert!(acc.len() <= a.rows && start <= a.rows - acc.len() && a.interleaved);
    assert!(a.columns == m.columns && a.block == format.record_columns());
    let tile = tile_rows(acc.len());
    // All columns at once if the weights serve one tile of rows, else as many as the first-level cache holds.
    let width = if acc.len() <= tile {
        m.columns
    } else {
        m.columns.div_ceil(m.columns.div_ceil(COLUMNS)).next_multiple_of(SUPER)
    };
    for first in (0..m.columns).step_by(width) {
        let records = m.records(panel, first, width.min(m.columns - first));
        let weights = Weights::new(format, records);
        for (i, acc) in acc.chunks_mut(tile).enumerate() {
            let rows = Rows::new(a, start + i * tile, acc.len(), first);
            // SAFETY: `records` are whole records, and `a` has their columns.
            unsafe { pass(format, weights, rows, acc) };
        }
    }
}

/// Runs a kernel compiled for the number of rows of `acc`.
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
            _ => kernels::$kernel::<$planes, 8, $($rest)*>($weights, $rows, $acc),
        }
    };
}

/// # Safety
/// `weights` are whole records of `format`, and `rows` are `acc.len()` rows with the columns of those
/// weights.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn pass(format: &Format, weights: Weights, rows: Rows, acc: &mut [[f32; PANEL]]) {
    use Scales::{Block, Super, Twin};
    // SAFETY: by the caller's promise, with the planes of the format.
    unsafe {
        match (format.codes, format.scales) {
            (Codes::U4, Block { min: false }) => rows!(block, U4, [false], weights, rows, acc),
            (Codes::U4, Block { min: true }) => rows!(block, U4, [true], weights, rows, acc),
            (Codes::U5, Block { min: false }) => rows!(block, U5, [false], weights, rows, acc),
            (Codes::U5, Block { min: true }) => rows!(block, U5, [true], weights, rows, acc),
            (Codes::I8, Block { .. }) => rows!(block, I8, [false], weights, rows, acc),
            (Codes::Table(_), Block { .. }) => rows!(block, Table, [false], weights, rows, acc),
            (Codes::Float4, Block { .. }) => rows!(block, Float4, [false], weights, rows, acc),
            (Codes::U2, Block { .. }) => rows!(block, U2, [false], weights, rows, acc),
            (Codes::Table(_), Twin) => rows!(twin, Table, [], weights, rows, acc),
            (Codes::U2, Super { min: false, .. }) => {
                rows!(super_block, U2, [32, false], weights, rows, acc)
            }
            (Codes::U2, Super { .. }) => rows!(super_block, U2, [16, true], weights, rows, acc),
            (Codes::U3, Super { .. }) => rows!(super_block, U3, [16, false], weights, rows, acc),
            (Codes::U4, Super { .. }) => rows!(super_block, U4, [32, true], weights, rows, acc),
            (Codes::U5, Super { .. }) => rows!(super_block, U5, [32, true], weights, rows, acc),
            (Codes::U6, Super { .. }) => rows!(super_block, U6, [16, false], weights, rows, acc),
            (Codes::Table(_), Super { sub: 16, .. }) => {
                rows!(super_block, Book, [16, false], weights, rows, acc)
            }
            (Codes::Table(_), Super { .. }) if format.float == Float::F32 => {
                rows!(super_block, Book, [32, false], weights, rows, acc)
            }
            (Codes::Table(_), Super { .. }) => rows!(super_block, Table, [32, false], weights, rows, acc),
            _ => unreachable!("{format:?} is no GGUF type's"),
        }
    }
}
