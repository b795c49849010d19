//! Measures the speed of the GPU's matrix products:
//!
//!     cargo run --release -p realm-compute --example cuda_speed [type ...] [shape ...]
//!
//! For the matrices of a 7B model (or the shapes named, such as `4096x11008`) and several numbers of rows,
//! prints microseconds, bytes of weights a second (the limit for few rows) and operations a second (the limit
//! for many rows). Matrices take turns so that the GPU's cache does not hold them.

use realm_compute::cuda::CudaBackend;
use realm_compute::{Backend, Error, MatMul};
use realm_gguf::{Tensor, TensorInfo, TensorType};

const ROWS: [usize; 9] = [1, 4, 8, 16, 32, 64, 128, 512, 2048];
const SHAPES: [(usize, usize); 4] = [(4096, 4096), (12_288, 4096), (22_016, 4096), (4096, 11_008)];

fn main() -> Result<(), Error> {
    let (shapes, names): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|name| name.contains('x'));
    let b = CudaBackend::new(0)?;
    println!("{}", b.description());
    for ty in TensorType::ALL {
        if !names.is_empty() && !names.contains(&ty.to_string()) {
            continue;
        }
        for (n, k) in SHAPES {
            if !shapes.is_empty() && !shapes.contains(&format!("{n}x{k}")) {
                continue;
            }
            let bytes = n * k / ty.block_len() * ty.block_bytes();
            let mut state = 1u64;
            let mut data: Vec<u8> = (0..bytes)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            // Random bytes also land in the f16 scales; clear the top bits so that every number stays finite.
            data.chunks_exact_mut(2).for_each(|pair| pair[1] &= 0x3f);
            let info = TensorInfo::new("w", vec![k as u64, n as u64], ty).expect("a tensor of this shape");
            let count = (400_000_000 / bytes).clamp(2, 40);
            let matrices = (0..count)
                .map(|_| b.matrix(&Tensor { info: &info, data: &data }))
                .collect::<Result<Vec<_>, _>>()?;
            for rows in ROWS {
                let info = TensorInfo::new("x", vec![k as u64, rows as u64], TensorType::F32)
                    .expect("a tensor of this shape");
                let values: Vec<u8> = (0..rows * k)
                    .flat_map(|i| ((i * 7919 % 1013) as f32 / 500.0 - 1.0).to_le_bytes())
                    .collect();
                let table = b.matrix(&Tensor { info: &info, data: &values })?;
                let (mut x, mut out) = (b.buffer(rows, k)?, b.buffer(rows, n)?);
                b.embed(&table, &(0..rows as u32).collect::<Vec<_>>(), 1.0, &mut x)?;
                let mut round = || {
                    matrices.iter().try_for_each(|weight| {
                        b.matmul(
                            &x,
                            &mut [MatMul { weight, bias: None, out: &mut out, accumulate: false, lora: &[] }],
                        )
                    })
                };
                round()?;
                let mut times = Vec::new();
                for _ in 0..7 {
                    times.push(b.time(&mut round)? as f64 * 1e3 / count as f64);
                }
                times.sort_by(f64::total_cmp);
                let (us, bytes) = (times[3], bytes as f64);
                let operations = 2.0 * (n * k * rows) as f64;
                println!(
                    "{ty} {n}x{k} rows {rows}: {us:.1} us, {:.0} GB/s, {:.1} TOP/s",
                    bytes / us / 1e3,
                    operations / us / 1e6
                );
            }
        }
    }
    Ok(())
}
