//! Scales and minima that reproduce a block best: the weighted sum of squared errors is the measure.
//!
//! Codes that are given make the best scale (and minimum) a linear least-squares problem, and a scale that is
//! given makes each best code the nearest one. So a search tries scales around the one that spans the block,
//! and the two steps then take turns until nothing changes.

use super::levels::{Levels, round};

/// The numbers of a block and their weights.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, const N: usize> {
    pub(super) x: &'a [f32; N],
    pub(super) w: &'a [f32; N],
}

/// Turns of codes and scales after the search. Most blocks are settled after two.
const TURNS: usize = 4;

#[inline(always)]
fn map<const N: usize>(f: impl Fn(usize) -> f32) -> [f32; N] {
    let mut out = [0.0; N];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}

/// The sum of products, in 8 sums that a processor can compute at once.
#[inline(always)]
pub(super) fn dot<const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    let mut lanes = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for l in 0..8 {
            lanes[l] += a[l] * b[l];
        }
    }
    lanes.iter().sum()
}

#[inline(always)]
fn sum<const N: usize>(a: &[f32; N]) -> f32 {
    dot(a, &[1.0; N])
}

impl<const N: usize> Block<'_, N> {
    fn wx(&self) -> [f32; N] {
        map(|i| self.w[i] * self.x[i])
    }

    /// The values of `L` that reproduce the block best at `scale`.
    #[inline(always)]
    pub(super) fn values<L: Levels>(&self, scale: f32) -> [f32; N] {
        let inverse = inverse(scale);
        map(|i| L::nearest(self.x[i] * inverse))
    }

    /// The weighted squared error of `scale` with the best codes.
    #[inline(always)]
    pub(super) fn scale_error<L: Levels>(&self, scale: f32) -> f32 {
        let q = self.values::<L>(scale);
        let r: [f32; N] = map(|i| self.x[i] - scale * q[i]);
        dot(&map(|i| self.w[i] * r[i]), &r)
    }

    /// The best scale for values of `L`. It may be negative: codes reach farther on one side of zero.
    pub(super) fn scale<L: Levels>(&self) -> f32 {
        /// Candidates on each side of the lowest and of the highest value.
        const REACH: i32 = 9;
        let largest = self.x.iter().fold(0.0f32, |max, &x| if x.abs() > max.abs() { x } else { max });
        if largest == 0.0 {
            return 0.0;
        }
        let wx = self.wx();
        let (mut scale, mut gain) = (0.0, 0.0);
        let mut attempt = |inverse: f32| {
            let q: [f32; N] = map(|i| L::nearest(self.x[i] * inverse));
            let (xq, qq) = (dot(&wx, &q), dot(&map(|i| self.w[i] * q[i]), &q));
            // The error is the sum of squares less this gain.
            let better = qq > 0.0 && xq * xq > gain * qq;
            if better {
                (scale, gain) = (xq / qq, xq * xq / qq);
            }
            better
        };
        for end in if L::LOW == -L::HIGH { &[L::LOW][..] } else { &[L::LOW, L::HIGH] } {
            for k in -REACH..=REACH {
                attempt((end + k as f32 * L::STEP) / largest);
            }
        }
        for _ in 0..TURNS {
            let q = self.values::<L>(scale);
            let (xq, qq) = (dot(&wx, &q), dot(&map(|i| self.w[i] * q[i]), &q));
            if qq <= 0.0 || xq * xq <= gain * qq {
                break;
            }
            (scale, gain) = (xq / qq, xq * xq / qq);
        }
        scale
    }

    /// Codes from 0 to `top` that reproduce the block best as `step · code + low`.
    #[inline(always)]
    pub(super) fn codes(&self, step: f32, low: f32, top: f32) -> [f32; N] {
        let inverse = inverse(step);
        map(|i| round(((self.x[i] - low) * inverse).clamp(0.0, top)))
    }

    /// The weighted squared error of `step` and `low` with the best codes.
    #[inline(always)]
    pub(super) fn affine_error(&self, step: f32, low: f32, top: f32) -> f32 {
        let q = self.codes(step, low, top);
        let r: [f32; N] = map(|i| self.x[i] - (step * q[i] + low));
        dot(&map(|i| self.w[i] * r[i]), &r)
    }

    /// The best step and low end for codes from 0 to `top`. With `capped`, the low end is at most 0.
    pub(super) fn affine(&self, top: f32, capped: bool) -> (f32, f32) {
        /// Candidates on each side of the step that spans the block, and their distance in codes.
        const REACH: i32 = 10;
        const STEP: f32 = 0.1;
        let (mut low, mut high) = (self.x[0], self.x[0]);
        for &x in self.x {
            (low, high) = (low.min(x), high.max(x));
        }
        if capped {
            low = low.min(0.0);
        }
        if high <= low {
            return (0.0, low);
        }
        let wx = self.wx();
        let (sw, swx) = (sum(self.w), sum(&wx));
        // The least-squares step and low end for codes, and the part of the sum of squares that they explain.
        let fit = |q: &[f32; N]| {
            let wq: [f32; N] = map(|i| self.w[i] * q[i]);
            let (swq, swqq, swxq) = (sum(&wq), dot(&wq, q), dot(&wx, q));
            let det = sw * swqq - swq * swq;
            if det > 0.0 {
                let (step, low) = ((sw * swxq - swq * swx) / det, (swqq * swx - swq * swxq) / det);
                if step > 0.0 && !(capped && low > 0.0) {
                    return (step * swxq + low * swx, step, low);
                }
            }
            if swqq > 0.0 && swxq > 0.0 {
                (swxq * swxq / swqq, swxq / swqq, 0.0)
            } else {
                (f32::MIN, 0.0, 0.0)
            }
        };
        let mut best = (f32::MIN, 0.0, low);
        for k in -REACH..=REACH {
            let codes =
                self.codes((high - low) / (top + k as f32 * STEP * (top / 15.0).clamp(0.5, 1.0)), low, top);
            let found = fit(&codes);
            if found.0 > best.0 {
                best = found;
            }
        }
        for _ in 0..TURNS {
            let found = fit(&self.codes(best.1, best.2, top));
            if found.0 <= best.0 {
                break;
            }
            best = found;
        }
        (best.1, best.2)
    }
}

#[inline(always)]
fn inverse(v: f32) -> f32 {
    let inverse = 1.0 / v;
    if inverse.is_finite() { inverse } else { 0.0 }
}
