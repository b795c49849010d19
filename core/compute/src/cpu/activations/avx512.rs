//! Quantizes a row with AVX-512: the same numbers as the portable code, without a detour through memory. (The
//! portable code compiled for AVX-512 took a quarter of a prompt's time: its interleaved stores defeat the
//! compiler.)

use std::arch::x86_64::*;

use super::{Fill, Place, inverse, put};
use crate::cpu::format::BLOCK;

/// Quantizes the row at `place` from `x`, `[columns]`.
///
/// # Safety
/// Same contract as [`Fill::row`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn row(fill: &Fill, place: Place, x: &[f32]) {
    for (b, x) in x.chunks_exact(fill.block).enumerate() {
        let mut largest = _mm512_setzero_ps();
        for x in x.chunks_exact(16) {
            // SAFETY: 16 numbers. Of a NaN and a number, the instruction returns its second operand.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
            largest = _mm512_max_ps(_mm512_abs_ps(x), largest);
        }
        let max = _mm512_reduce_max_ps(largest);
        let inverse = _mm512_set1_ps(inverse(max));
        let d = max / 127.0;
        // SAFETY: every unit of a row belongs to that row, which is this thread's alone.
        unsafe { put(&fill.scales, place.at(fill.block, b), [d]) };
        for (i, x) in x.chunks_exact(BLOCK).enumerate() {
            let block = b * fill.block / BLOCK + i;
            let mut sums = [0i32; 2];
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 16 numbers.
                let x = unsafe { _mm512_loadu_ps(x.as_ptr().add(16 * half)) };
                let x = _mm512_mul_ps(x, inverse);
                // NaN becomes 0; the rest is rounded to nearest, ties to even.
                let x = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x), x);
                let codes = _mm512_cvtps_epi32(x);
                *sum = _mm512_reduce_add_epi32(codes);
                let mut bytes = [0i8; 16];
                // SAFETY: 16 bytes.
                unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(codes)) };
                for (j, c) in bytes.chunks_exact(4).enumerate() {
                    // SAFETY: every unit of a row belongs to that row, which is this thread's alone.
                    unsafe {
                        put(&fill.codes, place.at(4, 8 * block + 4 * half + j), [c[0], c[1], c[2], c[3]])
                    };
                }
            }
            let sum = sums[0] + sums[1];
            // SAFETY: every unit of a row belongs to that row, which is this thread's alone.
            unsafe {
                put(&fill.negative32, place.at(BLOCK, block), [-sum]);
                put(&fill.negative16, place.at(16, 2 * block), [-sums[0]]);
                put(&fill.negative16, place.at(16, 2 * block + 1), [-sums[1]]);
                if fill.block == BLOCK {
                    put(&fill.sums, place.at(BLOCK, block), [d * sum as f32]);
                } else {
                    put(&fill.sums16, place.at(32, block), [sums[0] as i16, sums[1] as i16]);
                    put(&fill.sums32, place.at(64, block / 2) * 2 + block % 2, [sum as i16]);
                }
            }
        }
    }
}
