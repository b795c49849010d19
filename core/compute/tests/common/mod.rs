//! Shared code of this crate's tests.

pub(crate) mod attention;
pub(crate) mod mixture;
pub(crate) mod options;

use half::f16;
use realm_compute::cpu::{CpuBackend, Isa};
use realm_compute::cuda::CudaBackend;
use realm_compute::{Backend, Error, MatMul, quant};
use realm_gguf::{Tensor, TensorInfo, TensorType};

/// A small random number generator (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns roughly normal numbers, each the sum of four uniform ones.
    pub(crate) fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n)
            .map(|_| {
                let sum: f32 = (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum();
                sum * 1.7 * scale
            })
            .collect()
    }
}

/// Returns random blocks of `ty` for `len` numbers: any bits for codes, moderate scales.
pub(crate) fn blocks(ty: TensorType, len: usize, random: &mut Random) -> Vec<u8> {
    if ty == TensorType::F32 {
        return random.floats(len, 1.0).iter().flat_map(|x| x.to_le_bytes()).collect();
    }
    let mut data: Vec<u8> =
        (0..len / ty.block_len() * ty.block_bytes()).map(|_| (random.next() >> 33) as u8).collect();
    // Positions of the f16 scales in a block.
    let scales: &[usize] = match ty {
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
        TensorType::Q2_K => &[80, 82],
        TensorType::Q3_K => &[108],
        TensorType::Q6_K => &[208],
        TensorType::TQ1_0 => &[52],
        TensorType::TQ2_0 => &[64],
        TensorType::Q8_K | TensorType::IQ1_M | TensorType::MXFP4 | TensorType::NVFP4 => &[],
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
        let x = if scales.is_empty() { random.floats(1, 0.02)[0] } else { 0.0 };
        match ty {
            TensorType::Q8_K => block[..4].copy_from_slice(&x.to_le_bytes()),
            // A nibble of the scale at the top of each of the last four 16-bit numbers.
            TensorType::IQ1_M => {
                let bits = f16::from_f32(x).to_bits();
                for (i, pair) in block[48..].chunks_exact_mut(2).enumerate() {
                    pair[1] = (pair[1] & 15) | ((bits >> (4 * i) & 15) as u8) << 4;
                }
            }
            TensorType::MXFP4 => block[0] = 118 + block[0] % 8,
            // 2^-9 to 2.
            TensorType::NVFP4 => block[..4].iter_mut().for_each(|scale| *scale &= 0xbf),
            _ => {}
        }
    }
    data
}

/// Computes `x · wᵀ` in f64.
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

/// Returns a backend for each instruction set of this processor.
pub(crate) fn backends() -> Vec<CpuBackend> {
    Isa::available().into_iter().map(|isa| CpuBackend::with_isa(2, isa).unwrap()).collect()
}

/// The first GPU, if there is one. Without one, a test says that it was skipped; with `REALM_NEEDS_GPU` in
/// the environment, it fails instead.
pub(crate) fn gpu() -> Option<CudaBackend> {
    match CudaBackend::new(0) {
        Ok(gpu) => Some(gpu),
        Err(Error::Unsupported(why)) if std::env::var_os("REALM_NEEDS_GPU").is_none() => {
            eprintln!("SKIPPED, for want of a GPU: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A buffer with given contents.
pub(crate) fn buffer<B: Backend>(b: &B, rows: usize, columns: usize, values: &[f32]) -> B::Buffer {
    // The only way to fill a buffer is an embedding: a float table whose rows are the wanted ones.
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let info = TensorInfo::new("x", vec![columns as u64, rows as u64], TensorType::F32).unwrap();
    let table = b.matrix(&Tensor { info: &info, data: &bytes }).unwrap();
    let mut out = b.buffer(rows, columns).unwrap();
    b.embed(&table, &(0..rows as u32).collect::<Vec<_>>(), 1.0, &mut out).unwrap();
    out
}

/// Returns the contents of a buffer.
pub(crate) fn contents<B: Backend>(b: &B, buffer: &B::Buffer) -> Vec<f32> {
    let mut out = Vec::new();
    b.read(buffer, &mut out).unwrap();
    out
}

/// Computes `x · wᵀ` with our kernels, `[rows, n]`.
pub(crate) fn product<B: Backend>(
    b: &B,
    ty: TensorType,
    data: &[u8],
    n: usize,
    k: usize,
    x: &[f32],
) -> Vec<f32> {
    let info = TensorInfo::new("w", vec![k as u64, n as u64], ty).unwrap();
    let weight = b.matrix(&Tensor { info: &info, data }).unwrap();
    let rows = x.len() / k;
    let x = buffer(b, rows, k, x);
    let mut out = b.buffer(rows, n).unwrap();
    b.matmul(&x, &mut [MatMul { weight: &weight, bias: None, out: &mut out, accumulate: false, lora: &[] }])
        .unwrap();
    contents(b, &out)
}

/// `|got - want| / |want|`, both as vectors.
pub(crate) fn relative_error<T: Copy + Into<f64>>(got: &[f32], want: &[T]) -> f64 {
    assert_eq!(got.len(), want.len());
    let (mut error, mut norm) = (0.0, 0.0);
    for (&got, &want) in got.iter().zip(want) {
        let want: f64 = want.into();
        error += (got as f64 - want).powi(2);
        norm += want * want;
    }
    (error / norm).sqrt()
}
