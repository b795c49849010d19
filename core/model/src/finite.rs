//! Finds NaN and infinity in weights.

use realm_gguf::TensorType;

/// Returns the first block of `data`, whole blocks of `ty`, that holds NaN or an infinity. Codes are valid
/// whatever their bits, so only the scales of a block of codes are read.
pub(crate) fn first_not_finite(ty: TensorType, data: &[u8]) -> Option<usize> {
    const HALF: u16 = 0x7c00;
    // Positions of the 16-bit floats in a block.
    let scales: &[usize] = match ty {
        TensorType::F32 | TensorType::Q8_K => {
            let finite = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite();
            return data.chunks_exact(ty.block_bytes()).position(|block| !finite(block));
        }
        TensorType::F16 => return first_half(data, HALF),
        TensorType::BF16 => return first_half(data, 0x7f80),
        TensorType::Q4_0
        | TensorType::Q5_0
        | TensorType::Q8_0
        | TensorType::Q1_0
        | TensorType::Q2_0
        | TensorType::IQ4_NL
        | TensorType::IQ4_XS
        | TensorType::IQ2_XXS
        | TensorType::IQ2_XS
        | TensorType::IQ2_S
        | TensorType::IQ3_XXS
        | TensorType::IQ3_S
        | TensorType::IQ1_S => &[0],
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
        TensorType::Q2_K => &[80, 82],
        TensorType::Q3_K => &[108],
        TensorType::Q6_K => &[208],
        TensorType::TQ1_0 => &[52],
        TensorType::TQ2_0 => &[64],
        // The exponent's bits are in the upper halves of the last two of four 16-bit numbers.
        TensorType::IQ1_M => {
            let finite = |b: &[u8]| b[53] & 0xc0 != 0xc0 || b[55] & 0x70 != 0x70;
            return data.chunks_exact(ty.block_bytes()).position(|block| !finite(block));
        }
        // With a larger exponent the largest code, 6, is infinite.
        TensorType::MXFP4 => {
            return data.chunks_exact(ty.block_bytes()).position(|block| block[0] > 252);
        }
        TensorType::NVFP4 => return None,
    };
    let finite = |block: &[u8], at: usize| u16::from_le_bytes([block[at], block[at + 1]]) & HALF != HALF;
    data.chunks_exact(ty.block_bytes()).position(|block| !scales.iter().all(|&at| finite(block, at)))
}

/// Returns the first 16-bit float in which all bits of `exponent` are set. Works in pieces, so that the
/// compiler compares several at once.
fn first_half(data: &[u8], exponent: u16) -> Option<usize> {
    const PIECE: usize = 256;
    let bad = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & exponent == exponent;
    let piece = data
        .chunks(PIECE)
        .position(|piece| piece.chunks_exact(2).fold(false, |any, half| any | bad(half)))?;
    let start = piece * PIECE / 2;
    data[piece * PIECE..].chunks_exact(2).position(bad).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use realm_compute::quant::dequantize;

    use super::*;

    /// Sets each 16-bit place of a block to infinity: the search finds it if and only if it makes a weight
    /// NaN or infinite.
    #[test]
    fn scales_are_where_they_are_looked_for() {
        use TensorType::*;
        // Those whose scales are a 16-bit float or a 32-bit one.
        for ty in TensorType::ALL.into_iter().filter(|ty| ![IQ1_M, MXFP4, NVFP4].contains(ty)) {
            let size = ty.block_bytes();
            let infinity: &[u8] = match ty {
                BF16 => &[0x80, 0x7f],
                F32 | Q8_K => &[0, 0, 0x80, 0x7f],
                _ => &[0, 0x7c],
            };
            for at in (0..=size - infinity.len()).step_by(2) {
                // Codes and small scales that are not 0, so that an infinite scale shows in the weights.
                let mut data = vec![0x11; 3 * size];
                assert_eq!(first_not_finite(ty, &data), None, "{ty}");
                data[size + at..][..infinity.len()].copy_from_slice(infinity);
                let mut values = vec![0.0; 3 * ty.block_len()];
                dequantize(ty, &data, &mut values).unwrap();
                let bad = values.iter().position(|v| !v.is_finite()).map(|value| value / ty.block_len());
                assert_eq!(first_not_finite(ty, &data), bad, "{ty} at {at}");
            }
        }
    }

    /// As above, for every value of each byte where it is not only a part of a code.
    #[test]
    fn other_scales_are_read_too() {
        use TensorType::*;
        for (ty, code, bytes) in [(IQ1_M, 0x77, 48..56), (MXFP4, 0x77, 0..1), (NVFP4, 0x77, 0..4)] {
            for (at, byte) in bytes.flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                let mut data = vec![code; 3 * ty.block_bytes()];
                data[ty.block_bytes() + at] = byte;
                let mut values = vec![0.0; 3 * ty.block_len()];
                dequantize(ty, &data, &mut values).unwrap();
                let bad = values.iter().position(|v| !v.is_finite()).map(|value| value / ty.block_len());
                assert_eq!(first_not_finite(ty, &data), bad, "{ty}: {byte} at {at}");
            }
        }
    }
}
