//! What the tests of this crate share.

use half::f16;
use realm_compute::quant;
use realm_gguf::TensorType;

/// A small random number generator (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Roughly normal, by adding four uniform numbers.
    pub(crate) fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n)
            .map(|_| {
                let sum: f32 = (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum();
                sum * 1.7 * scale
            })
            .collect()
    }
}

/// Random blocks of `ty` for `len` numbers: any bits for codes, sane scales.
pub(crate) fn blocks(ty: TensorType, len: usize, random: &mut Random) -> Vec<u8> {
    if ty == TensorType::F32 {
        return random.floats(len, 1.0).iter().flat_map(|x| x.to_le_bytes()).collect();
    }
    let mut data: Vec<u8> =
        (0..len / ty.block_len() * ty.block_bytes()).map(|_| (random.next() >> 33) as u8).collect();
    // Where the f16 scales stand in a block.
    let scales: &[usize] = match ty {
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
        TensorType::Q2_K => &[80, 82],
        TensorType::Q3_K => &[108],
        TensorType::Q6_K => &[208],
        TensorType::Q8_K => &[],
        _ => &[0],
    };
    for block in data.chunks_exact_mut(ty.block_bytes()) {
        for &at in scales {
            let x = random.floats(1, 0.02)[0];
            let bits = match ty {
                TensorType::BF16 => half::bf16::from_f32(x).to_bits(),
                _ => f16::from_f32(x).to_bits(),
            };
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
        if ty == TensorType::Q8_K {
            block[..4].copy_from_slice(&random.floats(1, 0.02)[0].to_le_bytes());
        }
    }
    data
}

/// `x · wᵀ` in f64.
pub(crate) fn matrix_f64(ty: TensorType, data: &[u8], n: usize, k: usize, x: &[f32]) -> Vec<f64> {
    let mut w = vec![0.0; n * k];
    quant::dequantize(ty, data, &mut w).unwrap();
    let mut out = Vec::new();
    for x in x.chunks_exact(k) {
        for w in w.chunks_exact(k) {
            out.push(x.iter().zip(w).map(|(&x, &w)| x as f64 * w as f64).sum());
        }
    }
    out
}
