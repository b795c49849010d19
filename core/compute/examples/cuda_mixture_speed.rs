//! Measures the speed of mixtures of experts on the GPU:
//!
//!     cargo run --release -p realm-compute --example cuda_mixture_speed [geometry ...] [rows ...]
//!
//! For the geometries of Qwen3-30B-A3B in Q4_K and gpt-oss-20b in MXFP4 (or those named: `qwen`, `gpt-oss`)
//! and several numbers of rows, prints microseconds for a layer's mixture (router, choice, experts, sum), the
//! bytes of the weights of chosen experts a second (the limit for few rows; rows share experts, so this
//! counts each expert that is expected to be chosen once) and operations a second (the limit for many rows).
//! Layers take turns so that the GPU's cache does not hold them; up to 128 rows they are one recorded pass,
//! as in decoding.

use realm_compute::cuda::{Buffer, CudaBackend, Experts, Matrix};
use realm_compute::{Activation, Backend, Batch, Error, Gating, Mixture, Routing, Want};
use realm_gguf::{Tensor, TensorInfo, TensorType};

const ROWS: [usize; 9] = [1, 2, 4, 8, 16, 64, 128, 512, 2048];
const LAYERS: usize = 6;

/// The sizes of a mixture.
struct Geometry {
    name: &'static str,
    gate: TensorType,
    down: TensorType,
    experts: usize,
    used: usize,
    hidden: usize,
    inner: usize,
}

const GEOMETRIES: [Geometry; 3] = [
    Geometry {
        name: "qwen",
        gate: TensorType::Q4_K,
        down: TensorType::Q4_K,
        experts: 128,
        used: 8,
        hidden: 2048,
        inner: 768,
    },
    Geometry {
        name: "qwen-q6",
        gate: TensorType::Q4_K,
        down: TensorType::Q6_K,
        experts: 128,
        used: 8,
        hidden: 2048,
        inner: 768,
    },
    Geometry {
        name: "gpt-oss",
        gate: TensorType::MXFP4,
        down: TensorType::MXFP4,
        experts: 32,
        used: 4,
        hidden: 2880,
        inner: 2880,
    },
];

/// A layer's weights.
struct Layer {
    router: Matrix,
    gate: Experts,
    up: Experts,
    down: Experts,
}

fn main() -> Result<(), Error> {
    let (rows, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.parse::<usize>().is_ok());
    let mut rows: Vec<usize> = rows.iter().filter_map(|rows| rows.parse().ok()).collect();
    if rows.is_empty() {
        rows = ROWS.to_vec();
    }
    let b = CudaBackend::new(0)?;
    println!("{}", b.description());
    for g in GEOMETRIES.iter().filter(|g| names.is_empty() || names.iter().any(|name| name == g.name)) {
        measure(&b, g, &rows)?;
    }
    Ok(())
}

fn measure(b: &CudaBackend, g: &Geometry, all_rows: &[usize]) -> Result<(), Error> {
    let Geometry { experts, used, hidden, inner, .. } = *g;
    let mut random = Random(1);
    let (gate, up) = ([hidden, inner, experts], [hidden, inner, experts]);
    let (gate, up) = (random.blocks(g.gate, &gate), random.blocks(g.gate, &up));
    let down = random.blocks(g.down, &[inner, hidden, experts]);
    let layers = (0..LAYERS)
        .map(|_| {
            let router = random.floats(hidden * experts);
            Ok(Layer {
                router: tensor(TensorType::F32, &[hidden, experts], &router, |t| b.matrix(t))?,
                gate: tensor(g.gate, &[hidden, inner, experts], &gate, |t| b.experts(t))?,
                up: tensor(g.gate, &[hidden, inner, experts], &up, |t| b.experts(t))?,
                down: tensor(g.down, &[inner, hidden, experts], &down, |t| b.experts(t))?,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let bytes_of = |ty: TensorType| (hidden * inner / ty.block_len() * ty.block_bytes()) as f64;
    for &rows in all_rows {
        let values = random.floats(rows * hidden);
        let table = tensor(TensorType::F32, &[hidden, rows], &values, |t| b.matrix(t))?;
        let (mut x, mut out) = (b.buffer(rows, hidden)?, b.buffer(rows, hidden)?);
        b.embed(&table, &(0..rows as u32).collect::<Vec<_>>(), 1.0, &mut x)?;
        let mut round = || layers.iter().try_for_each(|layer| run(b, g, layer, &x, &mut out));
        let mut batch = Batch::default();
        for row in 0..rows {
            batch.push(&[row as u32], 0, &[[0u32]], Want::Logits);
        }
        let mut pass = || b.pass::<Error>(rows as u64 + 1, &batch, &mut round);
        for _ in 0..4 {
            pass()?;
        }
        let mut times = Vec::new();
        for _ in 0..9 {
            times.push(f64::from(b.time(&mut pass)?) * 1e3 / LAYERS as f64);
        }
        times.sort_by(f64::total_cmp);
        let us = times[4];
        let chosen = experts as f64 * (1.0 - (1.0 - used as f64 / experts as f64).powi(rows as i32));
        let bytes = chosen * (2.0 * bytes_of(g.gate) + bytes_of(g.down));
        let operations = 6.0 * (hidden * inner * used * rows) as f64;
        println!(
            "{} rows {rows}: {us:.1} us, {:.0} GB/s of {chosen:.1} experts, {:.1} TOP/s; {:.1} us at 4.3 TB/s",
            g.name,
            bytes / us / 1e3,
            operations / us / 1e6,
            bytes / 4.3e6
        );
    }
    Ok(())
}

fn run(b: &CudaBackend, g: &Geometry, layer: &Layer, x: &Buffer, out: &mut Buffer) -> Result<(), Error> {
    let routing = Routing {
        used: g.used,
        gating: Gating::Softmax,
        groups: None,
        normalize: true,
        scale: 1.0,
        weights_input: false,
    };
    let spec = Mixture {
        router: &layer.router,
        router_bias: None,
        routing,
        selection_bias: None,
        gate: Some(&layer.gate),
        up: &layer.up,
        down: &layer.down,
        gate_bias: None,
        up_bias: None,
        down_bias: None,
        activation: Activation::Silu,
        gate_lora: &[],
        up_lora: &[],
        down_lora: &[],
        accumulate: false,
    };
    b.mixture(x, &spec, out)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }

    /// Numbers from -1 to 1.
    fn floats(&mut self, len: usize) -> Vec<u8> {
        (0..len).flat_map(|_| ((self.next() % 2001) as f32 / 1000.0 - 1.0).to_le_bytes()).collect()
    }

    /// Blocks of any codes and moderate scales.
    fn blocks(&mut self, ty: TensorType, shape: &[usize]) -> Vec<u8> {
        let len = shape.iter().product::<usize>() / ty.block_len() * ty.block_bytes();
        let mut data: Vec<u8> =
            (0..len.div_ceil(4)).flat_map(|_| (self.next() as u32).to_le_bytes()).collect();
        data.truncate(len);
        for block in data.chunks_exact_mut(ty.block_bytes()) {
            match ty {
                TensorType::MXFP4 => block[0] = 118 + block[0] % 8,
                TensorType::Q6_K => block[209] &= 0x1f,
                _ => [1, 3].into_iter().for_each(|at| block[at] &= 0x1f),
            }
        }
        data
    }
}

/// Calls `make` with a tensor of these bytes.
fn tensor<T>(
    ty: TensorType,
    shape: &[usize],
    data: &[u8],
    make: impl FnOnce(&Tensor<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let shape = shape.iter().map(|&n| n as u64).collect();
    let info = TensorInfo::new("w", shape, ty).expect("a tensor of this shape");
    make(&Tensor { info: &info, data })
}
