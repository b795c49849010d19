//! Adapters: their results, their independence of the rest of the batch, and the adapters that are refused.

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod common;
mod files;
#[path = "../../../gguf/tests/common/writer.rs"]
#[allow(dead_code, reason = "the container's own tests use the rest")]
mod writer;

mod batch;
mod experts;
mod merged;
mod refuse;

use std::path::PathBuf;
use std::sync::Arc;

use realm_compute::cpu::CpuBackend;
use realm_compute::{AdapterUse, Batch, CacheType, PAGE_TOKENS, Want};
use realm_gguf::Gguf;
use realm_model::{AdapterFile, Forward, Transformer, Weights};

/// Opens the file of a tiny model.
fn tiny(name: &str) -> Gguf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny");
    Gguf::open(folder.join(format!("{name}.gguf"))).expect("a tiny model")
}

fn load(gguf: &Gguf) -> Arc<Transformer<CpuBackend>> {
    let backend = Arc::new(CpuBackend::new(2).expect("a backend"));
    Arc::new(Transformer::load(backend, gguf, &mut |_, _| {}).expect("a model"))
}

/// Returns a runner with room for 16 pages of every group of layers.
fn runner(model: &Arc<Transformer<CpuBackend>>) -> Box<dyn Forward> {
    model.runner(16 * model.config().cache_layout().groups(), CacheType::F32).expect("a runner")
}

/// A sequence's rows for a batch: tokens at positions `past ..` on `pages`, with an adapter and its scale.
struct Rows<'a> {
    tokens: &'a [u32],
    past: usize,
    pages: &'a [u32],
    adapter: Option<(u32, f32)>,
}

/// Runs the rows together and returns the logits of all, `[rows][vocab]`.
fn forward(runner: &mut dyn Forward, all: &[Rows<'_>]) -> Result<Vec<Vec<f32>>, realm_model::Error> {
    let mut batch = Batch::default();
    for rows in all {
        batch.push(rows.tokens, rows.past, &common::tables(runner, rows.pages), Want::Logits);
        let span = batch.spans.last_mut().expect("a span");
        span.adapter = rows.adapter.map(|(id, scale)| AdapterUse { id, scale });
    }
    runner.forward(&batch)?;
    let vocab = runner.config().vocab;
    Ok(runner.outputs().host().chunks_exact(vocab).map(<[f32]>::to_vec).collect())
}

/// Returns the logits after each of `tokens`, fed at once, with an adapter if there is one.
fn logits(
    model: &Arc<Transformer<CpuBackend>>,
    adapter: Option<(&AdapterFile, f32)>,
    tokens: &[u32],
) -> Vec<Vec<f32>> {
    let mut runner = runner(model);
    if let Some((file, _)) = adapter {
        runner.set_adapter(7, Some(model.adapter(file).expect("an adapter that fits"))).expect("its model");
    }
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
    let rows = Rows { tokens, past: 0, pages: &pages, adapter: adapter.map(|(_, scale)| (7, scale)) };
    forward(&mut *runner, &[rows]).expect("logits")
}

/// Returns the largest difference between two rows of logits, over the deviation of the second.
fn difference(got: &[Vec<f32>], want: &[Vec<f32>]) -> f64 {
    assert_eq!(got.len(), want.len());
    let mut largest = 0f64;
    for (got, want) in got.iter().zip(want) {
        let n = want.len() as f64;
        let mean = want.iter().map(|&v| v as f64).sum::<f64>() / n;
        let deviation = (want.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / n).sqrt();
        for (&got, &want) in got.iter().zip(want) {
            let off = (got as f64 - want as f64).abs() / deviation;
            // Not `max`, which would drop a NaN.
            largest = if off <= largest { largest } else { off };
        }
    }
    largest
}

/// Returns some token ids of a vocabulary.
fn tokens(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + 13) % vocab) as u32).collect()
}
