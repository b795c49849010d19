//! Blocks of 32 numbers with a scale of their own: Q4_0 to Q8_0, IQ4_NL, MXFP4.

use half::f16;

use super::fit::Block;
use super::levels::{FP4, Fp4, IQ4, Integers, Iq4, Levels};

type Block32<'a> = Block<'a, 32>;

/// Writes a scale and returns its value as it is stored.
pub(super) fn put_half(out: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    out[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// Numbers 0 to 15 in the low nibbles, 16 to 31 in the high ones.
pub(super) fn put_nibbles(out: &mut [u8], codes: impl Fn(usize) -> u8) {
    for (i, out) in out[..16].iter_mut().enumerate() {
        *out = codes(i) | codes(i + 16) << 4;
    }
}

fn put_high_bits(out: &mut [u8], codes: &[u8; 32]) {
    let high = codes.iter().enumerate().fold(0u32, |high, (i, &code)| high | (code as u32 >> 4 & 1) << i);
    out[..4].copy_from_slice(&high.to_le_bytes());
}

/// Writes the block's scale to the beginning of `out` and returns the codes, counted from 0.
fn symmetric<const LOW: i32, const HIGH: i32>(block: Block32<'_>, out: &mut [u8]) -> [u8; 32] {
    let scale = put_half(out, 0, block.scale::<Integers<LOW, HIGH>>());
    block.values::<Integers<LOW, HIGH>>(scale).map(|v| (v as i32 - LOW) as u8)
}

/// Writes step and low end to the beginning of `out` and returns the codes.
fn affine(block: Block32<'_>, top: f32, out: &mut [u8]) -> [u8; 32] {
    let (step, low) = block.affine(top, false);
    let (step, low) = (put_half(out, 0, step), put_half(out, 2, low));
    block.codes(step, low, top).map(|code| code as u8)
}

pub(super) fn q4_0(block: Block32<'_>, out: &mut [u8]) {
    let codes = symmetric::<-8, 7>(block, out);
    put_nibbles(&mut out[2..], |i| codes[i]);
}

pub(super) fn q4_1(block: Block32<'_>, out: &mut [u8]) {
    let codes = affine(block, 15.0, out);
    put_nibbles(&mut out[4..], |i| codes[i]);
}

pub(super) fn q5_0(block: Block32<'_>, out: &mut [u8]) {
    let codes = symmetric::<-16, 15>(block, out);
    put_high_bits(&mut out[2..], &codes);
    put_nibbles(&mut out[6..], |i| codes[i] & 15);
}

pub(super) fn q5_1(block: Block32<'_>, out: &mut [u8]) {
    let codes = affine(block, 31.0, out);
    put_high_bits(&mut out[4..], &codes);
    put_nibbles(&mut out[8..], |i| codes[i] & 15);
}

pub(super) fn q8_0(block: Block32<'_>, out: &mut [u8]) {
    let codes = symmetric::<-127, 127>(block, out);
    out[2..34].iter_mut().zip(codes).for_each(|(out, code)| *out = code.wrapping_sub(127));
}

/// The code of a value of [`IQ4`].
pub(super) fn iq4_code(value: f32) -> u8 {
    IQ4.iter().take_while(|&&v| v < value).count() as u8
}

pub(super) fn iq4_nl(block: Block32<'_>, out: &mut [u8]) {
    let scale = put_half(out, 0, block.scale::<Iq4>());
    let values = block.values::<Iq4>(scale);
    put_nibbles(&mut out[2..], |i| iq4_code(values[i]));
}

/// The scale is a power of two, so few can be best: all near the one that spans the block are tried.
pub(super) fn mxfp4(block: Block32<'_>, out: &mut [u8]) {
    let largest = block.x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    // Half of `2^(e - 127)`, because the values are doubled.
    let scale = |e: i32| f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e as u32 - 1) << 23 });
    let spanning = (largest / Fp4::HIGH).max(f32::MIN_POSITIVE).log2().floor() as i32 + 128;
    let candidates = (spanning - 1..=spanning + 2).map(|e| e.clamp(0, 254));
    let errors = candidates.map(|e| (block.scale_error::<Fp4>(scale(e)), e));
    let e = errors.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(0, |(_, e)| e);
    out[0] = e as u8;
    let values = block.values::<Fp4>(scale(e));
    put_nibbles(&mut out[1..], |i| {
        let magnitude = FP4.iter().take_while(|&&v| v < values[i].abs()).count() as u8;
        if values[i] < 0.0 { magnitude | 8 } else { magnitude }
    });
}
