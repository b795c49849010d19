//! Measures the speed of a mixture of experts beside dense products of as many weights.
//!
//!     cargo run --release -p realm-compute --example mixture_speed [THREADS] [HIDDEN INNER EXPERTS USED]
//!
//! For each type of weights and number of rows, prints a mixture and then a gated feed-forward network as
//! wide as a row's experts together, which reads as many bytes and does as many operations for one row: for
//! one row in billions of weight bytes a second, for more in billions of operations (a multiply and an add
//! count as two). Best of several runs (other processes only ever slow a run down), over layers that together
//! exceed the caches. The first line is the speed at which the threads read memory. The variable `ONLY` names
//! the one type to measure, `REALM_CPU` the instruction set.

use std::time::Instant;

use realm_compute::cpu::{Buffer, CpuBackend, Experts, Matrix};
use realm_compute::{Activation, Backend, Gating, MatMul, Mixture, Routing};
use realm_gguf::{Tensor, TensorInfo, TensorType};

/// Rows of activations: decoding one sequence, decoding several together, prompts.
const ROWS: [usize; 5] = [1, 4, 16, 64, 256];
/// Inputs of as many rows that take turns.
const INPUTS: usize = 16;
const TYPES: [TensorType; 5] =
    [TensorType::Q4_0, TensorType::Q4_K, TensorType::Q6_K, TensorType::Q8_0, TensorType::MXFP4];

fn main() {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let arg = |i: usize, default| args.get(i).copied().unwrap_or(default);
    let [threads, hidden, inner, experts, used] =
        [arg(0, 2), arg(1, 1024), arg(2, 512), arg(3, 32), arg(4, 4)];
    let b = CpuBackend::new(threads).expect("a backend");
    println!("{}, {used} of {experts} experts of {hidden} x {inner}", b.description());
    println!("memory: {:.1} GB/s", memory(&b, threads));
    print!("{:8}", "type");
    ROWS.iter().for_each(|rows| print!(" {:>24}", format!("{rows} rows, and dense")));
    println!();
    let only = std::env::var("ONLY").ok();
    for ty in TYPES.into_iter().filter(|t| only.as_ref().is_none_or(|o| *o == t.to_string())) {
        print!("{:8}", ty.to_string());
        let row_bytes = 3 * hidden * inner * used / ty.block_len() * ty.block_bytes();
        // Enough layers that weights come from memory, not from a cache.
        let layers = (96 << 20) / row_bytes + 1;
        let made: Vec<_> = (0..layers.div_ceil(experts / used).max(2))
            .map(|i| Layer::new(&b, ty, [hidden, inner, experts, used], i))
            .collect();
        let dense: Vec<_> = (0..layers).map(|i| Dense::new(&b, ty, [hidden, inner * used], i)).collect();
        for rows in ROWS {
            // Each input has other experts.
            let inputs: Vec<Buffer> = (0..INPUTS).map(|seed| numbers(&b, rows, hidden, seed)).collect();
            let mut out = b.buffer(rows, hidden).expect("a buffer");
            let mixture = best(|| {
                let start = Instant::now();
                let runs = inputs.iter().flat_map(|x| made.iter().map(move |layer| (x, layer)));
                let count = if rows == 1 { INPUTS * made.len() } else { 2 * made.len() };
                runs.take(count).for_each(|(x, layer)| layer.run(&b, x, &mut out));
                start.elapsed().as_secs_f64() / count as f64
            });
            let (mut gate, mut up) = [(); 2].map(|()| b.buffer(rows, inner * used).expect("a buffer")).into();
            let count = dense.len().min((dense.len() * 4 / rows).max(2));
            let dense = best(|| {
                let start = Instant::now();
                for layer in &dense[..count] {
                    layer.run(&b, &inputs[0], [&mut gate, &mut up], &mut out);
                }
                start.elapsed().as_secs_f64() / count as f64
            });
            let work = if rows == 1 { row_bytes } else { 6 * hidden * inner * used * rows };
            let [mixture, dense] = [mixture, dense].map(|seconds| work as f64 / seconds / 1e9);
            print!(" {:>24}", format!("{mixture:.1} {dense:.1} ({:.2})", mixture / dense));
        }
        println!();
    }
}

/// The shortest of several runs.
fn best(mut run: impl FnMut() -> f64) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed().as_secs_f64() < 1.0 {
        best = run().min(best);
    }
    best
}

/// Billions of bytes that the threads together read a second.
fn memory(b: &CpuBackend, threads: usize) -> f64 {
    let data = vec![1u64; 32 << 20];
    let seconds = best(|| {
        let start = Instant::now();
        b.on_host_threads(threads, &|i| {
            let part = &data[i * data.len() / threads..(i + 1) * data.len() / threads];
            let mut sums = [0u64; 32];
            for chunk in part.chunks_exact(32) {
                sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum = sum.wrapping_add(*x));
            }
            std::hint::black_box(sums);
        });
        start.elapsed().as_secs_f64()
    });
    size_of_val(&data[..]) as f64 / seconds / 1e9
}

/// A layer of experts.
struct Layer {
    router: Matrix,
    gate: Experts,
    up: Experts,
    down: Experts,
    used: usize,
}

impl Layer {
    fn new(b: &CpuBackend, ty: TensorType, [hidden, inner, experts, used]: [usize; 4], seed: usize) -> Self {
        let make = |shape: [usize; 3]| tensor(ty, &shape, seed, |t| b.experts(t).expect("experts"));
        Self {
            router: tensor(TensorType::F32, &[hidden, experts], seed, |t| b.matrix(t).expect("a router")),
            gate: make([hidden, inner, experts]),
            up: make([hidden, inner, experts]),
            down: make([inner, hidden, experts]),
            used,
        }
    }

    fn run(&self, b: &CpuBackend, x: &Buffer, out: &mut Buffer) {
        let routing = Routing {
            used: self.used,
            gating: Gating::Softmax,
            groups: None,
            normalize: true,
            scale: 1.0,
            weights_input: false,
        };
        let spec = Mixture {
            router: &self.router,
            router_bias: None,
            routing,
            selection_bias: None,
            gate: Some(&self.gate),
            up: &self.up,
            down: &self.down,
            gate_bias: None,
            up_bias: None,
            down_bias: None,
            activation: Activation::Silu,
            gate_lora: &[],
            up_lora: &[],
            down_lora: &[],
            accumulate: false,
        };
        b.mixture(x, &spec, out).expect("a mixture");
    }
}

/// A dense feed-forward network.
struct Dense {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl Dense {
    fn new(b: &CpuBackend, ty: TensorType, [hidden, inner]: [usize; 2], seed: usize) -> Self {
        let make = |shape: [usize; 2]| tensor(ty, &shape, seed, |t| b.matrix(t).expect("a matrix"));
        Self { gate: make([hidden, inner]), up: make([hidden, inner]), down: make([inner, hidden]) }
    }

    fn run(&self, b: &CpuBackend, x: &Buffer, [gate, up]: [&mut Buffer; 2], out: &mut Buffer) {
        b.matmul(x, &mut [job(&self.gate, &mut *gate), job(&self.up, &mut *up)]).expect("products");
        b.gated_activation(Activation::Silu, gate, up).expect("activations");
        b.matmul(gate, &mut [job(&self.down, out)]).expect("a product");
    }
}

/// A product without bias.
fn job<'a>(weight: &'a Matrix, out: &'a mut Buffer) -> MatMul<'a, CpuBackend> {
    MatMul { weight, bias: None, out, accumulate: false, lora: &[] }
}

/// Calls `make` with a tensor of made-up numbers.
fn tensor<T>(ty: TensorType, shape: &[usize], seed: usize, make: impl FnOnce(&Tensor<'_>) -> T) -> T {
    let len: usize = shape.iter().product();
    let info = TensorInfo::new("w", shape.iter().map(|&n| n as u64).collect(), ty).expect("a shape");
    let number = |i: usize| (((i + 1) * (7919 + 6 * seed)).wrapping_mul(2_654_435_761) >> 7) ^ (seed * 977);
    let data: Vec<u8> = match ty {
        TensorType::F32 => {
            (0..len).flat_map(|i| ((number(i) % 1024) as f32 / 512.0 - 1.0).to_le_bytes()).collect()
        }
        _ => {
            let mut data: Vec<u8> =
                (0..len / ty.block_len() * ty.block_bytes()).map(|i| (number(i) % 61) as u8).collect();
            if ty == TensorType::MXFP4 {
                // Small exponents would make numbers subnormal, which is slow.
                data.iter_mut().step_by(ty.block_bytes()).for_each(|exponent| *exponent += 90);
            }
            data
        }
    };
    make(&Tensor { info: &info, data: &data })
}

/// Returns a buffer of made-up numbers.
fn numbers(b: &CpuBackend, rows: usize, columns: usize, seed: usize) -> Buffer {
    let table = tensor(TensorType::F32, &[columns, rows], 1000 + seed, |t| b.matrix(t).expect("a table"));
    let mut out = b.buffer(rows, columns).expect("a buffer");
    b.embed(&table, &(0..rows as u32).collect::<Vec<_>>(), 1.0, &mut out).expect("rows");
    out
}
