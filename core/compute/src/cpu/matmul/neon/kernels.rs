//! The inner loops: a tile against several rows of activations.
//!
//! M rows and Q quarters of a panel (4 outputs each) are summed up at a time. The number of registers limits
//! both: 4 rows by half a panel take 8 registers of integer sums, 8 of totals or floats, 4 of activations and
//! one of weights. A single row takes the whole panel, so that 4 independent sums hide the latency of the
//! instructions.

use std::arch::aarch64::*;

use super::dot::{Dot, Sums};
use crate::cpu::activations::Activations;
use crate::cpu::format::{BLOCK, Codes, Format, GROUP, PANEL, SUPER, Scales};
use crate::cpu::matmul::tile::Tile;

/// Quarters of a panel: 4 outputs, a register.
const QUARTERS: usize = 4;

/// A tile, whose first column is `first`, and rows of activations from `row` on.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) format: &'a Format,
    pub(super) tile: &'a Tile,
    pub(super) a: &'a Activations,
    pub(super) row: usize,
    pub(super) first: usize,
}

/// Points to columns `0, 1, …` of a row's quarter of 4 outputs in `acc`, which has M rows.
///
/// # Safety
/// `m < acc.len()`, `quarter < QUARTERS`.
#[inline(always)]
unsafe fn outputs(acc: &mut [[f32; PANEL]], m: usize, quarter: usize) -> *mut f32 {
    // SAFETY: by the caller's promise.
    unsafe { acc.as_mut_ptr().add(m).cast::<f32>().add(4 * quarter) }
}

impl Job<'_> {
    /// Adds the products to `acc`, with `Small` for codes of up to 6 bits and `Byte` for codes of 8 bits.
    ///
    /// # Safety
    /// The processor has the instructions of `Small` and `Byte`. `tile` was unpacked for NEON, `acc` are M
    /// rows.
    // `inline(always)`, here and below, so that the function is compiled with the features of its final
    // caller.
    #[inline(always)]
    pub(super) unsafe fn run<Small: Dot, Byte: Dot, const M: usize, const Q: usize>(
        self,
        acc: &mut [[f32; PANEL]],
    ) {
        let Job { format, tile, a, row, first } = self;
        assert!(acc.len() == M && row + M <= a.rows && first + tile.columns <= a.columns && !a.interleaved);
        assert!(tile.columns.is_multiple_of(format.record_columns()) && a.block == format.record_columns());
        // SAFETY: the kernels read `tile.columns` columns of the tile and of M rows of the activations; both
        // were prepared for that many columns, and the assertions above check rows and columns.
        unsafe {
            match (format.codes, format.scales) {
                (Codes::I8 | Codes::Table(_), Scales::Block { .. }) => self.block::<Byte, M, Q, false>(acc),
                (Codes::Table(_), Scales::Super { sub: 16, .. }) => {
                    self.super_block::<Byte, M, Q, 4, false>(acc)
                }
                (Codes::I8 | Codes::Table(_), Scales::Super { .. }) => {
                    self.super_block::<Byte, M, Q, 8, false>(acc);
                }
                (_, Scales::Block { min: false }) => self.block::<Small, M, Q, false>(acc),
                (_, Scales::Block { min: true }) => self.block::<Small, M, Q, true>(acc),
                (_, Scales::Super { sub: 16, min: false }) => self.super_block::<Small, M, Q, 4, false>(acc),
                (_, Scales::Super { sub: 16, min: true }) => self.super_block::<Small, M, Q, 4, true>(acc),
                (_, Scales::Super { min: false, .. }) => self.super_block::<Small, M, Q, 8, false>(acc),
                (_, Scales::Super { .. }) => self.super_block::<Small, M, Q, 8, true>(acc),
                (_, Scales::Twin) => self.twin::<Small, M, Q>(acc),
            }
        }
    }

    /// `GROUPS` groups of the tile from its column `column` on, quarters `quarter .. quarter + Q`, with M
    /// rows.
    ///
    /// # Safety
    /// Same contract as [`Self::run`].
    #[inline(always)]
    unsafe fn dot<D: Dot, const M: usize, const Q: usize, const GROUPS: usize>(
        self,
        column: usize,
        quarter: usize,
    ) -> Sums<M, Q> {
        let Job { tile, a, row, first, .. } = self;
        // SAFETY: by the caller's promise.
        unsafe {
            let w = tile.codes.as_ptr().cast::<i8>().add(column / 4 * GROUP + 16 * quarter);
            let mut x = [a.codes.as_ptr(); M];
            for (m, x) in x.iter_mut().enumerate() {
                *x = x.add((row + m) * a.columns + first + column);
            }
            D::dot::<M, Q, GROUPS>(w, x)
        }
    }

    /// Multiplies blocks with a scale for 32 weights: `acc[m] += Σ d_w d_a (w · x) (+ min_w sum_a)`.
    ///
    /// # Safety
    /// Same contract as [`Self::run`].
    #[inline(always)]
    unsafe fn block<D: Dot, const M: usize, const Q: usize, const MIN: bool>(self, acc: &mut [[f32; PANEL]]) {
        let Job { tile, a, row, first, .. } = self;
        for quarter in (0..QUARTERS).step_by(Q) {
            // SAFETY: by the caller's promise.
            unsafe {
                let mut sums = [[vdupq_n_f32(0.0); Q]; M];
                for m in 0..M {
                    for q in 0..Q {
                        sums[m][q] = vld1q_f32(outputs(acc, m, quarter + q));
                    }
                }
                for b in 0..tile.columns / BLOCK {
                    let dot = self.dot::<D, M, Q, 8>(b * BLOCK, quarter);
                    for q in 0..Q {
                        let at = b * PANEL + 4 * (quarter + q);
                        let d = vld1q_f32(tile.scales.as_ptr().add(at));
                        let min = if MIN { vld1q_f32(tile.mins.as_ptr().add(at)) } else { d };
                        for m in 0..M {
                            let at = ((row + m) * a.columns + first) / BLOCK + b;
                            let scale = vmulq_n_f32(d, *a.scales.as_ptr().add(at));
                            sums[m][q] = vfmaq_f32(sums[m][q], vcvtq_f32_s32(dot[m][q]), scale);
                            if MIN {
                                sums[m][q] = vfmaq_n_f32(sums[m][q], min, *a.sums.as_ptr().add(at));
                            }
                        }
                    }
                }
                for m in 0..M {
                    for q in 0..Q {
                        vst1q_f32(outputs(acc, m, quarter + q), sums[m][q]);
                    }
                }
            }
        }
    }

    /// Multiplies blocks with two scales, each for 16 weights: `acc[m] += Σ d_a (d_1 (w_1 · x_1) + d_2 (w_2 ·
    /// x_2))`.
    ///
    /// # Safety
    /// Same contract as [`Self::run`].
    #[inline(always)]
    unsafe fn twin<D: Dot, const M: usize, const Q: usize>(self, acc: &mut [[f32; PANEL]]) {
        let Job { tile, a, row, first, .. } = self;
        for quarter in (0..QUARTERS).step_by(Q) {
            for b in 0..tile.columns / BLOCK {
                // SAFETY: by the caller's promise.
                unsafe {
                    let first_dot = self.dot::<D, M, Q, 4>(b * BLOCK, quarter);
                    let second_dot = self.dot::<D, M, Q, 4>(b * BLOCK + BLOCK / 2, quarter);
                    for q in 0..Q {
                        let at = b * PANEL + 4 * (quarter + q);
                        let d = [&tile.scales, &tile.mins].map(|scales| vld1q_f32(scales.as_ptr().add(at)));
                        for m in 0..M {
                            let at = ((row + m) * a.columns + first) / BLOCK + b;
                            let scaled = vmulq_f32(vcvtq_f32_s32(first_dot[m][q]), d[0]);
                            let scaled = vfmaq_f32(scaled, vcvtq_f32_s32(second_dot[m][q]), d[1]);
                            let out = outputs(acc, m, quarter + q);
                            vst1q_f32(out, vfmaq_n_f32(vld1q_f32(out), scaled, *a.scales.as_ptr().add(at)));
                        }
                    }
                }
            }
        }
    }

    /// Multiplies records with integer scales for `4 * GROUPS` weights under a float scale for 256.
    ///
    /// # Safety
    /// Same contract as [`Self::run`].
    #[inline(always)]
    unsafe fn super_block<D: Dot, const M: usize, const Q: usize, const GROUPS: usize, const MIN: bool>(
        self,
        acc: &mut [[f32; PANEL]],
    ) {
        let Job { tile, a, row, first, .. } = self;
        let sub = 4 * GROUPS;
        for s in 0..tile.columns / SUPER {
            for quarter in (0..QUARTERS).step_by(Q) {
                // SAFETY: by the caller's promise.
                unsafe {
                    let mut total = [[vdupq_n_s32(0); Q]; M];
                    for i in s * (SUPER / sub)..(s + 1) * (SUPER / sub) {
                        let dot = self.dot::<D, M, Q, GROUPS>(i * sub, quarter);
                        for q in 0..Q {
                            // Each row's scale stands twice in 16 bits; load one of the two, widened with its
                            // sign.
                            let scale = tile.sub_scales.as_ptr().add((i * PANEL + 4 * (quarter + q)) * 2);
                            let scale = vshrq_n_s32::<16>(vld1q_s32(scale.cast()));
                            for m in 0..M {
                                total[m][q] = vmlaq_s32(total[m][q], dot[m][q], scale);
                            }
                        }
                    }
                    for q in 0..Q {
                        let d = vld1q_f32(tile.scales.as_ptr().add(s * PANEL + 4 * (quarter + q)));
                        for m in 0..M {
                            let at = ((row + m) * a.columns + first) / SUPER + s;
                            let scale = vmulq_n_f32(d, *a.scales.as_ptr().add(at));
                            let out = outputs(acc, m, quarter + q);
                            vst1q_f32(out, vfmaq_f32(vld1q_f32(out), vcvtq_f32_s32(total[m][q]), scale));
                        }
                    }
                }
            }
            if MIN {
                // SAFETY: by the caller's promise.
                unsafe { self.subtract_mins::<M, GROUPS>(s, acc) };
            }
        }
    }

    /// `acc[m] -= (Σ min · Σ a) * dmin_w * d_a` for the tile's 256 columns `s`.
    ///
    /// # Safety
    /// Same contract as [`Self::run`].
    #[inline(always)]
    unsafe fn subtract_mins<const M: usize, const GROUPS: usize>(self, s: usize, acc: &mut [[f32; PANEL]]) {
        let Job { tile, a, row, first, .. } = self;
        let sub_sums = if GROUPS == 4 { &a.sums16 } else { &a.sums32 };
        let subs = SUPER / (4 * GROUPS);
        for half in 0..2 {
            // SAFETY: by the caller's promise.
            unsafe {
                let mut total = [[vdupq_n_s32(0); 2]; M];
                for pair in 0..subs / 2 {
                    let mins = tile.sub_mins.as_ptr().add(((s * subs / 2 + pair) * PANEL + 8 * half) * 2);
                    let int16x8x2_t(even, odd) = vld2q_s16(mins);
                    for (m, [low, high]) in total.iter_mut().enumerate() {
                        let at = ((row + m) * a.columns + first) / (4 * GROUPS) + s * subs + 2 * pair;
                        let (e, o) = (*sub_sums.as_ptr().add(at), *sub_sums.as_ptr().add(at + 1));
                        *low = vmlal_n_s16(*low, vget_low_s16(even), e);
                        *low = vmlal_n_s16(*low, vget_low_s16(odd), o);
                        *high = vmlal_high_n_s16(*high, even, e);
                        *high = vmlal_high_n_s16(*high, odd, o);
                    }
                }
                for h in 0..2 {
                    let d = vld1q_f32(tile.mins.as_ptr().add(s * PANEL + 8 * half + 4 * h));
                    for m in 0..M {
                        let at = ((row + m) * a.columns + first) / SUPER + s;
                        let scale = vmulq_n_f32(d, *a.scales.as_ptr().add(at));
                        let out = outputs(acc, m, 2 * half + h);
                        vst1q_f32(out, vfmsq_f32(vld1q_f32(out), vcvtq_f32_s32(total[m][h]), scale));
                    }
                }
            }
        }
    }
}
