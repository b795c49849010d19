//! Rotations, activations and sums: the row-by-row operations between the matrix products.

use super::lanes::{F32x8, LANES, versions};
use crate::{Activation, RopeStyle};

/// `sigmoid(x) = 1 / (e^-x + 1)`.
#[inline(always)]
fn sigmoid(x: F32x8) -> F32x8 {
    F32x8::splat(1.0).div(x.map(|x| -x).exp().add(F32x8::splat(1.0)))
}

/// The activation of a gate, before it is multiplied with the up.
#[inline(always)]
fn activated(activation: Activation, x: F32x8) -> F32x8 {
    match activation {
        Activation::Silu => x.div(x.map(|x| -x).exp().add(F32x8::splat(1.0))),
        // 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))  (Hendrycks and Gimpel, arXiv:1606.08415)
        Activation::GeluTanh => {
            let cubic = x.mul(x).mul(x).mul_add(F32x8::splat(0.044_715), x);
            let tanh = cubic.mul(F32x8::splat(0.797_884_6)).tanh();
            x.mul(F32x8::splat(0.5)).mul(tanh.add(F32x8::splat(1.0)))
        }
        Activation::Gelu => x.mul(normal(x)),
        Activation::ReluSquared => {
            let x = x.map(|x| if x < 0.0 { 0.0 } else { x });
            x.mul(x)
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::ClampedSwiglu { alpha, limit } => {
            let x = x.map(|x| if x > limit { limit } else { x });
            x.mul(sigmoid(x.mul(F32x8::splat(alpha))))
        }
    }
}

/// The share of the normal distribution below `x`: `(1 + erf(x / √2)) / 2`, to about 3e-7 of its value on
/// both sides of 0, with a Chebyshev fit of `erfc` (Press et al., Numerical Recipes, section 6.2).
#[inline(always)]
fn normal(x: F32x8) -> F32x8 {
    let z = x.map(|x| x.abs() * std::f32::consts::FRAC_1_SQRT_2);
    let t = F32x8::splat(1.0).div(z.mul_add(F32x8::splat(0.5), F32x8::splat(1.0)));
    let mut p = F32x8::splat(0.170_872_77);
    for c in [
        -0.822_152_2,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ] {
        p = p.mul_add(t, F32x8::splat(c));
    }
    let tail = t.mul(p.sub(z.mul(z)).exp()).mul(F32x8::splat(0.5));
    let mut out = tail;
    for (out, x) in out.0.iter_mut().zip(x.0) {
        *out = if x > 0.0 { 1.0 - *out } else { *out };
    }
    out
}

/// The number that an activation multiplies the gate's with.
#[inline(always)]
fn factor(activation: Activation, up: F32x8) -> F32x8 {
    match activation {
        Activation::ClampedSwiglu { limit, .. } => {
            let up =
                up.map(|x| if x > limit { limit } else { x }).map(|x| if x < -limit { -limit } else { x });
            up.add(F32x8::splat(1.0))
        }
        _ => up,
    }
}

#[inline(always)]
fn gated_activation_body(activation: Activation, gate: &mut [f32], up: &[f32]) {
    let mut gates = gate.chunks_exact_mut(LANES);
    let mut ups = up.chunks_exact(LANES);
    for (gate, up) in (&mut gates).zip(&mut ups) {
        activated(activation, F32x8::load(gate)).mul(factor(activation, F32x8::load(up))).store(gate);
    }
    for (gate, &up) in gates.into_remainder().iter_mut().zip(ups.remainder()) {
        let up = factor(activation, F32x8::splat(up));
        *gate = activated(activation, F32x8::splat(*gate)).mul(up).0[0];
    }
}
versions! {
    /// `gate = activation(gate) * up`.
    fn gated_activation(activation: Activation, gate: &mut [f32], up: &[f32]) = gated_activation_body
}

#[inline(always)]
fn activation_body(activation: Activation, x: &mut [f32]) {
    let mut chunks = x.chunks_exact_mut(LANES);
    for x in &mut chunks {
        activated(activation, F32x8::load(x)).store(x);
    }
    for x in chunks.into_remainder() {
        *x = activated(activation, F32x8::splat(*x)).0[0];
    }
}
versions! {
    /// `x = activation(x)`.
    fn activation(activation: Activation, x: &mut [f32]) = activation_body
}

#[inline(always)]
fn add_body(x: &mut [f32], delta: &[f32], scale: f32) {
    for (x, &delta) in x.iter_mut().zip(delta) {
        *x += scale * delta;
    }
}
versions! {
    /// `x += scale * delta`.
    fn add(x: &mut [f32], delta: &[f32], scale: f32) = add_body
}

#[inline(always)]
fn scale_body(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}
versions! {
    /// `x *= factor`.
    fn scale(x: &mut [f32], factor: f32) = scale_body
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;

    /// Φ by adding up the normal density, in f64.
    fn normal_f64(x: f64) -> f64 {
        let (steps, from) = (40_000, -12.0);
        let step = (x - from) / steps as f64;
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        // Simpson's rule.
        let sum: f64 = (0..=steps)
            .map(|i| {
                let weight = if i == 0 || i == steps { 1.0 } else { [2.0, 4.0][i % 2] };
                weight * density(from + i as f64 * step)
            })
            .sum();
        sum * step / 3.0
    }

    #[test]
    fn activations_are_accurate_and_the_same_on_every_instruction_set() {
        let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 };
        let all = [Activation::Gelu, Activation::ReluSquared, Activation::Sigmoid, clamped];
        let x: Vec<f32> = (-87..=87).map(|i| i as f32 * 0.13).collect();
        for activation in all {
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                let mut got = x.clone();
                super::activation(isa, activation, &mut got);
                for (&x, &got) in x.iter().zip(&got) {
                    let x = f64::from(x);
                    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                    let want = match activation {
                        Activation::Gelu => x * normal_f64(x),
                        Activation::ReluSquared => x.max(0.0).powi(2),
                        Activation::Sigmoid => sigmoid(x),
                        _ => x.min(7.0) * sigmoid(1.702 * x.min(7.0)),
                    };
                    let error = (f64::from(got) - want).abs();
                    assert!(error <= 2e-6 * want.abs() + 1e-9, "{activation:?}({x}) = {got}, not {want}");
                }
                assert_eq!(first.get_or_insert_with(|| got.clone()), &got, "{isa}");
            }
        }
        assert!(normal(F32x8::splat(f32::NAN)).0[0].is_nan());
    }
}
