//! Compares decoded blocks with the gguf package for Python, bit for bit, and those of Q2_0, which it does
//! not know yet, with ggml.

use realm_compute::quant;
use realm_gguf::TensorType;

/// Hashes of the numbers in 64 blocks of any bytes, printed by `tests/reference/blocks.py`. The other types
/// are compared with candle, in `tests/candle`.
const HASHES: [(TensorType, u64); 15] = [
    (TensorType::IQ2_XXS, 0x114eaf056da55460),
    (TensorType::IQ2_XS, 0x9625ea2d903d7259),
    (TensorType::IQ2_S, 0xe3f29b61c10f46ec),
    (TensorType::IQ3_XXS, 0x6a9ecac4ecde3cb3),
    (TensorType::IQ3_S, 0xfe7a2e4325563e3a),
    (TensorType::IQ1_S, 0x24035683c02a7c92),
    (TensorType::IQ1_M, 0x5a8192ed2fd6b711),
    (TensorType::TQ1_0, 0x156552041513b663),
    (TensorType::TQ2_0, 0x9bcab54c7093fe02),
    (TensorType::MXFP4, 0xa83e94d7f64249dc),
    (TensorType::NVFP4, 0xebf511f79ad9084a),
    (TensorType::Q1_0, 0x900ef638024d9525),
    (TensorType::Q2_0, 0xc2dd272cfd78c70b),
    (TensorType::IQ4_NL, 0x437ec4334560a1fa),
    (TensorType::IQ4_XS, 0x4508785616f2d80f),
];

const BLOCKS: usize = 64;

/// The same bytes as in `blocks.py`.
fn any_bytes(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn blocks_of_any_bytes_decode_to_the_same_bits() {
    for (ty, wanted) in HASHES {
        let mut data = any_bytes(BLOCKS * ty.block_bytes());
        // The byte whose two upper bits are cleared, to keep a half float finite.
        let finite = match ty {
            TensorType::MXFP4 | TensorType::NVFP4 => None,
            TensorType::IQ1_M => Some(55),
            TensorType::TQ1_0 => Some(53),
            TensorType::TQ2_0 => Some(65),
            _ => Some(1),
        };
        if let Some(at) = finite {
            data.chunks_exact_mut(ty.block_bytes()).for_each(|block| block[at] &= 0x3f);
        }
        let mut values = vec![0.0; BLOCKS * ty.block_len()];
        quant::dequantize(ty, &data, &mut values).unwrap();
        let found = hash(values.iter().flat_map(|value| value.to_le_bytes()));
        assert_eq!(found, wanted, "{ty} begins with {:?}", &values[..16]);
    }
}
