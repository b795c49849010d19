//! The types whose codes are indices into codebooks ([`super::grids`]): 8 numbers at a time, with signs, or
//! with a shift, beside them.

use half::f16;

use super::dequantize::half;
use super::grids::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, even_signs};

/// The magnitudes of the codebooks.
const THREE: [i8; 8] = [8, 25, 43, 0, 0, 0, 0, 0];
const EIGHT: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const ODD: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn short(b: &[u8], at: usize) -> usize {
    u16::from_le_bytes([b[at], b[at + 1]]) as usize
}

/// Nibble `i` of `b`.
fn nibble(b: &[u8], i: usize) -> u8 {
    b[i / 2] >> (i % 2 * 4) & 15
}

/// Writes all groups of 8 numbers; `group` returns a group's scale and numbers.
fn groups(out: &mut [f32], group: impl Fn(usize) -> (f32, [i8; 8])) {
    for (g, out) in out.chunks_exact_mut(8).enumerate() {
        let (scale, numbers) = group(g);
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = scale * number as f32;
        }
    }
}

/// Looks magnitudes up and negates those whose sign is set.
fn signed(magnitudes: [i8; 8], which: [u8; 8], signs: u8) -> [i8; 8] {
    std::array::from_fn(|k| {
        let magnitude = magnitudes[which[k] as usize];
        if signs >> k & 1 == 1 { -magnitude } else { magnitude }
    })
}

/// For each 32 numbers 4 bytes of indices, then 4 × 7 bits of signs and a scale of 4 bits.
pub(super) fn iq2_xxs(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    groups(out, |g| {
        let (at, signs) = (2 + g / 4 * 8, word(b, 6 + g / 4 * 8));
        let which = IQ2_XXS.eight(b[at + g % 4] as usize);
        (d * (0.5 + (signs >> 28) as f32) * 0.25, signed(THREE, which, even_signs(signs >> (g % 4 * 7))))
    });
}

/// For each 8 numbers 9 bits of an index and 7 of signs; then a scale of 4 bits for each 16 numbers.
pub(super) fn iq2_xs(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    groups(out, |g| {
        let code = short(b, 2 + 2 * g);
        let which = IQ2_XS.eight(code & 511);
        let scale = d * (0.5 + nibble(&b[66..], g / 2) as f32) * 0.25;
        (scale, signed(THREE, which, even_signs(code as u32 >> 9)))
    });
}

/// 32 bytes of the indices' low bits, 32 of signs, 8 of high bits, 8 of scales.
pub(super) fn iq2_s(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    groups(out, |g| {
        let high = (b[66 + g / 4] >> (g % 4 * 2) & 3) as usize;
        let which = IQ2_S.eight(b[2 + g] as usize | high << 8);
        (d * (0.5 + nibble(&b[74..], g / 2) as f32) * 0.25, signed(THREE, which, b[34 + g]))
    });
}

/// 64 bytes of indices, then for each 32 numbers signs and a scale, as in IQ2_XXS.
pub(super) fn iq3_xxs(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    groups(out, |g| {
        let signs = word(b, 66 + g / 4 * 4);
        let which = IQ3_XXS.fours([b[2 + 2 * g] as usize, b[3 + 2 * g] as usize]);
        (d * (0.5 + (signs >> 28) as f32) * 0.5, signed(EIGHT, which, even_signs(signs >> (g % 4 * 7))))
    });
}

/// 64 bytes of the indices' low bits, 8 of high ones, 32 of signs, and a scale of 4 bits for each 32 numbers.
pub(super) fn iq3_s(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    groups(out, |g| {
        let index = |q: usize| b[2 + q] as usize | ((b[66 + q / 8] >> (q % 8) & 1) as usize) << 8;
        let which = IQ3_S.fours([index(2 * g), index(2 * g + 1)]);
        (d * (1 + 2 * nibble(&b[106..], g / 4)) as f32, signed(ODD, which, b[74 + g]))
    });
}

/// A point of -1, 0 and 1, moved by an eighth up or down, in eighths.
fn moved(index: usize, down: bool) -> [i8; 8] {
    IQ1.eight(index).map(|which| 8 * (which as i8 - 1) + if down { -1 } else { 1 })
}

/// 32 bytes of the indices' low bits, then for each 32 numbers 4 × 3 high bits, a scale of 3 bits and the
/// direction of the move.
pub(super) fn iq1_s(b: &[u8], out: &mut [f32]) {
    let d = half(b, 0);
    groups(out, |g| {
        let high = short(b, 34 + g / 4 * 2);
        let index = b[2 + g] as usize | (high >> (g % 4 * 3) & 7) << 8;
        (d * (2 * (high >> 12 & 7) + 1) as f32 * 0.125, moved(index, high >> 15 == 1))
    });
}

/// 32 bytes of the indices' low bits; a nibble for each 8 numbers, 3 high bits and the direction; and four
/// 16-bit numbers, each four scales of 3 bits and 4 bits of the block's scale.
pub(super) fn iq1_m(b: &[u8], out: &mut [f32]) {
    let d = (0..4).fold(0, |d, i| d | (short(b, 48 + 2 * i) >> 12) << (4 * i));
    let d = f16::from_bits(d as u16).to_f32();
    groups(out, |g| {
        let (high, s) = (nibble(&b[32..], g) as usize, g / 2);
        let scale = short(b, 48 + s / 4 * 2) >> (s % 4 * 3) & 7;
        (d * (2 * scale + 1) as f32 * 0.125, moved(b[g] as usize | (high & 7) << 8, high & 8 != 0))
    });
}
