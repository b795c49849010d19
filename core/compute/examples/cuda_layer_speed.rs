//! Measures a decoder layer on the GPU, as a recorded pass, and what its parts take:
//!
//!     cargo run --release -p realm-compute --example cuda_layer_speed [geometry ...] [rows ...]
//!
//! For the geometries of a 7B model, of an 8B model and of the attention of Qwen3-30B-A3B (or those named:
//! `7b`, `8b`, `30b`) in Q4_K with downs of Q6_K in every second layer, and several numbers of sequences with
//! 64 tokens each, prints microseconds of a layer as a whole, without its products, and of its products
//! alone, beside what its weights take at 4.3 TB/s. The first line is the time of a kernel that does next to
//! nothing in a chain of such kernels: what any launch takes. Layers take turns so that the GPU's cache does
//! not hold them.

use realm_compute::cuda::{Buffer, Cache, CudaBackend, Matrix, Vector};
use realm_compute::{
    Activation, Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, Error, MatMul, Norm, NormKind,
    NormSpan, PAGE_TOKENS, RopeStyle, Want,
};
use realm_gguf::{Tensor, TensorInfo, TensorType};

const ROWS: [usize; 6] = [1, 2, 8, 16, 32, 64];
const LAYERS: usize = 8;
const PAST: usize = 64;

/// The sizes of a layer.
struct Geometry {
    name: &'static str,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    /// 0 for a layer without a feed-forward network.
    inner: usize,
}

const GEOMETRIES: [Geometry; 3] = [
    Geometry { name: "7b", hidden: 4096, heads: 32, kv_heads: 32, inner: 11_008 },
    Geometry { name: "8b", hidden: 4096, heads: 32, kv_heads: 8, inner: 14_336 },
    Geometry { name: "30b", hidden: 2048, heads: 32, kv_heads: 4, inner: 0 },
];
const HEAD_DIM: usize = 128;

/// A layer's weights.
struct Layer {
    qkv: [Matrix; 3],
    output: Matrix,
    network: Option<[Matrix; 3]>,
}

/// Activations.
struct Buffers {
    x: Buffer,
    normed: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    gate: Buffer,
    up: Buffer,
    rotations: Buffer,
}

/// Which part of a layer runs.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    All,
    Products,
    Others,
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
    let mut x = b.buffer(1, 256)?;
    let us = record(&b, 1, &batch(1), &mut || (0..200).try_for_each(|_| b.scale(&mut x, 1.0)))? / 200.0;
    println!("a kernel in a chain: {us:.2} us");
    for g in GEOMETRIES.iter().filter(|g| names.is_empty() || names.iter().any(|name| name == g.name)) {
        measure(&b, g, &rows)?;
    }
    Ok(())
}

/// Rows of as many sequences.
fn batch(rows: usize) -> Batch {
    let mut batch = Batch::default();
    let pages = (PAST + 1).div_ceil(PAGE_TOKENS);
    for row in 0..rows {
        let table: Vec<u32> = (0..pages).map(|i| (i * rows + row) as u32).collect();
        batch.push(&[row as u32], PAST, &[table], Want::Logits);
    }
    batch
}

/// Records a pass, and returns the microseconds that it takes.
fn record(
    b: &CudaBackend,
    owner: u64,
    batch: &Batch,
    run: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<f64, Error> {
    for _ in 0..4 {
        b.pass::<Error>(owner, batch, run)?;
    }
    let mut times = Vec::new();
    for _ in 0..15 {
        times.push(f64::from(b.time(|| b.pass::<Error>(owner, batch, run))?) * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[7])
}

fn measure(b: &CudaBackend, g: &Geometry, all_rows: &[usize]) -> Result<(), Error> {
    let Geometry { hidden, heads, kv_heads, inner, .. } = *g;
    let (q_width, kv_width) = (heads * HEAD_DIM, kv_heads * HEAD_DIM);
    let mut random = Random(1);
    let mut bytes = 0;
    let mut matrix = |inputs: usize, outputs: usize, ty: TensorType| {
        let data = random.blocks(ty, inputs * outputs);
        bytes += data.len();
        tensor(ty, &[inputs, outputs], &data, |t| b.matrix(t))
    };
    let layers = (0..LAYERS)
        .map(|i| {
            let down = if i % 2 == 0 { TensorType::Q6_K } else { TensorType::Q4_K };
            let k4 = TensorType::Q4_K;
            Ok(Layer {
                qkv: [
                    matrix(hidden, q_width, k4)?,
                    matrix(hidden, kv_width, k4)?,
                    matrix(hidden, kv_width, k4)?,
                ],
                output: matrix(q_width, hidden, k4)?,
                network: (inner > 0)
                    .then(|| {
                        Ok::<_, Error>([
                            matrix(hidden, inner, k4)?,
                            matrix(hidden, inner, k4)?,
                            matrix(inner, hidden, down)?,
                        ])
                    })
                    .transpose()?,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let weight = b.vector(&vec![1.0; hidden])?;
    let frequencies = b.vector(&(0..HEAD_DIM / 2).map(|i| 0.8f32.powi(i as i32)).collect::<Vec<_>>())?;
    let layout = CacheLayout::new(kv_heads, HEAD_DIM, &[None; LAYERS]);
    let most = all_rows.iter().copied().max().unwrap_or(1);
    let pages = most * (PAST + 1).div_ceil(PAGE_TOKENS);
    let mut cache = b.cache(&CacheSpec { layout, pages, kind: CacheType::F16 })?;
    for &rows in all_rows {
        let batch = batch(rows);
        let values = random.floats(rows * hidden);
        let table = tensor(TensorType::F32, &[hidden, rows], &values, |t| b.matrix(t))?;
        let mut buffers = Buffers {
            x: b.buffer(rows, hidden)?,
            normed: b.buffer(rows, hidden)?,
            q: b.buffer(rows, q_width)?,
            k: b.buffer(rows, kv_width)?,
            v: b.buffer(rows, kv_width)?,
            attended: b.buffer(rows, q_width)?,
            gate: b.buffer(rows, inner.max(1))?,
            up: b.buffer(rows, inner.max(1))?,
            rotations: b.buffer(rows, HEAD_DIM)?,
        };
        let mut us = |owner: usize, part: Part| {
            record(b, (rows * 10 + owner) as u64, &batch, &mut || {
                b.embed(&table, &batch.tokens, 1.0, &mut buffers.x)?;
                b.rotations(&frequencies, 1.0, &batch.positions, &mut buffers.rotations)?;
                (0..LAYERS).try_for_each(|i| {
                    run(b, g, (i, &layers[i]), &weight, &batch, &mut cache, &mut buffers, part)
                })
            })
            .map(|us| us / LAYERS as f64)
        };
        let (all, others, products) = (us(2, Part::All)?, us(3, Part::Others)?, us(4, Part::Products)?);
        println!(
            "{} rows {rows}: {all:.1} us a layer, {products:.1} its products, {others:.1} the others; {:.1} us at 4.3 TB/s",
            g.name,
            bytes as f64 / LAYERS as f64 / 4.3e6
        );
    }
    Ok(())
}

fn job<'a>(weight: &'a Matrix, out: &'a mut Buffer) -> MatMul<'a, CudaBackend> {
    MatMul { weight, bias: None, out, accumulate: false, lora: &[] }
}

#[allow(clippy::too_many_arguments, reason = "a layer has as many parts")]
fn run(
    b: &CudaBackend,
    g: &Geometry,
    (index, layer): (usize, &Layer),
    weight: &Vector,
    batch: &Batch,
    cache: &mut Cache,
    buffers: &mut Buffers,
    part: Part,
) -> Result<(), Error> {
    let Buffers { x, normed, q, k, v, attended, gate, up, rotations } = buffers;
    let (products, others) = (part != Part::Others, part != Part::Products);
    let norm = Norm { kind: NormKind::Rms, weight: Some(weight), bias: None, eps: 1e-5 };
    let attention = Attention {
        layer: index,
        heads: g.heads,
        kv_heads: g.kv_heads,
        head_dim: HEAD_DIM,
        q_norm: None,
        k_norm: None,
        norm_span: NormSpan::Head,
        norm_after_rope: false,
        rotations: Some(&*rotations),
        style: RopeStyle::Half,
        temperature: None,
        sinks: None,
        scale: 0.01,
        window: None,
        soft_cap: None,
    };
    if others {
        b.norm(x, &norm, normed)?;
    }
    if products {
        let [wq, wk, wv] = &layer.qkv;
        b.matmul(normed, &mut [job(wq, q), job(wk, k), job(wv, v)])?;
    }
    if others {
        b.rope_store(&attention, batch, q, k, v, cache)?;
        b.attention(&attention, batch, q, cache, attended)?;
    }
    if products {
        b.matmul(attended, &mut [MatMul { accumulate: true, ..job(&layer.output, x) }])?;
    }
    let Some([wg, wu, wd]) = &layer.network else { return Ok(()) };
    if others {
        b.norm(x, &norm, normed)?;
    }
    if products {
        b.matmul(normed, &mut [job(wg, gate), job(wu, up)])?;
    }
    if others {
        b.gated_activation(Activation::Silu, gate, up)?;
    }
    if products {
        b.matmul(gate, &mut [MatMul { accumulate: true, ..job(wd, x) }])?;
    }
    Ok(())
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

    /// Blocks of any codes and small scales.
    fn blocks(&mut self, ty: TensorType, len: usize) -> Vec<u8> {
        let bytes = len / ty.block_len() * ty.block_bytes();
        let mut data: Vec<u8> =
            (0..bytes.div_ceil(4)).flat_map(|_| (self.next() as u32).to_le_bytes()).collect();
        data.truncate(bytes);
        for block in data.chunks_exact_mut(ty.block_bytes()) {
            match ty {
                TensorType::Q6_K => block[209] = 0,
                _ => [1, 3].into_iter().for_each(|at| block[at] = 0),
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
