//! Norms of rows.

use super::lanes::{F32x8, LANES, versions};
use super::{CpuBackend, Isa};
use crate::{Norm, NormKind};

/// `Σ (x - mean)²` in eight lanes, then as a tree; the tail joins at the end.
#[inline(always)]
fn sum_of_squares(x: &[f32], mean: f32) -> f32 {
    let mut lanes = F32x8::ZERO;
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for x in chunks {
        let x = F32x8::load(x).sub(F32x8::splat(mean));
        lanes = x.mul_add(x, lanes);
    }
    tail.iter().fold(lanes.sum(), |sum, &x| (x - mean).mul_add(x - mean, sum))
}

/// The factor of an RMS norm.
#[inline(always)]
fn rms_factor(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(x, 0.0) / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let factor = rms_factor(x, eps);
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * w;
    }
}
versions! {
    /// `out = x / sqrt(mean(x²) + eps) * weight` for one row.
    fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body
}

#[inline(always)]
fn rms_norm_in_place_body(x: &mut [f32], weight: &[f32], eps: f32) {
    let factor = rms_factor(x, eps);
    for (x, &w) in x.iter_mut().zip(weight) {
        *x = *x * factor * w;
    }
}
versions! {
    /// Same as [`rms_norm`], in place.
    fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) = rms_norm_in_place_body
}

#[inline(always)]
fn add_rms_norm_body(x: &mut [f32], delta: &[f32], weight: &[f32], eps: f32) {
    let factor = rms_factor(delta, eps);
    for ((x, &d), &w) in x.iter_mut().zip(delta).zip(weight) {
        *x += d * factor * w;
    }
}
versions! {
    /// `x += rms_norm(delta) * weight` for one row.
    fn add_rms_norm(x: &mut [f32], delta: &[f32], weight: &[f32], eps: f32) = add_rms_norm_body
}

/// The mean of a row, in the order of [`sum_of_squares`].
#[inline(always)]
fn mean(x: &[f32]) -> f32 {
    let mut lanes = F32x8::ZERO;
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for x in chunks {
        lanes = lanes.add(F32x8::load(x));
    }
    tail.iter().fold(lanes.sum(), |sum, &x| sum + x) / x.len() as f32
}

/// The number that a norm subtracts from a row, and the factor that follows.
#[inline(always)]
fn statistics(x: &[f32], kind: NormKind, eps: f32) -> (f32, f32) {
    match kind {
        NormKind::Rms => (0.0, rms_factor(x, eps)),
        NormKind::Layer => {
            let mean = mean(x);
            (mean, 1.0 / (sum_of_squares(x, mean) / x.len() as f32 + eps).sqrt())
        }
    }
}

#[inline(always)]
fn norm_in_place_body(x: &mut [f32], kind: NormKind, weight: &[f32], bias: &[f32], eps: f32) {
    let (mean, factor) = statistics(x, kind, eps);
    for x in &mut *x {
        *x = (*x - mean) * factor;
    }
    for (x, &w) in x.iter_mut().zip(weight) {
        *x *= w;
    }
    for (x, &b) in x.iter_mut().zip(bias) {
        *x += b;
    }
}
versions! {
    /// A norm of any kind. `weight` and `bias` are empty if there are none.
    fn norm_of(
        x: &mut [f32],
        kind: NormKind,
        weight: &[f32],
        bias: &[f32],
        eps: f32,
    ) = norm_in_place_body
}

#[inline(always)]
fn add_norm_body(x: &mut [f32], delta: &[f32], kind: NormKind, weight: &[f32], bias: &[f32], eps: f32) {
    let (mean, factor) = statistics(delta, kind, eps);
    for (i, (x, &delta)) in x.iter_mut().zip(delta).enumerate() {
        let normed = (delta - mean) * factor;
        let weighted = normed * weight.get(i).copied().unwrap_or(1.0);
        *x += bias.get(i).map_or(weighted, |b| weighted + b);
    }
}
versions! {
    /// `x += norm(delta)` for a norm of any kind.
    fn add_norm_of(
        x: &mut [f32],
        delta: &[f32],
        kind: NormKind,
        weight: &[f32],
        bias: &[f32],
        eps: f32,
    ) = add_norm_body
}

/// The parameters, or their part for `columns`.
fn part(parameters: Option<&Vec<f32>>, columns: std::ops::Range<usize>) -> &[f32] {
    parameters.map_or(&[], |parameters| &parameters[columns])
}

/// `out = norm(x)` for one row.
pub(crate) fn norm(isa: Isa, x: &[f32], norm: &Norm<'_, CpuBackend>, out: &mut [f32]) {
    match (norm.kind, norm.weight, norm.bias) {
        (NormKind::Rms, Some(weight), None) => rms_norm(isa, x, weight, norm.eps, out),
        _ => {
            out.copy_from_slice(x);
            norm_in_place(isa, out, norm, 0);
        }
    }
}

/// `x = norm(x)` for a row or a head, with the norm's parameters from column `first` on.
pub(crate) fn norm_in_place(isa: Isa, x: &mut [f32], norm: &Norm<'_, CpuBackend>, first: usize) {
    let columns = first..first + x.len();
    let (weight, bias) = (part(norm.weight, columns.clone()), part(norm.bias, columns));
    match (norm.kind, norm.weight, norm.bias) {
        (NormKind::Rms, Some(_), None) => rms_norm_in_place(isa, x, weight, norm.eps),
        _ => norm_of(isa, x, norm.kind, weight, bias, norm.eps),
    }
}

/// `x += norm(delta)` for one row.
pub(crate) fn add_norm(isa: Isa, x: &mut [f32], delta: &[f32], norm: &Norm<'_, CpuBackend>) {
    let (weight, bias) = (part(norm.weight, 0..x.len()), part(norm.bias, 0..x.len()));
    match (norm.kind, norm.weight, norm.bias) {
        (NormKind::Rms, Some(_), None) => add_rms_norm(isa, x, delta, weight, norm.eps),
        _ => add_norm_of(isa, x, delta, norm.kind, weight, bias, norm.eps),
    }
}
