//! Products of float panels. Weights are widened in registers, again for every pass of rows: the conversion
//! hides behind the multiplications, while widening through memory took as long as the multiplications.

use std::arch::x86_64::*;

use super::kernels::Sums;
use crate::cpu::format::PANEL;
use crate::cpu::matrix::FloatSlice;

/// A weight in the type in which it is stored.
trait Weight: Copy {
    /// Loads 8 weights of a column.
    ///
    /// # Safety
    /// 8 weights can be read at `p`, and the processor has AVX2 and F16C.
    unsafe fn load(p: *const Self) -> __m256;
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct F16(u16);

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bf16(u16);

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load(p: *const Self) -> __m256 {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_loadu_ps(p) }
    }
}

impl Weight for F16 {
    #[inline(always)]
    unsafe fn load(p: *const Self) -> __m256 {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
}

impl Weight for Bf16 {
    #[inline(always)]
    unsafe fn load(p: *const Self) -> __m256 {
        // SAFETY: by the caller's promise. A bf16 is the upper half of an f32.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))
        }
    }
}

/// `acc[m][p] += Σ_k x[m][k] · weights[k][p]`, rows of `x` `stride` apart.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn float_products(weights: FloatSlice<'_>, x: &[f32], stride: usize, acc: &mut [[f32; PANEL]]) {
    let columns = weights.len() / PANEL;
    assert!(acc.is_empty() || x.len() >= (acc.len() - 1) * stride + columns);
    // SAFETY: `columns` columns of 16 weights can be read, and the assertion above bounds every row of `x`.
    unsafe {
        match weights {
            FloatSlice::F32(w) => passes(w.as_ptr(), columns, x.as_ptr(), stride, acc),
            FloatSlice::F16(w) => passes(w.as_ptr().cast::<F16>(), columns, x.as_ptr(), stride, acc),
            FloatSlice::BF16(w) => passes(w.as_ptr().cast::<Bf16>(), columns, x.as_ptr(), stride, acc),
        }
    }
}

/// # Safety
/// `columns` times 16 weights can be read at `w`, and at `x` `acc.len()` rows of `columns` numbers, `stride`
/// apart.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn passes<W: Weight>(
    w: *const W,
    columns: usize,
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) {
    let mut row = 0;
    for acc in acc.chunks_mut(6) {
        // SAFETY: by the caller's promise.
        unsafe {
            let x = x.add(row * stride);
            match acc.len() {
                6 => pass::<W, 6>(w, columns, x, stride, acc),
                5 => pass::<W, 5>(w, columns, x, stride, acc),
                4 => pass::<W, 4>(w, columns, x, stride, acc),
                3 => pass::<W, 3>(w, columns, x, stride, acc),
                2 => pass::<W, 2>(w, columns, x, stride, acc),
                _ => pass::<W, 1>(w, columns, x, stride, acc),
            }
        }
        row += acc.len();
    }
}

/// # Safety
/// Same contract as [`passes`], with M rows.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn pass<W: Weight, const M: usize>(
    w: *const W,
    columns: usize,
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) {
    // SAFETY: by the caller's promise; `acc` has M rows. A prefetch may name any address.
    unsafe {
        let mut sums: Sums<M> = [[_mm256_setzero_ps(); 2]; M];
        for (sum, acc) in sums.iter_mut().zip(&*acc) {
            *sum = [_mm256_loadu_ps(acc.as_ptr()), _mm256_loadu_ps(acc.as_ptr().add(8))];
        }
        for k in 0..columns {
            let column = w.add(k * PANEL);
            _mm_prefetch::<_MM_HINT_T0>(column.wrapping_byte_add(4096).cast());
            let (w0, w1) = (W::load(column), W::load(column.add(8)));
            for (m, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*x.add(m * stride + k));
                *sum = [_mm256_fmadd_ps(w0, x, sum[0]), _mm256_fmadd_ps(w1, x, sum[1])];
            }
        }
        for (sum, acc) in sums.iter().zip(acc) {
            _mm256_storeu_ps(acc.as_mut_ptr(), sum[0]);
            _mm256_storeu_ps(acc.as_mut_ptr().add(8), sum[1]);
        }
    }
}
