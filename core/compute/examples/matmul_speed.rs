//! Measures the speed of matrix products by weight type and number of rows.
//!
//!     cargo run --release -p realm-compute --example matmul_speed [THREADS] [OUTPUTS INPUTS]
//!
//! Prints billions of operations (a multiply and an add count as two) and of weight bytes a second, best of
//! several runs (other processes only ever slow a run down), over matrices that together exceed the caches.
//! The variable `ONLY` names the one type to measure, `REALM_CPU` the instruction set.

use std::time::Instant;

use realm_compute::cpu::CpuBackend;
use realm_compute::{Backend, MatMul};
use realm_gguf::{Tensor, TensorInfo, TensorType};

/// Rows of activations: decoding one sequence, decoding several together, a prompt.
const ROWS: [usize; 5] = [1, 4, 8, 16, 512];

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let threads = args.first().copied().unwrap_or(2);
    let (n, k) = (args.get(1).copied().unwrap_or(1536), args.get(2).copied().unwrap_or(1536));
    let b = CpuBackend::new(threads).expect("a backend");
    println!("{}, {n} x {k}", b.description());
    print!("{:8} {:>10}", "type", "1: GB/s");
    ROWS[1..].iter().for_each(|rows| print!(" {:>10}", format!("{rows}: GOP/s")));
    println!();
    let info = TensorInfo::new("x", vec![k as u64, 512], TensorType::F32).expect("a shape");
    let values: Vec<u8> =
        (0..512 * k).flat_map(|i| ((i * 7919 % 1013) as f32 / 500.0 - 1.0).to_le_bytes()).collect();
    let table = b.matrix(&Tensor { info: &info, data: &values }).expect("a table");
    let only = std::env::var("ONLY").ok();
    for ty in TensorType::ALL.into_iter().filter(|t| only.as_ref().is_none_or(|o| *o == t.to_string())) {
        let bytes = n * k / ty.block_len() * ty.block_bytes();
        // Enough copies that weights come from memory, not from a cache.
        let copies = (96 << 20) / bytes + 1;
        let info = TensorInfo::new("w", vec![k as u64, n as u64], ty).expect("a shape");
        let mut data: Vec<u8> = (0..bytes).map(|i| (i * 31 % 61) as u8).collect();
        if ty == TensorType::MXFP4 {
            // Small exponents would make numbers subnormal, which is slow.
            data.iter_mut().step_by(ty.block_bytes()).for_each(|exponent| *exponent += 90);
        }
        let weights: Vec<_> =
            (0..copies).map(|_| b.matrix(&Tensor { info: &info, data: &data }).expect("a matrix")).collect();
        print!("{:8}", ty.to_string());
        for rows in ROWS {
            let mut x = b.buffer(rows, k).expect("a buffer");
            let mut out = b.buffer(rows, n).expect("a buffer");
            b.embed(&table, &(0..rows as u32).collect::<Vec<_>>(), 1.0, &mut x).expect("rows");
            let used = copies.min((copies * 2 / rows).max(2));
            let seconds = (0..7)
                .map(|_| {
                    let start = Instant::now();
                    for weight in &weights[..used] {
                        let job = MatMul { weight, bias: None, out: &mut out, accumulate: false, lora: &[] };
                        b.matmul(&x, &mut [job]).expect("a product");
                    }
                    start.elapsed().as_secs_f64() / used as f64
                })
                .fold(f64::INFINITY, f64::min);
            let rate = if rows == 1 { bytes as f64 } else { 2.0 * (n * k * rows) as f64 } / seconds / 1e9;
            print!(" {rate:10.1}");
        }
        println!();
    }
}
