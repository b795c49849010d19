//! Measures tokens a second of bare forward passes: `forward_speed FILE.gguf DEVICE [context [batch ...]]`.
//!
//! `DEVICE` is `cuda` or `cpu`. Measures a prompt of 512 tokens first; then, for every batch size, greedy
//! decoding after a prompt of `context` tokens (default 16). Decoding takes the likeliest tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_compute::{Backend, Batch, CacheType, PAGE_TOKENS, Want};
use realm_gguf::Gguf;
use realm_model::{Forward, Outputs, Transformer, Weights};

type Failure = Box<dyn std::error::Error>;

/// Number of timed passes.
const STEPS: usize = 100;
/// Number of passes before the timed ones.
const WARM: usize = 5;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, device, rest @ ..] = &arguments[..] else {
        return Err("forward_speed FILE.gguf cuda|cpu [context [batch ...]]".into());
    };
    let numbers = rest.iter().map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
    let context = numbers.first().copied().unwrap_or(16);
    let batches = numbers.get(1..).filter(|b| !b.is_empty()).unwrap_or(&[1, 8, 16, 32, 64]);
    match device.as_str() {
        "cpu" => {
            let threads = std::thread::available_parallelism()?.get();
            run(CpuBackend::new(threads)?, file, CacheType::F32, context, batches)
        }
        _ => run(CudaBackend::new(0)?, file, CacheType::F16, context, batches),
    }
}

fn run<B: Backend>(
    backend: B,
    file: &str,
    kind: CacheType,
    context: usize,
    batches: &[usize],
) -> Result<(), Failure> {
    let start = Instant::now();
    let gguf = Gguf::open(std::path::Path::new(file))?;
    let model = Arc::new(Transformer::load(Arc::new(backend), &gguf, &mut |_, _| {})?);
    println!("{} on {}, loaded in {:.2} s", file, model.device(), start.elapsed().as_secs_f64());
    let most = batches.iter().copied().max().unwrap_or(1);
    let pages_each = (context + WARM + STEPS + 1).div_ceil(PAGE_TOKENS);
    let groups = model.config().cache_layout().groups();
    let pages = (most * pages_each).max(512 / PAGE_TOKENS) * groups;
    let mut runner = model.runner(pages, kind)?;

    let mut times = Vec::new();
    for _ in 0..6 {
        let mut batch = Batch::default();
        batch.push(&prompt(512, 0, &*runner), 0, &tables(0, 512 / PAGE_TOKENS, groups), Want::LastLogits);
        let start = Instant::now();
        runner.forward(&batch)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    println!("prefill_512  {:9.1} tokens/s  {:.3} ms", 512.0 / times[2], times[2] * 1e3);

    for &sequences in batches {
        let mut last = Vec::new();
        for s in 0..sequences {
            let mut batch = Batch::default();
            let tables = tables(s * pages_each, pages_each, groups);
            batch.push(&prompt(context, s, &*runner), 0, &tables, Want::LastLogits);
            runner.forward(&batch)?;
            last.push(likeliest(runner.outputs().host()));
        }
        let mut start = Instant::now();
        let mut times = Vec::new();
        for step in 0..WARM + STEPS {
            let mut batch = Batch::default();
            for (s, token) in last.iter().enumerate() {
                let tables = tables(s * pages_each, pages_each, groups);
                batch.push(&[*token], context + step, &tables, Want::LastLogits);
            }
            batch.top_k = true;
            runner.forward(&batch)?;
            let vocab = runner.config().vocab;
            let next: Vec<AtomicU32> = last.iter().map(|_| AtomicU32::new(0)).collect();
            match runner.outputs() {
                // A GPU has already found the likeliest tokens.
                Outputs::Device(rows) => {
                    for (s, next) in next.iter().enumerate() {
                        let first = rows.top_k(s)?.iter().next();
                        next.store(first.map_or(0, |(token, _)| token), Ordering::Relaxed);
                    }
                }
                Outputs::Host(logits) => runner.on_host_threads(sequences, &|s| {
                    next[s].store(likeliest(&logits[s * vocab..][..vocab]), Ordering::Relaxed);
                }),
            }
            last = next.into_iter().map(AtomicU32::into_inner).collect();
            if step >= WARM {
                times.push(start.elapsed().as_secs_f64());
            }
            start = Instant::now();
        }
        let total: f64 = times.iter().sum();
        times.sort_by(f64::total_cmp);
        println!(
            "decode_b{sequences:<3}  {:9.1} tokens/s  {:.3} ms a pass, median {:.3} ms, slowest {:.3} ms",
            (sequences * STEPS) as f64 / total,
            total / STEPS as f64 * 1e3,
            times[STEPS / 2] * 1e3,
            times[STEPS - 1] * 1e3,
        );
    }
    Ok(())
}

/// A made-up prompt.
fn prompt(len: usize, seed: usize, runner: &dyn Forward) -> Vec<u32> {
    (0..len).map(|i| ((i * 7919 + seed * 31 + 300) % runner.config().vocab) as u32).collect()
}

/// Page tables of `len` pages for every group of layers.
fn tables(first: usize, len: usize, groups: usize) -> Vec<Vec<u32>> {
    (0..groups).map(|g| (0..len).map(|page| ((first + page) * groups + g) as u32).collect()).collect()
}

fn likeliest(logits: &[f32]) -> u32 {
    // Sixteen lanes, so that the compiler uses vector instructions.
    let mut best = [f32::NEG_INFINITY; 16];
    for part in logits.chunks_exact(16) {
        for (best, &logit) in best.iter_mut().zip(part) {
            *best = if logit > *best { logit } else { *best };
        }
    }
    let tail = logits.chunks_exact(16).remainder().iter();
    let max = best.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    logits.iter().position(|&logit| logit == max).unwrap_or(0) as u32
}
