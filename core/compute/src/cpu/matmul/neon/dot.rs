//! Integer products of weights with activations, in two ways that depend on the Arm processor.
//!
//! 16 bytes of a group are 4 rows × 4 columns. With the dot product instructions (optional from Armv8.2 on,
//! present in nearly all processors since 2018), one `sdot` multiplies these 16 bytes with 4 activation
//! bytes, selected from a register that holds those of 4 groups, and adds into 4 lanes, one for each row.
//! Without dot products, `smlal` multiplies 8 bytes into 16-bit lanes, which have to be widened before they
//! overflow.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::cpu::format::GROUP;

/// Integer sums of M rows of activations with `4 * Q` outputs.
pub(super) type Sums<const M: usize, const Q: usize> = [[int32x4_t; Q]; M];

/// A way to multiply weights, as signed bytes, with activations. All ways give the same integers.
pub(super) trait Dot {
    /// Multiplies `GROUPS` groups (4 or 8), the quarters `0 .. Q` of each, from `w` on.
    ///
    /// # Safety
    /// `16 * Q` bytes can be read at `w` and at each multiple of a group's size from there, `4 * GROUPS`
    /// bytes at each `x`. The processor has the instructions.
    unsafe fn dot<const M: usize, const Q: usize, const GROUPS: usize>(
        w: *const i8,
        x: [*const i8; M],
    ) -> Sums<M, Q>;
}

/// The dot product instructions, for all codes.
pub(super) struct DotProduct;

/// Computes `sum[p] += Σ_c w[4 p + c] · x[4 LANE + c]`.
///
/// Written in assembly, because the intrinsic is not stable yet.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: usize>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: changes only its operand; the feature is enabled.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

impl Dot for DotProduct {
    // `inline(always)`, here and in the callers, so that the function is compiled with the features of its
    // final caller.
    #[inline(always)]
    unsafe fn dot<const M: usize, const Q: usize, const GROUPS: usize>(
        w: *const i8,
        x: [*const i8; M],
    ) -> Sums<M, Q> {
        // SAFETY: by the caller's promise.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); Q]; M];
            for four in 0..GROUPS / 4 {
                let w = w.add(four * 4 * GROUP);
                let mut four_x = [vdupq_n_s8(0); M];
                for m in 0..M {
                    four_x[m] = vld1q_s8(x[m].add(16 * four));
                }
                macro_rules! group {
                    ($g:literal) => {
                        for q in 0..Q {
                            let w = vld1q_s8(w.add($g * GROUP + 16 * q));
                            for m in 0..M {
                                sums[m][q] = sdot::<$g>(sums[m][q], w, four_x[m]);
                            }
                        }
                    };
                }
                group!(0);
                group!(1);
                group!(2);
                group!(3);
            }
            sums
        }
    }
}

/// 16-bit sums of up to 8 groups, for codes of up to 6 bits: each lane adds one product per group, and
/// `8 · 32 · 127 = 32,512` for the largest magnitude, the lowest code of Q6_K, still fits.
pub(super) struct Narrow;

/// Same as [`Narrow`] for 8-bit codes: `2 · 128 · 127 = 32,512`, so the sums are widened after every second
/// group.
pub(super) struct Wide;

/// 8 byte products each: for rows 0 and 1, and for rows 2 and 3, of four.
type Products = [int16x8_t; 2];

/// Loads four activation bytes, repeated four times.
///
/// # Safety
/// Four bytes can be read at `x`.
#[inline(always)]
unsafe fn broadcast(x: *const i8) -> int8x16_t {
    // SAFETY: by the caller's promise; `ld1r` needs no alignment.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(x.cast::<i32>().read_unaligned())) }
}

impl Dot for Narrow {
    #[inline(always)]
    unsafe fn dot<const M: usize, const Q: usize, const GROUPS: usize>(
        w: *const i8,
        x: [*const i8; M],
    ) -> Sums<M, Q> {
        // SAFETY: by the caller's promise.
        unsafe {
            let mut products: [[Products; Q]; M] = [[[vdupq_n_s16(0); 2]; Q]; M];
            for g in 0..GROUPS {
                let mut w_g = [vdupq_n_s8(0); Q];
                for q in 0..Q {
                    w_g[q] = vld1q_s8(w.add(g * GROUP + 16 * q));
                }
                for m in 0..M {
                    let x = broadcast(x[m].add(4 * g));
                    for q in 0..Q {
                        let [low, high] = &mut products[m][q];
                        *low = vmlal_s8(*low, vget_low_s8(w_g[q]), vget_low_s8(x));
                        *high = vmlal_high_s8(*high, w_g[q], x);
                    }
                }
            }
            let mut sums = [[vdupq_n_s32(0); Q]; M];
            for m in 0..M {
                for q in 0..Q {
                    let [low, high] = products[m][q];
                    sums[m][q] = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
                }
            }
            sums
        }
    }
}

impl Dot for Wide {
    #[inline(always)]
    unsafe fn dot<const M: usize, const Q: usize, const GROUPS: usize>(
        w: *const i8,
        x: [*const i8; M],
    ) -> Sums<M, Q> {
        // SAFETY: by the caller's promise.
        unsafe {
            // Each row has two sums of two products, as `sadalp` adds them up.
            let mut pairs = [[[vdupq_n_s32(0); 2]; Q]; M];
            for g in (0..GROUPS).step_by(2) {
                for m in 0..M {
                    let (x0, x1) = (broadcast(x[m].add(4 * g)), broadcast(x[m].add(4 * g + 4)));
                    for q in 0..Q {
                        let w0 = vld1q_s8(w.add(g * GROUP + 16 * q));
                        let w1 = vld1q_s8(w.add((g + 1) * GROUP + 16 * q));
                        let low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0));
                        let low = vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1));
                        let high = vmlal_high_s8(vmull_high_s8(w0, x0), w1, x1);
                        pairs[m][q][0] = vpadalq_s16(pairs[m][q][0], low);
                        pairs[m][q][1] = vpadalq_s16(pairs[m][q][1], high);
                    }
                }
            }
            let mut sums = [[vdupq_n_s32(0); Q]; M];
            for m in 0..M {
                for q in 0..Q {
                    sums[m][q] = vpaddq_s32(pairs[m][q][0], pairs[m][q][1]);
                }
            }
            sums
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplies one row of activations with the 8 outputs of two quarters; every weight of output `p` is
    /// `w[p]`.
    #[inline(always)]
    fn sums<D: Dot>(w: [i8; 8], x: [i8; 32]) -> [i32; 8] {
        let mut groups = [0i8; 8 * GROUP];
        for group in groups.chunks_exact_mut(GROUP) {
            for (out, w) in group.chunks_exact_mut(4).zip(w) {
                out.fill(w);
            }
        }
        let mut out = [0; 8];
        // SAFETY: 8 groups and 32 activations; the caller detected the instructions.
        unsafe {
            let [[low, high]] = D::dot::<1, 2, 8>(groups.as_ptr(), [x.as_ptr()]);
            vst1q_s32(out.as_mut_ptr(), low);
            vst1q_s32(out.as_mut_ptr().add(4), high);
        }
        out
    }

    #[test]
    fn the_largest_codes_do_not_overflow() {
        let small = [-32, 31, -16, 15, 8, -8, 1, 0];
        let bytes = [-128, 127, -127, 113, 64, -1, 1, 0];
        for x in [127, -127] {
            let want = |w: [i8; 8]| w.map(|w| 32 * w as i32 * x as i32);
            assert_eq!(sums::<Narrow>(small, [x; 32]), want(small));
            assert_eq!(sums::<Wide>(bytes, [x; 32]), want(bytes));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                #[target_feature(enable = "neon,dotprod")]
                fn with_dotprod(w: [i8; 8], x: [i8; 32]) -> [i32; 8] {
                    sums::<DotProduct>(w, x)
                }
                // SAFETY: just detected.
                unsafe { assert_eq!(with_dotprod(bytes, [x; 32]), want(bytes)) };
            }
        }
    }
}
