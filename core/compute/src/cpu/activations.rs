//! Activations as the integer kernels read them: signed bytes with a float scale for 32 or 256 columns.
//!
//! `x[k] ≈ d * q[k]`, `d = max|x| / 127` over the block, `q` rounded to nearest, ties to even. Types with a scale
//! for 32 weights get blocks of 32, K-quants blocks of 256 (their integer sub-scales let 256 products add up as
//! integers). These are the precisions that llama.cpp uses (Q8_0, Q8_K), so errors are comparable.

use super::Isa;
use super::aligned::Aligned;
use super::format::{BLOCK, SUPER};
use super::pool::Parts;

/// The rows of one matrix product's input, quantized.
#[derive(Default)]
pub(crate) struct Activations {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Columns that share a scale: 32 or 256.
    pub(crate) block: usize,
    /// `[rows, columns]`
    pub(crate) codes: Aligned<i8>,
    /// `[rows, columns / block]`
    pub(crate) scales: Aligned<f32>,
    /// Scale times the sum of a block's codes, `[rows, columns / 32]`; blocks of 32 only.
    pub(crate) sums: Aligned<f32>,
    /// Sums of a block's codes, in the two 16-bit lanes in which `vpmaddubsw` leaves its products: columns
    /// 0 and 1 of every four, columns 2 and 3. `[rows, columns / 16, 2]` for blocks of 256, `[rows, columns / 32, 2]`
    /// for blocks of 32.
    pub(crate) lane_sums: Aligned<i16>,
    /// Sums of 32 codes, `[rows, columns / 32]`; blocks of 256 only.
    pub(crate) sums32: Aligned<i16>,
    /// Sums of 16 codes, `[rows, columns / 16]`; blocks of 256 only.
    pub(crate) sums16: Aligned<i16>,
    /// The codes as 16-bit numbers, each four columns in the order 0, 2, 1, 3, `[rows, columns]`, for the
    /// AVX2 kernels of signed codes; empty unless asked for.
    pub(crate) wide: Aligned<i16>,
}

impl Activations {
    /// Columns whose codes one pair of `lane_sums` adds up.
    pub(crate) fn lane_columns(&self) -> usize {
        if self.block == SUPER { 16 } else { 32 }
    }

    /// Makes room for `rows × columns`. `columns` must be a multiple of `block`.
    pub(crate) fn prepare(&mut self, rows: usize, columns: usize, block: usize, wide: bool) {
        debug_assert!(columns.is_multiple_of(block));
        (self.rows, self.columns, self.block) = (rows, columns, block);
        self.codes.reserve(rows * columns);
        self.scales.reserve(rows * columns / block);
        self.lane_sums.reserve(rows * columns / self.lane_columns() * 2);
        if block == BLOCK {
            self.sums.reserve(rows * columns / BLOCK);
        } else {
            self.sums32.reserve(rows * columns / BLOCK);
            self.sums16.reserve(rows * columns / 16);
        }
        if wide {
            self.wide.reserve(rows * columns);
        }
    }

    /// For filling the rows from several threads. `wide` asks for the 16-bit codes too.
    pub(crate) fn fill(&mut self, isa: Isa, wide: bool) -> Fill {
        Fill {
            isa,
            columns: self.columns,
            block: self.block,
            wide: wide.then(|| Parts::new(&mut self.wide)),
            codes: Parts::new(&mut self.codes),
            scales: Parts::new(&mut self.scales),
            sums: Parts::new(&mut self.sums),
            lane_sums: Parts::new(&mut self.lane_sums),
            sums32: Parts::new(&mut self.sums32),
            sums16: Parts::new(&mut self.sums16),
        }
    }
}

/// Fills the rows of [`Activations`].
pub(crate) struct Fill {
    isa: Isa,
    columns: usize,
    block: usize,
    codes: Parts<i8>,
    scales: Parts<f32>,
    sums: Parts<f32>,
    lane_sums: Parts<i16>,
    sums32: Parts<i16>,
    sums16: Parts<i16>,
    wide: Option<Parts<i16>>,
}

impl Fill {
    /// Quantizes row `row` from `x`, `[columns]`.
    ///
    /// # Safety
    /// The `Activations` live, nobody reads them, and no two threads fill the same row.
    pub(crate) unsafe fn row(&self, row: usize, x: &[f32]) {
        let (columns, block) = (self.columns, self.block);
        let at = |every: usize| (row * columns / every, columns / every);
        let small = block == BLOCK;
        // SAFETY: rows are disjoint, and the caller promises the rest.
        let out = unsafe {
            let part16 = |parts: &Parts<i16>, (start, len): (usize, usize)| parts.part(start, len);
            let (start, len) = at(if small { 32 } else { 16 });
            Row {
                codes: self.codes.part(row * columns, columns),
                scales: self.scales.part(at(block).0, at(block).1),
                sums: if small { self.sums.part(at(BLOCK).0, at(BLOCK).1) } else { &mut [] },
                lane_sums: self.lane_sums.part(2 * start, 2 * len),
                sums32: if small { &mut [] } else { part16(&self.sums32, at(32)) },
                sums16: if small { &mut [] } else { part16(&self.sums16, at(16)) },
                wide: self.wide.as_ref().map_or(&mut [], |wide| part16(wide, at(1))),
            }
        };
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` other than `Scalar` exists only where the processor has it.
            Isa::Avx2 | Isa::Avx512 => unsafe { fill_avx2(out, x, block) },
            _ => fill_row(out, x, block),
        }
    }
}

struct Row<'a> {
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    lane_sums: &'a mut [i16],
    sums32: &'a mut [i16],
    sums16: &'a mut [i16],
    wide: &'a mut [i16],
}

/// The same code as [`fill_row`], compiled for AVX2: `round_ties_even` and the sums become vector instructions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fill_avx2(out: Row<'_>, x: &[f32], block: usize) {
    fill_row(out, x, block);
}

#[inline(always)]
fn fill_row(out: Row<'_>, x: &[f32], block: usize) {
    for (b, x) in x.chunks_exact(block).enumerate() {
        let mut lanes = [0f32; 16];
        for x in x.chunks_exact(16) {
            for (lane, x) in lanes.iter_mut().zip(x) {
                let x = x.abs();
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let max = lanes.iter().fold(0f32, |a, &b| if b > a { b } else { a });
        let d = max / 127.0;
        let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
        out.scales[b] = d;
        let codes = &mut out.codes[b * block..][..block];
        for (code, x) in codes.iter_mut().zip(x) {
            // Within ±127 by construction; a NaN becomes 0.
            *code = (x * inverse).round_ties_even() as i32 as i8;
        }
        let mut pairs = [[0i16; 2]; SUPER / 16];
        let pairs = &mut pairs[..block / 16];
        for (pair, codes) in pairs.iter_mut().zip(codes.chunks_exact(16)) {
            for c in codes.chunks_exact(4) {
                pair[0] += c[0] as i16 + c[1] as i16;
                pair[1] += c[2] as i16 + c[3] as i16;
            }
        }
        if block == BLOCK {
            let both = [pairs[0][0] + pairs[1][0], pairs[0][1] + pairs[1][1]];
            out.lane_sums[2 * b..][..2].copy_from_slice(&both);
            out.sums[b] = d * (both[0] + both[1]) as f32;
        } else {
            for (i, pair) in pairs.iter().enumerate() {
                let i = b * block / 16 + i;
                out.lane_sums[2 * i..][..2].copy_from_slice(pair);
                out.sums16[i] = pair[0] + pair[1];
            }
            for (i, two) in pairs.chunks_exact(2).enumerate() {
                out.sums32[b * block / 32 + i] = two[0][0] + two[0][1] + two[1][0] + two[1][1];
            }
        }
        if !out.wide.is_empty() {
            for (wide, c) in out.wide[b * block..][..block].chunks_exact_mut(4).zip(codes.chunks_exact(4)) {
                wide.copy_from_slice(&[c[0] as i16, c[2] as i16, c[1] as i16, c[3] as i16]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_sums_describe_the_row() {
        let columns = 512;
        let x: Vec<f32> = (0..columns).map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0).collect();
        for block in [BLOCK, SUPER] {
            for isa in Isa::available() {
                let mut a = Activations::default();
                a.prepare(1, columns, block, true);
                // SAFETY: one thread, one row.
                unsafe { a.fill(isa, true).row(0, &x) };
                for (k, &x) in x.iter().enumerate() {
                    let d = a.scales[k / block];
                    assert!((d * a.codes[k] as f32 - x).abs() <= 0.5001 * d, "{isa:?} {k}");
                    assert_eq!(a.wide[k / 4 * 4 + [0, 2, 1, 3][k % 4]], a.codes[k] as i16);
                }
                let lane = a.lane_columns();
                for (i, codes) in a.codes[..columns].chunks(lane).enumerate() {
                    let sum: i16 = codes.iter().map(|&c| c as i16).sum();
                    assert_eq!(a.lane_sums[2 * i] + a.lane_sums[2 * i + 1], sum);
                }
            }
        }
    }
}
