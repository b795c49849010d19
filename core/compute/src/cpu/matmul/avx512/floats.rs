//! Products of float panels. Weights are widened in registers, again for every pass of rows: the conversion
//! hides behind the multiplications, while widening through memory took as long as the multiplications.

use std::arch::x86_64::*;

use crate::cpu::format::PANEL;
use crate::cpu::matrix::FloatSlice;

/// Rows per pass.
const ROWS: usize = 12;

/// A weight in the type in which it is stored.
trait Weight: Copy {
    /// Loads the 16 weights of a column.
    ///
    /// # Safety
    /// 16 weights can be read at `p`, and the processor has AVX-512.
    unsafe fn load(p: *const Self) -> __m512;
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct F16(u16);

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bf16(u16);

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load(p: *const Self) -> __m512 {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_loadu_ps(p) }
    }
}

impl Weight for F16 {
    #[inline(always)]
    unsafe fn load(p: *const Self) -> __m512 {
        // SAFETY: by the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
}

impl Weight for Bf16 {
    #[inline(always)]
    unsafe fn load(p: *const Self) -> __m512 {
        // SAFETY: by the caller's promise. A bf16 is the upper half of an f32.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))
        }
    }
}

/// `acc[m][p] += Σ_k x[m][k] · weights[k][p]`, rows of `x` `stride` apart.
#[target_feature(enable = "avx512f")]
pub(in super::super) fn float_products(
    weights: FloatSlice<'_>,
    x: &[f32],
    stride: usize,
    acc: &mut [[f32; PANEL]],
) {
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
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn passes<W: Weight>(
    w: *const W,
    columns: usize,
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) {
    let mut row = 0;
    while row < acc.len() {
        // SAFETY: by the caller's promise.
        unsafe {
            let left = acc.len() - row;
            let x = x.add(row * stride);
            let acc = &mut acc[row..];
            row += match left {
                ROWS.. => pass::<W, ROWS>(w, columns, x, stride, acc),
                8.. => pass::<W, 8>(w, columns, x, stride, acc),
                4.. => pass::<W, 4>(w, columns, x, stride, acc),
                2.. => pass::<W, 2>(w, columns, x, stride, acc),
                _ => pass::<W, 1>(w, columns, x, stride, acc),
            }
        }
    }
}

/// # Safety
/// Same contract as [`passes`], with M rows.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn pass<W: Weight, const M: usize>(
    w: *const W,
    columns: usize,
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) -> usize {
    let acc = &mut acc[..M];
    // SAFETY: by the caller's promise. A prefetch may name any address.
    unsafe {
        let mut sums: [__m512; M] = std::array::from_fn(|m| _mm512_loadu_ps(acc[m].as_ptr()));
        for k in 0..columns {
            let column = w.add(k * PANEL);
            _mm_prefetch::<_MM_HINT_T0>(column.wrapping_byte_add(4096).cast());
            let column = W::load(column);
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_fmadd_ps(column, _mm512_set1_ps(*x.add(m * stride + k)), *sum);
            }
        }
        for (acc, sum) in acc.iter_mut().zip(sums) {
            _mm512_storeu_ps(acc.as_mut_ptr(), sum);
        }
    }
    M
}
