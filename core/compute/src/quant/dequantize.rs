//! Converts blocks to floats.

use half::{bf16, f16};
use realm_gguf::TensorType;

use super::iq;
use crate::Error;

/// The 16 values of IQ4_NL and IQ4_XS, in units of the block's scale.
const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the 16 values of E2M1, the 4-bit floats of MXFP4 and NVFP4.
const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Turns `data`, whole blocks of `ty`, into floats. `out` must have exactly as many numbers as the blocks.
pub fn dequantize(ty: TensorType, data: &[u8], out: &mut [f32]) -> Result<(), Error> {
    let blocks = data.len() / ty.block_bytes();
    if !data.len().is_multiple_of(ty.block_bytes()) || out.len() != blocks * ty.block_len() {
        let (bytes, len) = (data.len(), out.len());
        return Err(Error::InvalidArgument(format!("{bytes} bytes of {ty} do not make {len} numbers")));
    }
    let block = match ty {
        TensorType::F32 => |b: &[u8], out: &mut [f32]| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        TensorType::F16 => |b: &[u8], out: &mut [f32]| out[0] = half(b, 0),
        TensorType::BF16 => |b: &[u8], out: &mut [f32]| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        TensorType::Q4_0 => |b: &[u8], out: &mut [f32]| {
            let d = half(b, 0);
            nibbles(&b[2..], |i, q| out[i] = d * (q as f32 - 8.0));
        },
        TensorType::Q4_1 => |b: &[u8], out: &mut [f32]| {
            let (d, m) = (half(b, 0), half(b, 2));
            nibbles(&b[4..], |i, q| out[i] = d * q as f32 + m);
        },
        TensorType::Q5_0 => |b: &[u8], out: &mut [f32]| {
            let (d, high) = (half(b, 0), u32::from_le_bytes([b[2], b[3], b[4], b[5]]));
            nibbles(&b[6..], |i, q| out[i] = d * ((q as u32 | (high >> i & 1) << 4) as f32 - 16.0));
        },
        TensorType::Q5_1 => |b: &[u8], out: &mut [f32]| {
            let (d, m, high) = (half(b, 0), half(b, 2), u32::from_le_bytes([b[4], b[5], b[6], b[7]]));
            nibbles(&b[8..], |i, q| out[i] = d * (q as u32 | (high >> i & 1) << 4) as f32 + m);
        },
        TensorType::Q8_0 => |b: &[u8], out: &mut [f32]| {
            let d = half(b, 0);
            out.iter_mut().zip(&b[2..]).for_each(|(out, &q)| *out = d * q as i8 as f32);
        },
        TensorType::Q8_K => |b: &[u8], out: &mut [f32]| {
            let d = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            out.iter_mut().zip(&b[4..]).for_each(|(out, &q)| *out = d * q as i8 as f32);
        },
        TensorType::IQ4_NL => |b: &[u8], out: &mut [f32]| {
            let d = half(b, 0);
            nibbles(&b[2..], |i, q| out[i] = d * IQ4_VALUES[q as usize] as f32);
        },
        TensorType::IQ4_XS => iq4_xs,
        TensorType::IQ2_XXS => iq::iq2_xxs,
        TensorType::IQ2_XS => iq::iq2_xs,
        TensorType::IQ2_S => iq::iq2_s,
        TensorType::IQ3_XXS => iq::iq3_xxs,
        TensorType::IQ3_S => iq::iq3_s,
        TensorType::IQ1_S => iq::iq1_s,
        TensorType::IQ1_M => iq::iq1_m,
        TensorType::TQ1_0 => tq1_0,
        TensorType::TQ2_0 => |b: &[u8], out: &mut [f32]| {
            let d = half(b, 64);
            out.iter_mut().enumerate().for_each(|(i, out)| *out = d * (two_bits(b, i) as f32 - 1.0));
        },
        TensorType::MXFP4 => |b: &[u8], out: &mut [f32]| {
            let d = half_power(b[0]);
            nibbles(&b[1..], |i, q| out[i] = d * FP4_VALUES[q as usize] as f32);
        },
        TensorType::NVFP4 => |b: &[u8], out: &mut [f32]| {
            for (s, out) in out.chunks_exact_mut(16).enumerate() {
                let d = half_e4m3(b[s]);
                for (i, &q) in b[4 + 8 * s..][..8].iter().enumerate() {
                    out[i] = d * FP4_VALUES[q as usize & 15] as f32;
                    out[i + 8] = d * FP4_VALUES[q as usize >> 4] as f32;
                }
            }
        },
        TensorType::Q1_0 => |b: &[u8], out: &mut [f32]| {
            let d = half(b, 0);
            let bit = |i: usize| b[2 + i / 8] >> (i % 8) & 1;
            out.iter_mut().enumerate().for_each(|(i, out)| *out = if bit(i) == 1 { d } else { -d });
        },
        TensorType::Q2_0 => |b: &[u8], out: &mut [f32]| {
            let d = half(b, 0);
            let code = |i: usize| b[2 + i / 4] >> (i % 4 * 2) & 3;
            out.iter_mut().enumerate().for_each(|(i, out)| *out = (code(i) as f32 - 1.0) * d);
        },
        TensorType::Q2_K => q2_k,
        TensorType::Q3_K => q3_k,
        TensorType::Q4_K => q4_k,
        TensorType::Q5_K => q5_k,
        TensorType::Q6_K => q6_k,
    };
    for (data, out) in data.chunks_exact(ty.block_bytes()).zip(out.chunks_exact_mut(ty.block_len())) {
        block(data, out);
    }
    Ok(())
}

pub(super) fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// 16 bytes: numbers 0 to 15 in the low nibbles, 16 to 31 in the high ones.
fn nibbles(b: &[u8], mut each: impl FnMut(usize, u8)) {
    for (i, &b) in b[..16].iter().enumerate() {
        each(i, b & 15);
        each(i + 16, b >> 4);
    }
}

/// Half of the power of two that the exponent `e` of MXFP4 means, `2^(e - 128)`.
fn half_power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e as u32 - 1) << 23 })
}

/// Half of the number that the scale `x` of NVFP4 means: 4 bits of exponent, 3 of mantissa; the sign is not
/// used, and NaN is 0, as in ggml.
fn half_e4m3(x: u8) -> f32 {
    let (exponent, mantissa) = (x >> 3 & 15, (x & 7) as f32);
    match exponent {
        _ if x == 0x7f => 0.0,
        0 => mantissa / 1024.0,
        _ => (8.0 + mantissa) * f32::from_bits((127 + exponent as u32 - 11) << 23),
    }
}

/// The number `i` of TQ1_0 is a digit of base 3, the first after the point, of a byte times a power of 3:
/// five of each of 32 bytes, five of each of 16, four of each of 4.
fn tq1_0(b: &[u8], out: &mut [f32]) {
    let d = half(b, 52);
    for (i, out) in out.iter_mut().enumerate() {
        let (byte, digit) = match i {
            0..160 => (i % 32, i / 32),
            160..240 => (32 + i % 16, (i - 160) / 16),
            _ => (48 + i % 4, (i - 240) / 4),
        };
        let fraction = b[byte].wrapping_mul([1, 3, 9, 27, 81][digit]);
        *out = d * (((fraction as u16 * 3) >> 8) as f32 - 1.0);
    }
}

fn iq4_xs(b: &[u8], out: &mut [f32]) {
    let (d, high) = (half(b, 0), u16::from_le_bytes([b[2], b[3]]));
    for (s, out) in out.chunks_exact_mut(32).enumerate() {
        let low = b[4 + s / 2] >> (s % 2 * 4) & 15;
        let scale = (low as i32 | ((high >> (2 * s) & 3) as i32) << 4) - 32;
        nibbles(&b[8 + 16 * s..], |i, q| out[i] = d * scale as f32 * IQ4_VALUES[q as usize] as f32);
    }
}

/// Number `i` of Q2_K, Q3_K and TQ2_0 lies in bits `2 * (i / 32 % 4)` of byte `32 * (i / 128) + i % 32`.
fn two_bits(b: &[u8], i: usize) -> u8 {
    b[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
}

fn q2_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(b, 80), half(b, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let scale = b[i / 16];
        *out = d * (scale & 15) as f32 * two_bits(&b[16..], i) as f32 - dmin * (scale >> 4) as f32;
    }
}

fn q3_k(b: &[u8], out: &mut [f32]) {
    let d = half(b, 108);
    let packed = &b[96..108];
    for (i, out) in out.iter_mut().enumerate() {
        let s = i / 16;
        let low = packed[s % 8] >> (s / 8 * 4) & 15;
        let high = packed[8 + s % 4] >> (s / 4 * 2) & 3;
        let scale = (low | high << 4) as i32 - 32;
        // The high bit is stored inverted: set means that nothing is subtracted.
        let minus = if b[i % 32] >> (i / 32) & 1 == 1 { 0 } else { 4 };
        *out = d * scale as f32 * (two_bits(&b[32..], i) as i32 - minus) as f32;
    }
}

/// Scale and minimum `s` of Q4_K and Q5_K, 6 bits each in 12 bytes.
fn scale_min(b: &[u8], s: usize) -> (f32, f32) {
    let (scale, min) = if s < 4 {
        (b[s] & 63, b[s + 4] & 63)
    } else {
        (b[s + 4] & 15 | b[s - 4] >> 6 << 4, b[s + 4] >> 4 | b[s] >> 6 << 4)
    };
    (scale as f32, min as f32)
}

fn q4_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, min) = scale_min(&b[4..], i / 32);
        let q = b[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        *out = d * scale * q as f32 - dmin * min;
    }
}

fn q5_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, min) = scale_min(&b[4..], i / 32);
        let low = b[48 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        let high = b[16 + i % 32] >> (i / 32) & 1;
        *out = d * scale * (low | high << 4) as f32 - dmin * min;
    }
}

fn q6_k(b: &[u8], out: &mut [f32]) {
    let d = half(b, 208);
    for (i, out) in out.iter_mut().enumerate() {
        // Halves of 128: 64 bytes of low nibbles, 32 of high pairs of bits.
        let (half_, j) = (i / 128, i % 128);
        let low = b[half_ * 64 + j % 64] >> (j / 64 * 4) & 15;
        let high = b[128 + half_ * 32 + j % 32] >> (j / 32 * 2) & 3;
        *out = d * b[192 + i / 16] as i8 as f32 * ((low | high << 4) as i32 - 32) as f32;
    }
}
