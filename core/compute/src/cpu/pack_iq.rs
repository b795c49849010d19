//! Reads blocks of the IQ types: the numbers of points of codebooks become indices of magnitudes with the
//! sign as a fourth bit, their scale an odd whole number.

use realm_gguf::TensorType;

use super::format::SUPER;
use super::pack::{Row, half};
use crate::quant::grids::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, even_signs};

fn word(b: &[u8], at: usize) -> u32 {
    half(b, at) as u32 | (half(b, at + 2) as u32) << 16
}

/// Reads a block into `row`, with `d` as the bits of an f32.
pub(super) fn read(ty: TensorType, b: &[u8], row: &mut Row) {
    // The unit of scales and numbers together, in `d`.
    let unit = match ty {
        TensorType::IQ3_XXS => 0.25,
        TensorType::IQ3_S => 1.0,
        _ => 0.125,
    };
    let mut d = half(b, 0);
    match ty {
        TensorType::IQ2_XXS => {
            for (s, b) in b[2..].chunks_exact(8).enumerate() {
                let signs = word(b, 4);
                row.sub_scales[s] = 2 * (signs >> 28) as u8 + 1;
                points(row, 4 * s, |i| with_signs(IQ2_XXS.eight(b[i].into()), even_signs(signs >> (7 * i))));
            }
        }
        TensorType::IQ3_XXS => {
            for (s, signs) in b[66..].chunks_exact(4).enumerate() {
                let (signs, b) = (word(signs, 0), &b[2 + 8 * s..]);
                row.sub_scales[s] = 2 * (signs >> 28) as u8 + 1;
                points(row, 4 * s, |i| {
                    let point = IQ3_XXS.fours([b[2 * i].into(), b[2 * i + 1].into()]);
                    with_signs(point, even_signs(signs >> (7 * i)))
                });
            }
        }
        TensorType::IQ2_XS => {
            odd_nibbles(&b[66..74], row);
            for s in 0..8 {
                points(row, 4 * s, |i| {
                    let code = half(b, 2 + 8 * s + 2 * i);
                    with_signs(IQ2_XS.eight((code & 511).into()), even_signs((code >> 9).into()))
                });
            }
        }
        TensorType::IQ2_S => {
            odd_nibbles(&b[74..82], row);
            for s in 0..8 {
                points(row, 4 * s, |i| {
                    let index = u16::from_le_bytes([b[2 + 4 * s + i], b[66 + s] >> (2 * i) & 3]);
                    with_signs(IQ2_S.eight(index.into()), b[34 + 4 * s + i])
                });
            }
        }
        TensorType::IQ3_S => {
            odd_nibbles(&b[106..110], row);
            for s in 0..8 {
                let index = |q: usize| u16::from_le_bytes([b[2 + 8 * s + q], b[66 + s] >> q & 1]) as usize;
                points(row, 4 * s, |i| {
                    with_signs(IQ3_S.fours([index(2 * i), index(2 * i + 1)]), b[74 + 4 * s + i])
                });
            }
        }
        TensorType::IQ1_S => {
            for s in 0..8 {
                let high = half(b, 34 + 2 * s);
                row.sub_scales[s] = 2 * (high >> 12 & 7) as u8 + 1;
                points(row, 4 * s, |i| {
                    let index = u16::from_le_bytes([b[2 + 4 * s + i], (high >> (3 * i) & 7) as u8]);
                    with_signs(IQ1.eight(index.into()), 0u8.wrapping_sub((high >> 15) as u8))
                });
            }
        }
        _ => {
            let shorts: [u16; 4] = std::array::from_fn(|i| half(b, 48 + 2 * i));
            d = (shorts[0] >> 12) | (shorts[1] >> 8 & 0xf0) | (shorts[2] >> 4 & 0xf00) | (shorts[3] & 0xf000);
            for (s, scale) in row.sub_scales.iter_mut().enumerate() {
                *scale = 2 * (shorts[s / 4] >> (s % 4 * 3) & 7) as u8 + 1;
            }
            for s in 0..8 {
                points(row, 4 * s, |i| {
                    let high = b[32 + 2 * s + i / 2] >> (i % 2 * 4);
                    let index = u16::from_le_bytes([b[4 * s + i], high & 7]);
                    with_signs(IQ1.eight(index.into()), 0u8.wrapping_sub(high >> 3 & 1))
                });
            }
        }
    }
    row.d = (half::f16::from_bits(d).to_f32() * unit).to_bits();
}

/// Writes four points, the first one number `first` of the row.
fn points(row: &mut Row, first: usize, point: impl Fn(usize) -> [u8; 8]) {
    debug_assert!(8 * first + 32 <= SUPER);
    for (i, codes) in row.codes[8 * first..][..32].chunks_exact_mut(8).enumerate() {
        codes.copy_from_slice(&point(i));
    }
}

/// Scales of 4 bits in halves.
fn odd_nibbles(b: &[u8], row: &mut Row) {
    for (pair, b) in row.sub_scales.chunks_exact_mut(2).zip(b) {
        pair.copy_from_slice(&[2 * (b & 15) + 1, 2 * (b >> 4) + 1]);
    }
}

/// Puts each number's sign, or the direction of its move, above its magnitude.
fn with_signs(which: [u8; 8], signs: u8) -> [u8; 8] {
    std::array::from_fn(|k| which[k] | (signs >> k & 1) << 3)
}
