//! Products of float panels.

use std::arch::aarch64::*;

use crate::cpu::format::PANEL;

/// Rows per pass: 24 registers of sums, 4 of weights.
const ROWS: usize = 6;

/// `acc[m][p] += Σ_k x[m][k] · weights[k][p]` for `columns` columns of a float panel, rows of `x` `stride`
/// apart.
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
                4.. => pass::<4>(weights, x, stride, acc),
                2.. => pass::<2>(weights, x, stride, acc),
                _ => pass::<1>(weights, x, stride, acc),
            }
        }
    }
}

/// # Safety
/// `x` points to M rows of `weights.len() / 16` numbers, `stride` apart.
unsafe fn pass<const M: usize>(
    weights: &[f32],
    x: *const f32,
    stride: usize,
    acc: &mut [[f32; PANEL]],
) -> usize {
    let acc = &mut acc[..M];
    // SAFETY: by the caller's promise; a row of `acc` and a column of `weights` are 16 numbers.
    unsafe {
        let load = |p: *const f32, q: usize| vld1q_f32(p.add(4 * q));
        let mut sums: [[float32x4_t; 4]; M] =
            std::array::from_fn(|m| std::array::from_fn(|q| load(acc[m].as_ptr(), q)));
        for (k, w) in weights.chunks_exact(PANEL).enumerate() {
            let w: [float32x4_t; 4] = std::array::from_fn(|q| load(w.as_ptr(), q));
            for (m, sums) in sums.iter_mut().enumerate() {
                let x = *x.add(m * stride + k);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = vfmaq_n_f32(*sum, w, x);
                }
            }
        }
        for (acc, sums) in acc.iter_mut().zip(sums) {
            for (q, sum) in sums.into_iter().enumerate() {
                vst1q_f32(acc.as_mut_ptr().add(4 * q), sum);
            }
        }
    }
    M
}
