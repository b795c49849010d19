//! Products of float panels.

use std::arch::x86_64::*;

use crate::cpu::format::PANEL;

/// Rows of one pass.
const ROWS: usize = 12;

/// `acc[m][p] += Σ_k x[m][k] · weights[k][p]` for `columns` columns of a float panel, rows of `x` `stride` apart.
#[target_feature(enable = "avx512f")]
pub(in super::super) fn float_products(weights: &[f32], x: &[f32], stride: usize, acc: &mut [[f32; PANEL]]) {
    let columns = weights.len() / PANEL;
    assert!(acc.is_empty() || x.len() >= (acc.len() - 1) * stride + columns);
    let mut row = 0;
    while row < acc.len() {
        // SAFETY: the assertion above bounds every row of `x`.
        unsafe {
            let left = acc.len() - row;
            let x = x.as_ptr().add(row * stride);
            let acc = &mut acc[row..];
            row += match left {
                ROWS.. => pass::<ROWS>(weights, x, stride, acc),
                8.. => pass::<8>(weights, x, stride, acc),
                4.. => pass::<4>(weights, x, stride, acc),
                2.. => pass::<2>(weights, x, stride, acc),
                _ => pass::<1>(weights, x, stride, acc),
            }
        }
    }
}

/// # Safety
/// `x` points to M rows of `weights.len() / 16` numbers, `stride` apart.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn pass<const M: usize>(
    weights: &[f32],
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) -> usize {
    let acc = &mut acc[..M];
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums: [__m512; M] = std::array::from_fn(|m| _mm512_loadu_ps(acc[m].as_ptr()));
        for (k, w) in weights.chunks_exact(PANEL).enumerate() {
            let w = _mm512_loadu_ps(w.as_ptr());
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_fmadd_ps(w, _mm512_set1_ps(*x.add(m * stride + k)), *sum);
            }
        }
        for (acc, sum) in acc.iter_mut().zip(sums) {
            _mm512_storeu_ps(acc.as_mut_ptr(), sum);
        }
    }
    M
}
