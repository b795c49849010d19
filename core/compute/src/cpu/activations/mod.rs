//! Activations as the integer kernels read them: signed bytes with a float scale for 32 or 256 columns.
//!
//! `x[k] ≈ d * q[k]`, `d = max|x| / 127` over the block, `q` rounded to nearest, ties to even. Types with a
//! scale for 32 weights get blocks of 32, K-quants blocks of 256 (their integer sub-scales let 256 products
//! add up as integers). These are the precisions that llama.cpp uses (Q8_0, Q8_K), so errors are comparable.
//!
//! For scalar code and AVX2, arrays are stored row by row. For AVX-512 the rows of a *tile* are interleaved
//! by the array's smallest unit (four codes, a scale, a sum, or a pair of sums): the first unit of row 0, of
//! row 1, …, then the second unit of row 0, and so on. A kernel for all rows of a tile then follows one
//! pointer. Rows that are multiplied with the same matrix form a *group*; a tile lies within a group.

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use super::Isa;
use super::aligned::Aligned;
use super::format::{BLOCK, SUPER};
use super::matmul::TILE_ROWS;
use super::pool::Parts;

/// The rows of one matrix product's input, quantized.
#[derive(Default)]
pub(crate) struct Activations {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Columns that share a scale: 32 or 256.
    pub(crate) block: usize,
    /// Set if the rows of a tile are interleaved; otherwise they lie row by row.
    pub(crate) interleaved: bool,
    /// `[rows, columns]`
    pub(crate) codes: Aligned<i8>,
    /// `[rows, columns / block]`
    pub(crate) scales: Aligned<f32>,
    /// Scale times the sum of a block's codes, `[rows, columns / 32]`; blocks of 32 only.
    pub(crate) sums: Aligned<f32>,
    /// Sums of a block's codes, in the two 16-bit lanes in which `vpmaddubsw` leaves its products: columns 0
    /// and 1 of every four, columns 2 and 3. `[rows, columns / 16, 2]` for blocks of 256,
    /// `[rows, columns / 32, 2]` for blocks of 32. Not for AVX-512.
    pub(crate) lane_sums: Aligned<i16>,
    /// Sums of 32 codes, `[rows, columns / 64, 2]`; blocks of 256 only.
    pub(crate) sums32: Aligned<i16>,
    /// Sums of 16 codes, `[rows, columns / 32, 2]`; blocks of 256 only.
    pub(crate) sums16: Aligned<i16>,
    /// Minus the sums of 32 codes, `[rows, columns / 32]`; only for AVX-512.
    pub(crate) negative32: Aligned<i32>,
    /// Minus the sums of 16 codes, `[rows, columns / 16]`; only for AVX-512.
    pub(crate) negative16: Aligned<i32>,
    /// The codes as 16-bit numbers, each four columns in the order 0, 2, 1, 3, `[rows, columns]`, for the
    /// AVX2 kernels of signed codes; empty unless asked for.
    pub(crate) wide: Aligned<i16>,
}

impl Activations {
    /// Columns per pair of `lane_sums`.
    pub(crate) fn lane_columns(&self) -> usize {
        if self.block == SUPER { 16 } else { 32 }
    }

    /// Makes room for `rows × columns` in the layout of `isa`. `columns` must be a multiple of `block`.
    /// `wide` also asks for the 16-bit codes.
    pub(crate) fn prepare(&mut self, isa: Isa, rows: usize, columns: usize, block: usize, wide: bool) {
        debug_assert!(columns.is_multiple_of(block));
        (self.rows, self.columns, self.block) = (rows, columns, block);
        self.interleaved = isa == Isa::Avx512;
        self.codes.reserve(rows * columns);
        self.scales.reserve(rows * columns / block);
        if block == BLOCK {
            self.sums.reserve(rows * columns / BLOCK);
        } else {
            self.sums32.reserve(rows * columns / BLOCK);
            self.sums16.reserve(rows * columns / 16);
        }
        if isa == Isa::Avx512 {
            self.negative32.reserve(rows * columns / BLOCK);
            self.negative16.reserve(rows * columns / 16);
        } else {
            self.lane_sums.reserve(rows * columns / self.lane_columns() * 2);
        }
        if wide {
            self.wide.reserve(rows * columns);
        }
    }

    /// Returns a writer that fills the rows from several threads, with the arguments given to
    /// [`Self::prepare`].
    pub(crate) fn fill(&mut self, isa: Isa, wide: bool) -> Fill {
        Fill {
            isa,
            rows: self.rows,
            columns: self.columns,
            block: self.block,
            interleaved: self.interleaved,
            wide: wide.then(|| Parts::new(&mut self.wide)),
            codes: Parts::new(&mut self.codes),
            scales: Parts::new(&mut self.scales),
            sums: Parts::new(&mut self.sums),
            lane_sums: Parts::new(&mut self.lane_sums),
            sums32: Parts::new(&mut self.sums32),
            sums16: Parts::new(&mut self.sums16),
            negative32: Parts::new(&mut self.negative32),
            negative16: Parts::new(&mut self.negative16),
        }
    }
}

/// Fills the rows of [`Activations`] from several threads.
pub(crate) struct Fill {
    isa: Isa,
    rows: usize,
    columns: usize,
    block: usize,
    interleaved: bool,
    codes: Parts<i8>,
    scales: Parts<f32>,
    sums: Parts<f32>,
    lane_sums: Parts<i16>,
    sums32: Parts<i16>,
    sums16: Parts<i16>,
    negative32: Parts<i32>,
    negative16: Parts<i32>,
    wide: Option<Parts<i16>>,
}

/// The rows of a tile in a group of `rows` rows: as few tiles as possible, all of about the same size. The
/// last tile may have fewer.
pub(crate) fn tile_rows(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(TILE_ROWS).max(1))
}

/// The tiles of a group of `rows` rows.
pub(crate) fn tiles(rows: usize) -> usize {
    rows.div_ceil(tile_rows(rows).max(1))
}

/// Locates the numbers of one row: unit `i` of an array is at `start / every + i * stride`, in units.
#[derive(Clone, Copy)]
struct Place {
    /// Columns before the row's tile, in all rows.
    start: usize,
    /// The row's number in its tile.
    row: usize,
    /// Rows of its tile.
    stride: usize,
}

impl Place {
    /// Index of unit `i` in an array with one unit per `every` columns.
    #[inline(always)]
    fn at(self, every: usize, i: usize) -> usize {
        self.start / every + i * self.stride + self.row
    }
}

/// Writes one unit of an array.
///
/// # Safety
/// No other thread reads or writes the unit meanwhile.
#[inline(always)]
unsafe fn put<T: Copy, const N: usize>(parts: &Parts<T>, unit: usize, value: [T; N]) {
    // SAFETY: by the caller's promise.
    unsafe { parts.part(unit * N, N) }.copy_from_slice(&value);
}

impl Fill {
    fn place(&self, group: &Range<usize>, row: usize) -> Place {
        assert!(group.contains(&row) && group.end <= self.rows);
        let tile = if self.interleaved { tile_rows(group.len()) } else { 1 };
        let first = group.start + (row - group.start) / tile * tile;
        Place { start: first * self.columns, row: row - first, stride: tile.min(group.end - first) }
    }

    /// Quantizes the rows of tile number `tile` of the rows `group`, each from `x(row)`, `[columns]`.
    ///
    /// # Safety
    /// The `Activations` are alive, no thread reads them, and no two threads fill the same tile.
    pub(crate) unsafe fn tile<'a>(&self, group: &Range<usize>, tile: usize, x: impl Fn(usize) -> &'a [f32]) {
        let size = tile_rows(group.len());
        let first = group.start + tile * size;
        let rows = first..group.end.min(first + size);
        // SAFETY: the caller's promise, and an `Isa` other than `Scalar` exists only where the processor has
        // it.
        unsafe {
            match self.isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => rows.for_each(|row| self.row_avx2(self.place(group, row), x(row))),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => {
                    let mut all = [&[][..]; TILE_ROWS];
                    all.iter_mut().zip(rows.clone()).for_each(|(to, row)| *to = x(row));
                    avx512::tile(self, self.place(group, first), &all[..rows.len()]);
                }
                _ => rows.for_each(|row| self.row_body(self.place(group, row), x(row))),
            }
        }
    }

    /// The same code as [`Self::row_body`], compiled for AVX2: `round_ties_even` and the sums become vector
    /// instructions.
    ///
    /// # Safety
    /// Same contract as [`Self::tile`], for a row.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn row_avx2(&self, row: Place, x: &[f32]) {
        // SAFETY: by the caller's promise.
        unsafe { self.row_body(row, x) }
    }

    /// The portable code, for rows that are not interleaved.
    ///
    /// # Safety
    /// Same contract as [`Self::tile`], for a row.
    #[inline(always)]
    unsafe fn row_body(&self, place: Place, x: &[f32]) {
        let mut codes = [0; SUPER];
        for (b, x) in x.chunks_exact(self.block).enumerate() {
            let codes = &mut codes[..self.block];
            let d = quantize(x, codes);
            // SAFETY: every unit of a row belongs to that row, which is this thread's alone.
            unsafe {
                self.codes.part(place.start + b * self.block, self.block).copy_from_slice(codes);
                put(&self.scales, place.at(self.block, b), [d]);
                self.sums_of(place, b, d, codes);
                if let Some(wide) = &self.wide {
                    let wide = wide.part(place.start + b * self.block, self.block);
                    for (wide, c) in wide.chunks_exact_mut(4).zip(codes.chunks_exact(4)) {
                        wide.copy_from_slice(&[c[0] as i16, c[2] as i16, c[1] as i16, c[3] as i16]);
                    }
                }
            }
        }
    }

    /// Writes the sums of block `b`'s codes.
    ///
    /// # Safety
    /// Same contract as [`Self::tile`], for a row.
    #[inline(always)]
    unsafe fn sums_of(&self, place: Place, b: usize, d: f32, codes: &[i8]) {
        let mut pairs = [[0i16; 2]; SUPER / 16];
        let pairs = &mut pairs[..self.block / 16];
        for (pair, codes) in pairs.iter_mut().zip(codes.chunks_exact(16)) {
            for c in codes.chunks_exact(4) {
                pair[0] += c[0] as i16 + c[1] as i16;
                pair[1] += c[2] as i16 + c[3] as i16;
            }
        }
        // SAFETY: by the caller's promise.
        unsafe {
            if self.block == BLOCK {
                let both = [pairs[0][0] + pairs[1][0], pairs[0][1] + pairs[1][1]];
                let sum = both[0] + both[1];
                put(&self.sums, place.at(BLOCK, b), [d * sum as f32]);
                put(&self.lane_sums, place.at(BLOCK, b), both);
                return;
            }
            for (i, four) in pairs.chunks_exact(4).enumerate() {
                let sums: [i16; 4] = std::array::from_fn(|j| four[j][0] + four[j][1]);
                let (low, high) = (sums[0] + sums[1], sums[2] + sums[3]);
                let i = b * (SUPER / 64) + i;
                put(&self.sums16, place.at(32, 2 * i), [sums[0], sums[1]]);
                put(&self.sums16, place.at(32, 2 * i + 1), [sums[2], sums[3]]);
                put(&self.sums32, place.at(64, i), [low, high]);
                for (j, &pair) in four.iter().enumerate() {
                    put(&self.lane_sums, place.at(16, 4 * i + j), pair);
                }
            }
        }
    }
}

/// The factor from numbers to codes in a block whose largest magnitude is `max`. Numbers so small that it
/// would be infinite become 0.
#[inline(always)]
fn inverse(max: f32) -> f32 {
    if max > 1e-36 { 127.0 / max } else { 0.0 }
}

/// Quantizes a block and returns its scale.
#[inline(always)]
fn quantize(x: &[f32], codes: &mut [i8]) -> f32 {
    let mut lanes = [0f32; 16];
    for x in x.chunks_exact(16) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            let x = x.abs();
            *lane = if x > *lane { x } else { *lane };
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = if lanes[i + half] > lanes[i] { lanes[i + half] } else { lanes[i] };
        }
    }
    let max = lanes[0];
    let inverse = inverse(max);
    for (code, x) in codes.iter_mut().zip(x) {
        let x = x * inverse;
        let x = if x.is_nan() { 0.0 } else { x };
        // The value is within ±127 by construction. Adding 1.5 · 2²³ rounds it to a whole number, ties to
        // even, in the lowest bits. A conversion to an integer would not become vector instructions, because
        // it saturates.
        *code = (x + 12_582_912.0).to_bits() as i8;
    }
    max / 127.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_too_small_for_codes_are_zero() {
        for (isa, block) in Isa::available().into_iter().flat_map(|isa| [(isa, BLOCK), (isa, SUPER)]) {
            let mut a = Activations::default();
            a.prepare(isa, 1, SUPER, block, false);
            // SAFETY: one thread, one tile.
            unsafe { a.fill(isa, false).tile(&(0..1), 0, |_| &[-3e-38; SUPER]) };
            assert!(a.codes.iter().all(|&code| code == 0) && a.sums.iter().all(|&sum| sum == 0.0), "{isa}");
            assert!(a.negative32.iter().all(|&sum| sum == 0), "{isa}");
        }
    }

    #[test]
    fn codes_and_sums_describe_the_rows() {
        let (rows, columns) = (15, 512);
        let x: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0).collect();
        for (block, isa) in
            [BLOCK, SUPER].into_iter().flat_map(|b| Isa::available().into_iter().map(move |i| (b, i)))
        {
            let wide = isa == Isa::Avx2;
            let mut a = Activations::default();
            a.prepare(isa, rows, columns, block, wide);
            let fill = a.fill(isa, wide);
            for tile in 0..tiles(rows) {
                // SAFETY: one thread, each tile once.
                unsafe { fill.tile(&(0..rows), tile, |row| &x[row * columns..][..columns]) };
            }
            for (row, x) in x.chunks_exact(columns).enumerate() {
                let place = fill.place(&(0..rows), row);
                let code = |k: usize| a.codes[place.at(4, k / 4) * 4 + k % 4] as i32;
                let sum = |first: usize, len: usize| (first..first + len).map(code).sum::<i32>();
                for (k, &x) in x.iter().enumerate() {
                    let d = a.scales[place.at(block, k / block)];
                    assert!((d * code(k) as f32 - x).abs() <= 0.5001 * d, "{isa:?} {row} {k}");
                    if wide {
                        let at = row * columns + k / 4 * 4 + [0, 2, 1, 3][k % 4];
                        assert_eq!(a.wide[at] as i32, code(k));
                    }
                }
                for i in 0..columns / 16 {
                    if block == SUPER {
                        assert_eq!(a.sums16[place.at(32, i / 2) * 2 + i % 2] as i32, sum(16 * i, 16));
                    }
                    if isa == Isa::Avx512 {
                        assert_eq!(a.negative16[place.at(16, i)], -sum(16 * i, 16));
                    }
                }
                for i in 0..columns / 32 {
                    let (all, d) = (sum(32 * i, 32), a.scales[place.at(block, 32 * i / block)]);
                    if block == SUPER {
                        assert_eq!(a.sums32[place.at(64, i / 2) * 2 + i % 2] as i32, all);
                    } else {
                        assert_eq!(a.sums[place.at(32, i)], d * all as f32);
                    }
                    if isa == Isa::Avx512 {
                        assert_eq!(a.negative32[place.at(32, i)], -all);
                    }
                }
                let lane = a.lane_columns();
                if isa != Isa::Avx512 {
                    for i in 0..columns / lane {
                        let at = (row * (columns / lane) + i) * 2;
                        assert_eq!((a.lane_sums[at] + a.lane_sums[at + 1]) as i32, sum(i * lane, lane));
                    }
                }
            }
        }
    }
}
