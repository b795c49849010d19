//! Matrix products: several matrices, one input, any number of rows.
//!
//! The input is quantized once; then the threads share out the panels (16 outputs) of all matrices. For each
//! panel a thread unpacks some columns into its tile and multiplies them with every row of activations.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod results;
mod scalar;
mod tile;

use std::sync::Mutex;

use super::activations::{Activations, Fill, tiles};
use super::aligned::Aligned;
use super::format::{BLOCK, PANEL, SUPER};
use super::lora::{Change, Plan};
use super::matrix::{FloatPanels, Matrix, Packed};
use super::pool::{Parts, Pool, Share};
use super::{Buffer, CpuBackend, Isa};
use crate::Lora;
use results::{Columns, finish};
use tile::Tile;

/// An input of fewer numbers than this is quantized on the calling thread: waking the others costs more.
const ALONE: usize = 8192;
/// Most rows of activations that are interleaved for one pass of the AVX-512 kernels. 12 rows would still fit
/// the registers with simple scales, but kernels with two levels of scales would spill, and the others gain
/// nothing.
pub(crate) const TILE_ROWS: usize = 8;
/// Columns of a float panel that are multiplied at a time: they stay in the first-level cache for all rows.
const FLOAT_COLUMNS: usize = 256;

/// Work memory of matrix products, kept from call to call.
pub(crate) struct Workspace {
    small: Activations,
    large: Activations,
    /// The products of the adapters' first matrices with the input.
    hidden: Aligned<f32>,
    threads: Vec<Mutex<ThreadSpace>>,
}

#[derive(Default)]
struct ThreadSpace {
    unpacked: Unpacked,
    acc: Vec<[f32; PANEL]>,
}

/// Weights that a thread has unpacked, for processors that unpack them through memory.
#[derive(Default)]
pub(crate) struct Unpacked {
    tile: Tile,
    floats: Vec<f32>,
}

impl Workspace {
    pub(crate) fn new(threads: usize) -> Self {
        let threads = (0..threads).map(|_| Mutex::default()).collect();
        let (small, large) = (Activations::default(), Activations::default());
        Self { small, large, hidden: Aligned::default(), threads }
    }
}

/// One product: `out = x · weightᵀ + bias`, or `out += …`. `out` is `[rows, matrix rows]`.
pub(crate) struct Product<'a> {
    pub(crate) matrix: &'a Matrix,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) out: &'a mut [f32],
    pub(crate) accumulate: bool,
    pub(crate) lora: &'a [Lora<'a, CpuBackend>],
}

/// The rows of a product's input, a group of the activations.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The input in blocks of 32 columns.
    pub(crate) small: &'a Activations,
    /// The input in blocks of 256 columns.
    pub(crate) large: &'a Activations,
    /// The group's first row in either.
    pub(crate) first: usize,
    /// The input from the group's first row on.
    pub(crate) floats: &'a [f32],
    /// Numbers from one of its rows to the next.
    pub(crate) stride: usize,
}

/// Adds the products of panel `panel` with the rows of a group to `acc`, `[rows][16]`.
pub(crate) fn add_panel(
    isa: Isa,
    matrix: &Matrix,
    panel: usize,
    rows: Rows<'_>,
    space: &mut Unpacked,
    acc: &mut [[f32; PANEL]],
) {
    match matrix {
        Matrix::Packed(m) => {
            let a = if m.format.record_columns() == SUPER { rows.large } else { rows.small };
            packed_panel(isa, m, panel, a, rows.first, &mut space.tile, acc);
        }
        Matrix::Float(m) => float_panel(isa, m, panel, rows.floats, rows.stride, &mut space.floats, acc),
    }
}

/// Returns whether a product with the matrix needs the 16-bit codes of its input.
pub(crate) fn wide(isa: Isa, matrix: &Packed) -> bool {
    isa == Isa::Avx2 && matrix.format.codes.signed()
}

/// Runs `products` on the input `x`, whose columns every matrix has.
pub(crate) fn run(pool: &Pool, isa: Isa, space: &mut Workspace, x: &Buffer, products: &mut [Product<'_>]) {
    let rows = x.rows();
    if rows == 0 {
        return;
    }
    let plan = Plan::new(products.iter().map(|p| p.lora.iter().map(Change::of)));
    prepare(pool, isa, space, x, products, plan.as_ref());
    let mut first_panel = Vec::with_capacity(products.len() + 1);
    let mut panels = 0;
    for product in &*products {
        first_panel.push(panels);
        panels += product.matrix.rows().div_ceil(PANEL);
    }
    let outs: Vec<Parts<f32>> = products.iter_mut().map(|p| Parts::new(p.out)).collect();
    let products = &*products;
    // Several pieces per thread, so that threads finish at about the same time.
    let share = Share::new(panels, (panels / (pool.threads() * 6)).clamp(1, 64));
    let (hidden, threads) = (&*space.hidden, &space.threads);
    let (floats, stride) = (x.data(), x.columns());
    let input = Rows { small: &space.small, large: &space.large, first: 0, floats, stride };
    pool.run(&|thread| {
        let mut space = threads[thread].lock().unwrap_or_else(|e| e.into_inner());
        while let Some(piece) = share.next() {
            for panel in piece {
                let job = first_panel.partition_point(|&first| first <= panel) - 1;
                let (product, panel) = (&products[job], panel - first_panel[job]);
                let space = &mut *space;
                if let Some(plan) = &plan {
                    plan.fetch(job, panel);
                }
                // SAFETY: a panel's columns of `out` are this thread's alone.
                let mut out = unsafe { Columns::new(&outs[job], product.matrix.rows(), panel) };
                space.acc.clear();
                space.acc.resize(rows, [0.0; PANEL]);
                add_panel(isa, product.matrix, panel, input, &mut space.unpacked, &mut space.acc);
                if let Some(plan) = &plan {
                    plan.add(isa, job, panel, hidden, &mut space.acc);
                }
                finish(isa, &space.acc, product.bias, product.accumulate, &mut out);
            }
        }
    });
}

/// Prepares the input for the products: quantizes it into the forms that the matrices need, and multiplies it
/// with the adapters' first matrices.
fn prepare(
    pool: &Pool,
    isa: Isa,
    space: &mut Workspace,
    x: &Buffer,
    products: &[Product<'_>],
    plan: Option<&Plan<'_>>,
) {
    let packed = || products.iter().filter_map(|p| p.matrix.packed());
    let mut fills = Vec::with_capacity(2);
    for (block, a) in [(BLOCK, &mut space.small), (SUPER, &mut space.large)] {
        let mut packed = packed().filter(|m| m.format.record_columns() == block).peekable();
        if packed.peek().is_none() {
            continue;
        }
        let wide = packed.any(|m| wide(isa, m));
        a.prepare(isa, x.rows(), x.columns(), block, wide);
        fills.push(a.fill(isa, wide));
    }
    space.hidden.reserve(plan.map_or(0, Plan::numbers));
    let hidden = Parts::new(&mut space.hidden);
    let alone = plan.is_none() && fills.len() * x.rows() * x.columns() < ALONE;
    let tiles = tiles(x.rows());
    let piece = if alone { tiles } else { 1 };
    let fills: Vec<(Fill, Share)> = fills.into_iter().map(|f| (f, Share::new(tiles, piece))).collect();
    let pieces = plan.map(|plan| (plan, plan.share()));
    let work = |_| {
        if let Some((plan, share)) = &pieces {
            while let Some(pieces) = share.next() {
                for piece in pieces {
                    // SAFETY: each piece is handed out once, and there is room for all.
                    unsafe { plan.piece(isa, piece, (x.data(), x.columns()), &hidden) };
                }
            }
        }
        for (fill, share) in &fills {
            while let Some(tiles) = share.next() {
                for tile in tiles {
                    // SAFETY: each tile is handed out once.
                    unsafe { fill.tile(&(0..x.rows()), tile, |row| x.row(row)) };
                }
            }
        }
    };
    if alone { work(0) } else { pool.run(&work) }
}

fn packed_panel(
    isa: Isa,
    m: &Packed,
    panel: usize,
    a: &Activations,
    first_row: usize,
    tile: &mut Tile,
    acc: &mut [[f32; PANEL]],
) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY: this instruction set was detected.
        return unsafe { avx512::panel(m, panel, a, first_row, acc) };
    }
    let format = &m.format;
    let width = Tile::width(acc.len(), m.columns);
    tile.prepare(format, width);
    let mut first = 0;
    while first < m.columns {
        let columns = width.min(m.columns - first);
        let records = m.records(panel, first, columns);
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this instruction set was detected.
            Isa::Avx2 => unsafe {
                avx2::unpack(tile, format, records);
                avx2::products(format, tile, a, first_row, first, acc);
            },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => {
                neon::unpack(tile, format, records);
                // SAFETY: this instruction set was detected, and the tile was just unpacked for it.
                unsafe { neon::products(isa, format, tile, a, first_row, first, acc) };
            }
            _ => {
                tile.unpack_scalar(format, records);
                for (row, acc) in acc.iter_mut().enumerate() {
                    scalar::product(format, tile, a, first_row + row, first, acc);
                }
            }
        }
        first += columns;
    }
}

fn float_panel(
    isa: Isa,
    m: &FloatPanels,
    panel: usize,
    x: &[f32],
    stride: usize,
    w: &mut Vec<f32>,
    acc: &mut [[f32; PANEL]],
) {
    for first in (0..m.columns).step_by(FLOAT_COLUMNS) {
        let columns = FLOAT_COLUMNS.min(m.columns - first);
        let weights = m.slice(panel, first, columns);
        let x = &x[first..];
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this instruction set was detected.
            Isa::Avx2 => unsafe { avx2::float_products(weights, x, stride, acc) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this instruction set was detected.
            Isa::Avx512 => unsafe { avx512::float_products(weights, x, stride, acc) },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => {
                weights.widen(w);
                neon::float_products(w, x, stride, acc);
            }
            _ => {
                weights.widen(w);
                for (row, acc) in acc.iter_mut().enumerate() {
                    for (w, &x) in w.chunks_exact(PANEL).zip(&x[row * stride..]) {
                        for (acc, &w) in acc.iter_mut().zip(w) {
                            *acc = w.mul_add(x, *acc);
                        }
                    }
                }
            }
        }
    }
}
