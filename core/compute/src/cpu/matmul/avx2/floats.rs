//! Products of float panels.

use std::arch::x86_64::*;

use super::kernels::Sums;
use crate::cpu::format::PANEL;

/// `acc[m][p] += Σ_k x[m][k] · weights[k][p]` for `columns` columns of a float panel, rows of `x` `stride` apart.
#[target_feature(enable = "avx2,fma")]
pub(crate) fn float_products(weights: &[f32], x: &[f32], stride: usize, acc: &mut [[f32; PANEL]]) {
    let columns = weights.len() / PANEL;
    assert!(acc.is_empty() || x.len() >= (acc.len() - 1) * stride + columns);
    let mut row = 0;
    for acc in acc.chunks_mut(6) {
        // SAFETY: the assertion above bounds every row of `x`.
        unsafe {
            let x = x.as_ptr().add(row * stride);
            match acc.len() {
                6 => float_product::<6>(weights, x, stride, acc),
                5 => float_product::<5>(weights, x, stride, acc),
                4 => float_product::<4>(weights, x, stride, acc),
                3 => float_product::<3>(weights, x, stride, acc),
                2 => float_product::<2>(weights, x, stride, acc),
                _ => float_product::<1>(weights, x, stride, acc),
            }
        }
        row += acc.len();
    }
}

/// # Safety
/// `x` points to M rows of `weights.len() / 16` numbers, `stride` apart.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn float_product<const M: usize>(
    weights: &[f32],
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) {
    // SAFETY: by the caller's promise; `acc` has M rows.
    unsafe {
        let mut sums: Sums<M> = [[_mm256_setzero_ps(); 2]; M];
        for (sum, acc) in sums.iter_mut().zip(&*acc) {
            *sum = [_mm256_loadu_ps(acc.as_ptr()), _mm256_loadu_ps(acc.as_ptr().add(8))];
        }
        for (k, w) in weights.chunks_exact(PANEL).enumerate() {
            let (w0, w1) = (_mm256_loadu_ps(w.as_ptr()), _mm256_loadu_ps(w.as_ptr().add(8)));
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
