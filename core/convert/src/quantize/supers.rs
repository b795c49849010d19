//! Blocks of 256 numbers whose parts have scales that are integers themselves: the k-quants and IQ4_XS.
//!
//! Each part is fitted alone first. Then three steps take turns while the block's error falls: each part
//! takes the best of the neighboring integer scales, its codes follow, and the block's own scales are the
//! least-squares ones for all codes.

use half::f16;

use super::blocks::{iq4_code, put_half, put_nibbles};
use super::fit::{Block, dot};
use super::levels::{Integers, Iq4, Levels, round};

/// The numbers of a block and their weights.
#[derive(Clone, Copy)]
pub(super) struct Super<'a> {
    pub(super) x: &'a [f32; 256],
    pub(super) w: &'a [f32; 256],
}

/// Turns of the three steps at most.
const TURNS: usize = 4;

/// A block of parts with scales.
struct Scaled {
    d: f32,
    scales: [f32; 16],
    values: [f32; 256],
}

/// A block of parts with scales and minima.
#[derive(Clone)]
struct Affine {
    d: f32,
    dmin: f32,
    scales: [u8; 16],
    mins: [u8; 16],
}

/// The value that is stored for a scale: an f16, and not 0 for a scale that is not, because no part would
/// have codes then.
fn stored(value: f32) -> f32 {
    let half = f16::from_f32(value).to_f32();
    if half == 0.0 && value != 0.0 { f16::from_bits(1).to_f32().copysign(value) } else { half }
}

impl<'a> Super<'a> {
    fn part<const N: usize>(&self, p: usize) -> Block<'a, N> {
        Block { x: &self.x.as_chunks::<N>().0[p], w: &self.w.as_chunks::<N>().0[p] }
    }

    /// Fits parts of `N` values of `L`; their scales are integers from `low` to `high`.
    fn scaled<L: Levels, const N: usize>(&self, low: f32, high: f32) -> Scaled {
        let parts = 256 / N;
        let mut fitted = [0.0; 16];
        (0..parts).for_each(|p| fitted[p] = self.part::<N>(p).scale::<L>());
        let largest = fitted.iter().fold(0.0f32, |max, &s| if s.abs() > max.abs() { s } else { max });
        let mut d = stored(largest / low);
        let mut best = Scaled { d: 0.0, scales: [0.0; 16], values: [0.0; 256] };
        let mut least = f32::INFINITY;
        for _ in 0..TURNS {
            let (mut scales, mut values, mut error) = ([0.0; 16], [0.0; 256], 0.0);
            for p in 0..parts {
                let part = self.part::<N>(p);
                let near = if d == 0.0 { 0.0 } else { (fitted[p] / d).clamp(low, high).round() };
                let candidates = [near, near - 1.0, near + 1.0, 0.0].map(|s| s.clamp(low, high));
                let errors = candidates.map(|s| (part.scale_error::<L>(d * s), s));
                let (part_error, s) =
                    errors.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
                (scales[p], error) = (s, error + part_error);
                values[p * N..][..N].copy_from_slice(&part.values::<L>(d * s));
            }
            if error >= least {
                break;
            }
            (best, least) = (Scaled { d, scales, values }, error);
            let a: [f32; 256] = std::array::from_fn(|i| scales[i / N] * values[i]);
            let wa: [f32; 256] = std::array::from_fn(|i| self.w[i] * a[i]);
            let aa = dot(&wa, &a);
            if aa <= 0.0 {
                break;
            }
            d = stored(dot(&wa, self.x) / aa);
        }
        best
    }

    /// Fits parts of `N` codes from 0 to `top`; their scales and minima are integers from 0 to `most`.
    fn affine<const N: usize>(&self, top: f32, most: f32) -> Affine {
        let parts = 256 / N;
        let mut fitted = [(0.0f32, 0.0f32); 16];
        (0..parts).for_each(|p| {
            let (step, low) = self.part::<N>(p).affine(top, true);
            fitted[p] = (step, -low);
        });
        let largest = fitted.iter().fold((0.0f32, 0.0f32), |max, f| (max.0.max(f.0), max.1.max(f.1)));
        let (mut d, mut dmin) = (stored(largest.0 / most), stored(largest.1 / most));
        let mut best = Affine { d: 0.0, dmin: 0.0, scales: [0; 16], mins: [0; 16] };
        let mut least = f32::INFINITY;
        for _ in 0..TURNS {
            let near = |v: f32, d: f32| if d == 0.0 { 0.0 } else { round((v / d).clamp(0.0, most)) };
            let (mut scales, mut mins, mut error) = ([0; 16], [0; 16], 0.0);
            let (mut saa, mut sab, mut sbb, mut sxa, mut sxb) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for p in 0..parts {
                let part = self.part::<N>(p);
                let (s, m) = (near(fitted[p].0, d), near(fitted[p].1, dmin));
                // Without codes the error is the sum of squares.
                let mut found = (part.affine_error(0.0, 0.0, top), 0.0, 0.0);
                for s in [s, s - 1.0, s + 1.0] {
                    for m in [m, m - 1.0, m + 1.0] {
                        if s < 0.0 || s > most || m < 0.0 || m > most {
                            continue;
                        }
                        let error = part.affine_error(d * s, -dmin * m, top);
                        if error < found.0 {
                            found = (error, s, m);
                        }
                    }
                }
                let (part_error, s, m) = found;
                (scales[p], mins[p], error) = (s as u8, m as u8, error + part_error);
                let q = part.codes(d * s, -dmin * m, top);
                let wq: [f32; N] = std::array::from_fn(|i| part.w[i] * q[i]);
                let sw: f32 = part.w.iter().sum();
                let swx = dot(part.w, part.x);
                saa += s * s * dot(&wq, &q);
                sab += s * m * wq.iter().sum::<f32>();
                sbb += m * m * sw;
                sxa += s * dot(&wq, part.x);
                sxb += m * swx;
            }
            if error >= least {
                break;
            }
            (best, least) = (Affine { d, dmin, scales, mins }, error);
            // Minimize the error of x = d a - dmin b.
            let det = saa * sbb - sab * sab;
            (d, dmin) = if det > 1e-6 * saa * sbb {
                ((sxa * sbb - sxb * sab) / det, (sxa * sab - sxb * saa) / det)
            } else if saa > 0.0 {
                (sxa / saa, 0.0)
            } else {
                break;
            };
            if !(d >= 0.0 && dmin >= 0.0) {
                break;
            }
            (d, dmin) = (stored(d), stored(dmin));
        }
        best
    }

    /// The codes of a fitted block.
    fn codes<const N: usize>(&self, fit: &Affine, top: f32) -> [u8; 256] {
        let mut codes = [0; 256];
        for p in 0..256 / N {
            let (step, low) = (fit.d * fit.scales[p] as f32, -fit.dmin * fit.mins[p] as f32);
            let part = self.part::<N>(p).codes(step, low, top);
            codes[p * N..][..N].iter_mut().zip(part).for_each(|(code, q)| *code = q as u8);
        }
        codes
    }
}

/// Number `i` of Q2_K and Q3_K lies in bits `2 (i / 32 % 4)` of byte `32 (i / 128) + i % 32`.
fn put_two_bits(out: &mut [u8], codes: impl Fn(usize) -> u8) {
    for i in 0..256 {
        out[i / 128 * 32 + i % 32] |= codes(i) << (i / 32 % 4 * 2);
    }
}

/// Scales and minima of Q4_K and Q5_K, 6 bits each in 12 bytes.
fn put_scales_and_mins(out: &mut [u8], fit: &Affine) {
    for s in 0..8 {
        let (scale, min) = (fit.scales[s], fit.mins[s]);
        if s < 4 {
            out[s] |= scale;
            out[s + 4] |= min;
        } else {
            out[s + 4] |= scale & 15 | min << 4;
            out[s - 4] |= scale >> 4 << 6;
            out[s] |= min >> 4 << 6;
        }
    }
}

pub(super) fn q2_k(block: Super<'_>, out: &mut [u8]) {
    let fit = block.affine::<16>(3.0, 15.0);
    let codes = block.codes::<16>(&fit, 3.0);
    for (s, out) in out[..16].iter_mut().enumerate() {
        *out = fit.scales[s] | fit.mins[s] << 4;
    }
    put_two_bits(&mut out[16..], |i| codes[i]);
    put_half(out, 80, fit.d);
    put_half(out, 82, fit.dmin);
}

pub(super) fn q3_k(block: Super<'_>, out: &mut [u8]) {
    let fit = block.scaled::<Integers<-4, 3>, 16>(-32.0, 31.0);
    let code = |i: usize| (fit.values[i] as i32 + 4) as u8;
    for i in 0..256 {
        out[i % 32] |= (code(i) >> 2) << (i / 32);
    }
    put_two_bits(&mut out[32..], |i| code(i) & 3);
    for s in 0..16 {
        let scale = (fit.scales[s] as i32 + 32) as u8;
        out[96 + s % 8] |= (scale & 15) << (s / 8 * 4);
        out[104 + s % 4] |= (scale >> 4) << (s / 4 * 2);
    }
    put_half(out, 108, fit.d);
}

pub(super) fn q4_k(block: Super<'_>, out: &mut [u8]) {
    let fit = block.affine::<32>(15.0, 63.0);
    let codes = block.codes::<32>(&fit, 15.0);
    put_half(out, 0, fit.d);
    put_half(out, 2, fit.dmin);
    put_scales_and_mins(&mut out[4..16], &fit);
    for i in 0..256 {
        out[16 + i / 64 * 32 + i % 32] |= codes[i] << (i / 32 % 2 * 4);
    }
}

pub(super) fn q5_k(block: Super<'_>, out: &mut [u8]) {
    let fit = block.affine::<32>(31.0, 63.0);
    let codes = block.codes::<32>(&fit, 31.0);
    put_half(out, 0, fit.d);
    put_half(out, 2, fit.dmin);
    put_scales_and_mins(&mut out[4..16], &fit);
    for i in 0..256 {
        out[16 + i % 32] |= (codes[i] >> 4) << (i / 32);
        out[48 + i / 64 * 32 + i % 32] |= (codes[i] & 15) << (i / 32 % 2 * 4);
    }
}

pub(super) fn q6_k(block: Super<'_>, out: &mut [u8]) {
    let fit = block.scaled::<Integers<-32, 31>, 16>(-128.0, 127.0);
    for i in 0..256 {
        let code = (fit.values[i] as i32 + 32) as u8;
        // Halves of 128: 64 bytes of low nibbles, 32 of high pairs of bits.
        let (half, j) = (i / 128, i % 128);
        out[half * 64 + j % 64] |= (code & 15) << (j / 64 * 4);
        out[128 + half * 32 + j % 32] |= (code >> 4) << (j / 32 * 2);
    }
    for s in 0..16 {
        out[192 + s] = (fit.scales[s] as i8).cast_unsigned();
    }
    put_half(out, 208, fit.d);
}

pub(super) fn iq4_xs(block: Super<'_>, out: &mut [u8]) {
    let fit = block.scaled::<Iq4, 32>(-32.0, 31.0);
    put_half(out, 0, fit.d);
    let mut high = 0u16;
    for s in 0..8 {
        let scale = (fit.scales[s] as i32 + 32) as u8;
        out[4 + s / 2] |= (scale & 15) << (s % 2 * 4);
        high |= u16::from(scale >> 4) << (2 * s);
        put_nibbles(&mut out[8 + 16 * s..], |i| iq4_code(fit.values[32 * s + i]));
    }
    out[2..4].copy_from_slice(&high.to_le_bytes());
}
