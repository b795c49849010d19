//! Norms, rotations and activations: the row-by-row operations between the matrix products.

use super::lanes::{F32x8, LANES, versions};
use crate::{Activation, RopeStyle};

/// `Σ x²` in eight lanes, then as a tree; the tail joins at the end.
#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = F32x8::ZERO;
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for x in chunks {
        let x = F32x8::load(x);
        lanes = x.mul_add(x, lanes);
    }
    tail.iter().fold(lanes.sum(), |sum, &x| x.mul_add(x, sum))
}

/// The factor of an RMS norm.
#[inline(always)]
fn rms_factor(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt()
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

#[inline(always)]
fn gate_lanes(activation: Activation, x: F32x8) -> F32x8 {
    match activation {
        Activation::Silu => x.div(x.map(|x| -x).exp().add(F32x8::splat(1.0))),
        // 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))  (Hendrycks and Gimpel, arXiv:1606.08415)
        Activation::GeluTanh => {
            let cubic = x.mul(x).mul(x).mul_add(F32x8::splat(0.044_715), x);
            let tanh = cubic.mul(F32x8::splat(0.797_884_6)).tanh();
            x.mul(F32x8::splat(0.5)).mul(tanh.add(F32x8::splat(1.0)))
        }
        _ => x,
    }
}

#[inline(always)]
fn gated_activation_body(activation: Activation, gate: &mut [f32], up: &[f32]) {
    let mut gates = gate.chunks_exact_mut(LANES);
    let mut ups = up.chunks_exact(LANES);
    for (gate, up) in (&mut gates).zip(&mut ups) {
        gate_lanes(activation, F32x8::load(gate)).mul(F32x8::load(up)).store(gate);
    }
    for (gate, up) in gates.into_remainder().iter_mut().zip(ups.remainder()) {
        *gate = gate_lanes(activation, F32x8::splat(*gate)).0[0] * up;
    }
}
versions! {
    /// `gate = activation(gate) * up`.
    fn gated_activation(activation: Activation, gate: &mut [f32], up: &[f32]) = gated_activation_body
}

#[inline(always)]
fn soft_cap_body(x: &mut [f32], cap: f32) {
    let mut chunks = x.chunks_exact_mut(LANES);
    for x in &mut chunks {
        let scaled = F32x8::load(x).map(|x| x / cap);
        scaled.tanh().mul(F32x8::splat(cap)).store(x);
    }
    for x in chunks.into_remainder() {
        *x = F32x8::splat(*x / cap).tanh().0[0] * cap;
    }
}
versions! {
    /// `x = cap * tanh(x / cap)`.
    fn soft_cap(x: &mut [f32], cap: f32) = soft_cap_body
}

#[inline(always)]
fn rotate_body(head: &mut [f32], rotations: &[f32], style: RopeStyle) {
    let half = rotations.len() / 2;
    match style {
        RopeStyle::Interleaved => {
            for (pair, turn) in head[..2 * half].chunks_exact_mut(2).zip(rotations.chunks_exact(2)) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * turn[0] - b * turn[1];
                pair[1] = a * turn[1] + b * turn[0];
            }
        }
        RopeStyle::Half => {
            let (first, second) = head[..2 * half].split_at_mut(half);
            for ((a, b), turn) in first.iter_mut().zip(second).zip(rotations.chunks_exact(2)) {
                (*a, *b) = (*a * turn[0] - *b * turn[1], *a * turn[1] + *b * turn[0]);
            }
        }
    }
}
versions! {
    /// Rotates one head by `rotations`, pairs of (cos, sin).
    fn rotate(head: &mut [f32], rotations: &[f32], style: RopeStyle) = rotate_body
}

/// Finds the highest numbers of a row and their columns, with the contract of
/// [`Backend::top_k`](crate::Backend::top_k).
pub(crate) fn top_k(x: &[f32], out: &mut [f32]) {
    let (numbers, columns) = out.split_at_mut(out.len() / 2);
    let mut all: Vec<(f32, u32)> =
        (x.iter().copied().zip(0..)).filter(|(x, _)| *x > f32::NEG_INFINITY).collect();
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if all.len() > numbers.len() {
        all.select_nth_unstable_by(numbers.len(), order);
        all.truncate(numbers.len());
    }
    all.sort_unstable_by(order);
    let rest = std::iter::repeat((f32::NEG_INFINITY, u32::MAX));
    for ((number, column), best) in numbers.iter_mut().zip(columns).zip(all.into_iter().chain(rest)) {
        (*number, *column) = (best.0, f32::from_bits(best.1));
    }
}
