//! Measures the speed of attention on a GPU by cache type, context length and number of sequences:
//!
//!     cargo run --release -p realm-compute --example cuda_attention_speed [HEADS KV_HEADS DIM] [SxCxR ...]
//!
//! For each workload (sequences, tokens in the cache of each, and rows that each adds) prints the
//! microseconds of one layer's attention, bytes of cache a second (the limit when decoding) and operations a
//! second (the limit of prompts; a multiply and an add count as two). Layers take turns, so that a long
//! context is read from memory as in a real model.

use realm_compute::cuda::{Buffer, Cache, CudaBackend};
use realm_compute::{
    Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, Error, NormSpan, PAGE_TOKENS, RopeStyle,
    Want,
};
use realm_gguf::{Tensor, TensorInfo, TensorType};

mod common;

use common::Workload;

/// Number of layers that take turns.
const LAYERS: usize = 8;
/// Rows that are written at a time.
const STEP: usize = 2048;

const WORK: [Workload; 18] = [
    [1, 15, 1],
    [1, 1023, 1],
    [1, 4095, 1],
    [1, 8191, 1],
    [1, 16_383, 1],
    [1, 32_767, 1],
    [1, 131_071, 1],
    [16, 15, 1],
    [16, 1023, 1],
    [16, 4095, 1],
    [16, 16_383, 1],
    [64, 15, 1],
    [64, 1023, 1],
    [64, 4095, 1],
    [1, 0, 512],
    [1, 3584, 512],
    [1, 7680, 512],
    [1, 30_720, 2048],
];

struct Shape {
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

fn main() -> Result<(), Error> {
    let (work, shape) = common::arguments(&WORK);
    let [heads, kv_heads, dim] = shape[..].try_into().unwrap_or([32, 8, 128]);
    let shape = Shape { heads, kv_heads, dim };
    let b = CudaBackend::new(0)?;
    println!("{}, {heads} heads over {kv_heads} of {dim}", b.description());
    let layout = CacheLayout::new(kv_heads, dim, &[None; LAYERS]);
    let pages_of = |&[sequences, past, rows]: &Workload| sequences * (past + rows).div_ceil(PAGE_TOKENS);
    let pages = work.iter().map(pages_of).max().unwrap_or(1).next_multiple_of(STEP / PAGE_TOKENS);
    let table: Vec<u32> = (0..pages as u32).collect();
    let part = |first: usize| {
        let mut batch = Batch::default();
        batch.push(&vec![0; STEP], first, &[&table], Want::Nothing);
        batch
    };
    let mut writer = Pass::new(&b, &shape, part(0))?;
    for kind in [CacheType::F16, CacheType::Q8_0, CacheType::F32] {
        let spec = CacheSpec { layout: layout.clone(), pages, kind };
        let mut cache = b.cache(&spec)?;
        for first in (0..pages * PAGE_TOKENS).step_by(STEP) {
            writer.batch = part(first);
            writer.write(&b, &shape, &mut cache)?;
        }
        for &[sequences, past, rows] in &work {
            if kind == CacheType::F32 && rows > 512 {
                continue;
            }
            let each = (past + rows).div_ceil(PAGE_TOKENS);
            let mut batch = Batch::default();
            for s in 0..sequences {
                // Interleave the pages of the sequences, as in a running engine.
                let table: Vec<u32> = (0..each).map(|i| (i * sequences + s) as u32).collect();
                let want = if rows == 1 { Want::LastLogits } else { Want::Nothing };
                batch.push(&vec![0; rows], past, &[table], want);
            }
            let mut pass = Pass::new(&b, &shape, batch)?;
            let owner = ((sequences * 1_000_000 + past) * 4096 + rows) as u64;
            let mut times = Vec::new();
            for round in 0..9 {
                let time = b.time(&mut || pass.attend(&b, &shape, &cache, owner))? as f64;
                if round > 2 {
                    times.push(time * 1e3 / LAYERS as f64);
                }
            }
            times.sort_by(f64::total_cmp);
            let us = times[times.len() / 2];
            let seen: usize = sequences * (past + 1..=past + rows).sum::<usize>();
            let operations = (4 * seen * heads * dim) as f64;
            let bytes = (spec.page_bytes() / LAYERS * sequences * (past + rows) / PAGE_TOKENS) as f64;
            println!(
                "{kind:5} {sequences:3} x {past:6} x {rows:4}: {us:8.1} us, {:6.0} GB/s, {:6.1} TFLOP/s",
                bytes / us / 1e3,
                operations / us / 1e6
            );
        }
    }
    Ok(())
}

/// A batch and the inputs and outputs of its layers.
struct Pass {
    batch: Batch,
    rotations: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    out: Buffer,
}

impl Pass {
    fn new(b: &CudaBackend, shape: &Shape, batch: Batch) -> Result<Self, Error> {
        let Shape { heads, kv_heads, dim } = *shape;
        let frequencies: Vec<f32> =
            (0..dim / 2).map(|i| 10_000f32.powf(-(i as f32) / (dim / 2) as f32)).collect();
        let mut rotations = b.buffer(0, dim)?;
        b.rotations(&b.vector(&frequencies)?, 1.0, &batch.positions, &mut rotations)?;
        let rows = batch.rows();
        Ok(Self {
            rotations,
            q: numbers(b, rows, heads * dim)?,
            k: numbers(b, rows, kv_heads * dim)?,
            v: numbers(b, rows, kv_heads * dim)?,
            out: b.buffer(rows, heads * dim)?,
            batch,
        })
    }

    fn write(&mut self, b: &CudaBackend, shape: &Shape, cache: &mut Cache) -> Result<(), Error> {
        let Self { batch, rotations, q, k, v, .. } = self;
        (0..LAYERS).try_for_each(|layer| b.rope_store(&spec(shape, rotations, layer), batch, q, k, v, cache))
    }

    /// Attends in every layer; decoding rows as a recorded pass.
    fn attend(&mut self, b: &CudaBackend, shape: &Shape, cache: &Cache, owner: u64) -> Result<(), Error> {
        let Self { batch, rotations, q, out, .. } = self;
        b.pass(owner, batch, &mut || {
            (0..LAYERS)
                .try_for_each(|layer| b.attention(&spec(shape, rotations, layer), batch, q, cache, out))
        })
    }
}

fn spec<'a>(shape: &Shape, rotations: &'a Buffer, layer: usize) -> Attention<'a, CudaBackend> {
    Attention {
        layer,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.dim,
        q_norm: None,
        k_norm: None,
        norm_span: NormSpan::Head,
        norm_after_rope: false,
        rotations: Some(rotations),
        style: RopeStyle::Half,
        temperature: None,
        scale: 1.0 / (shape.dim as f32).sqrt(),
        window: None,
        soft_cap: None,
        sinks: None,
    }
}

/// Returns a buffer of made-up numbers.
fn numbers(b: &CudaBackend, rows: usize, columns: usize) -> Result<Buffer, Error> {
    let info = TensorInfo::new("x", vec![columns as u64, rows as u64], TensorType::F32).expect("a shape");
    let mut state = 1u64;
    let data: Vec<u8> = (0..rows * columns)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32 - 1.0).to_le_bytes()
        })
        .collect();
    let table = b.matrix(&Tensor { info: &info, data: &data })?;
    let mut out = b.buffer(rows, columns)?;
    b.embed(&table, &(0..rows as u32).collect::<Vec<_>>(), 1.0, &mut out)?;
    Ok(out)
}
