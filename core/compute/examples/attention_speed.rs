//! Measures the speed of attention by cache type, context length and number of sequences.
//!
//!     cargo run --release -p realm-compute --example attention_speed [THREADS] [HEADS KV_HEADS HEAD_DIM] [SxCxR ...]
//!
//! For each workload (sequences, tokens in the cache of each, and rows that each adds), prints for one layer
//! the microseconds to write keys and values and the microseconds of attention, medians of all layers of
//! several runs. For attention it also prints billions of operations a second (a
//! multiply and an add count as two) and billions of bytes of cache a second. Layers take turns, so a long
//! context is read from memory as in a real model. The variable `REALM_CPU` names the instruction set.

use std::time::Instant;

use realm_compute::cpu::{Buffer, Cache, CpuBackend};
use realm_compute::{
    Attention, Backend, Batch, CacheLayout, CacheSpec, CacheType, NormSpan, PAGE_TOKENS, RopeStyle, Want,
};
use realm_gguf::{Tensor, TensorInfo, TensorType};

/// Number of layers that take turns.
const LAYERS: usize = 30;

const WORK: [[usize; 3]; 10] = [
    [1, 0, 512],
    [1, 1536, 512],
    [1, 64, 1],
    [1, 512, 1],
    [1, 4096, 1],
    [8, 64, 1],
    [8, 1024, 1],
    [8, 4096, 1],
    [16, 64, 1],
    [16, 512, 1],
];

fn main() {
    let (work, args): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.contains('x'));
    let mut work: Vec<[usize; 3]> = work
        .iter()
        .filter_map(|word| {
            let numbers: Vec<usize> = word.split('x').filter_map(|n| n.parse().ok()).collect();
            numbers.try_into().ok()
        })
        .collect();
    if work.is_empty() {
        work = WORK.to_vec();
    }
    let args: Vec<usize> = args.iter().filter_map(|a| a.parse().ok()).collect();
    let arg = |i: usize, default| args.get(i).copied().unwrap_or(default);
    let (heads, kv_heads, dim) = (arg(1, 9), arg(2, 3), arg(3, 64));
    let b = CpuBackend::new(arg(0, 2)).expect("a backend");
    println!("{}, {heads} heads over {kv_heads} of {dim}", b.description());
    println!("sequences context rows: us to write + us to attend (GOP/s, GB/s of cache)");
    for [sequences, past, rows] in work {
        print!("{sequences:9} {past:7} {rows:4}:");
        for kind in CacheType::ALL {
            let layout = CacheLayout::new(kv_heads, dim, &[None; LAYERS]);
            let pages_each = (past + rows).div_ceil(PAGE_TOKENS);
            let spec = CacheSpec { layout, pages: sequences * pages_each, kind };
            let mut cache = b.cache(&spec).expect("a cache");
            // The cache takes memory when it is first written, so write it before measuring.
            for s in 0..sequences {
                for start in (0..past).step_by(512) {
                    let rows = 512.min(past - start);
                    Pass::new(&b, heads, &spec.layout, &[(s, start, rows)], sequences)
                        .run(&b, &mut cache, None);
                }
            }
            let spans: Vec<_> = (0..sequences).map(|s| (s, past, rows)).collect();
            let mut pass = Pass::new(&b, heads, &spec.layout, &spans, sequences);
            let mut times = [const { Vec::new() }; 2];
            let start = Instant::now();
            while start.elapsed().as_secs_f64() < 0.4 {
                pass.run(&b, &mut cache, Some(&mut times));
            }
            let [write, attend] = times.map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            });
            let seen: usize = sequences * (past + 1..=past + rows).sum::<usize>();
            let operations = (4 * seen * heads * dim) as f64;
            let bytes = (spec.page_bytes() / spec.layout.slots * spec.pages) as f64;
            let (gops, gbs) = (operations / attend / 1e9, bytes / attend / 1e9);
            print!("  {kind} {:.1} + {:.1} ({gops:.0}, {gbs:.1})", write * 1e6, attend * 1e6);
        }
        println!();
    }
}

/// A batch and the inputs and outputs of its layers.
struct Pass {
    batch: Batch,
    heads: usize,
    kv_heads: usize,
    rotations: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    out: Buffer,
}

impl Pass {
    /// Builds a batch from spans (sequence, tokens in its cache, rows) of some of `all` sequences.
    fn new(
        b: &CpuBackend,
        heads: usize,
        layout: &CacheLayout,
        spans: &[(usize, usize, usize)],
        all: usize,
    ) -> Self {
        let (kv_heads, dim) = (layout.kv_heads, layout.head_dim);
        let mut batch = Batch::default();
        for &(sequence, past, rows) in spans {
            // Interleave the pages of the sequences, as in a running engine.
            let count = (past + rows).div_ceil(PAGE_TOKENS);
            let table: Vec<u32> = (0..count).map(|i| (i * all + sequence) as u32).collect();
            batch.push(&vec![0; rows], past, &[table], Want::Nothing);
        }
        let frequencies: Vec<f32> =
            (0..dim / 2).map(|i| 10_000f32.powf(-(i as f32) / (dim / 2) as f32)).collect();
        let (frequencies, magnitude) = (b.vector(&frequencies).expect("frequencies"), 1.0);
        let mut rotations = b.buffer(0, dim).expect("a buffer");
        b.rotations(&frequencies, magnitude, &batch.positions, &mut rotations).expect("rotations");
        let rows = batch.rows();
        Self {
            heads,
            kv_heads,
            rotations,
            q: numbers(b, rows, heads * dim),
            k: numbers(b, rows, kv_heads * dim),
            v: numbers(b, rows, kv_heads * dim),
            out: b.buffer(0, heads * dim).expect("a buffer"),
            batch,
        }
    }

    /// Writes and, where the seconds of both are wanted, attends in every layer.
    fn run(&mut self, b: &CpuBackend, cache: &mut Cache, mut times: Option<&mut [Vec<f64>; 2]>) {
        let Self { batch, heads, kv_heads, rotations, q, k, v, out } = self;
        for layer in 0..LAYERS {
            let dim = q.columns() / *heads;
            let spec = Attention {
                layer,
                heads: *heads,
                kv_heads: *kv_heads,
                head_dim: dim,
                q_norm: None,
                k_norm: None,
                norm_span: NormSpan::Head,
                norm_after_rope: false,
                rotations: Some(rotations),
                style: RopeStyle::Half,
                temperature: None,
                scale: 1.0 / (dim as f32).sqrt(),
                window: None,
                soft_cap: None,
                sinks: None,
            };
            let start = Instant::now();
            b.rope_store(&spec, batch, q, k, v, cache).expect("keys and values");
            let Some(times) = &mut times else { continue };
            times[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            b.attention(&spec, batch, q, cache, out).expect("attention");
            times[1].push(start.elapsed().as_secs_f64());
        }
    }
}

/// Returns a buffer of made-up numbers.
fn numbers(b: &CpuBackend, rows: usize, columns: usize) -> Buffer {
    let info = TensorInfo::new("x", vec![columns as u64, rows as u64], TensorType::F32).expect("a shape");
    let values: Vec<u8> =
        (0..rows * columns).flat_map(|i| ((i * 7919 % 1013) as f32 / 500.0 - 1.0).to_le_bytes()).collect();
    let table = b.matrix(&Tensor { info: &info, data: &values }).expect("a table");
    let mut out = b.buffer(rows, columns).expect("a buffer");
    b.embed(&table, &(0..rows as u32).collect::<Vec<_>>(), 1.0, &mut out).expect("rows");
    out
}
