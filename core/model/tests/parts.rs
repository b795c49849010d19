//! A model on several parts: data that crosses between them, and rows of logits that are kept.

#[allow(dead_code, reason = "other tests of this crate share more")]
mod common;

use std::path::Path;
use std::sync::Arc;

use common::{model_path, on_gpu, tables};
use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_compute::parts::{Part, PartsBackend, Plan};
use realm_compute::{Backend, Batch, CacheType, Want};
use realm_gguf::Gguf;
use realm_model::names::TensorId;
use realm_model::{Forward, ModelConfig, Outputs, Transformer, Weights};

const PAGES: usize = 8;

/// Returns a runner on any backend.
fn runner<B: Backend>(b: B, path: &Path) -> Box<dyn Forward> {
    let gguf = Gguf::open(path).unwrap();
    let model = Arc::new(Transformer::load(Arc::new(b), &gguf, &mut |_, _| {}).unwrap());
    let groups = model.config().cache_layout().groups();
    model.runner(PAGES * groups, CacheType::F32).unwrap()
}

fn whole(path: &Path) -> Box<dyn Forward> {
    runner(CpuBackend::new(2).unwrap(), path)
}

/// The first layers on the CPU; the others on another part of the same kind or, with
/// `REALM_TEST_DEVICE=cuda`, on GPUs.
fn split(path: &Path) -> Box<dyn Forward> {
    let config = ModelConfig::from_gguf(&Gguf::open(path).unwrap()).unwrap();
    let cpu = || Part::Cpu(Arc::new(CpuBackend::new(2).unwrap()));
    let mut parts = vec![cpu()];
    if on_gpu() {
        let gpus = 0..CudaBackend::count().min(2);
        parts.extend(gpus.map(|gpu| Part::Cuda(Arc::new(CudaBackend::new(gpu).unwrap()))));
    } else {
        parts.extend([cpu(), cpu()]);
    }
    let last = parts.len() - 1;
    // An uneven cut, so that both sides have groups of layers with and without a window.
    let place = |layer: usize| (layer * parts.len() + 1) / config.layers.len().max(1);
    let layers = (0..config.layers.len()).map(|layer| place(layer).min(last)).collect();
    let plan = Plan { layers, embeddings: last, output: last, experts: None };
    runner(PartsBackend::new(parts, plan, TensorId::place).unwrap(), path)
}

/// All layers on one part, which is a GPU with `REALM_TEST_DEVICE=cuda`, and their experts there, too, or on
/// the CPU.
fn layers_on_one(path: &Path, experts: Option<usize>) -> Box<dyn Forward> {
    let layers = ModelConfig::from_gguf(&Gguf::open(path).unwrap()).unwrap().layers.len();
    let cpu = || Part::Cpu(Arc::new(CpuBackend::new(2).unwrap()));
    let other = if on_gpu() { Part::Cuda(Arc::new(CudaBackend::new(0).unwrap())) } else { cpu() };
    let plan = Plan { layers: vec![1; layers], embeddings: 1, output: 1, experts };
    runner(PartsBackend::new(vec![cpu(), other], plan, TensorId::place).unwrap(), path)
}

/// A prompt in two chunks, then single tokens.
fn batches(runner: &dyn Forward) -> Vec<Batch> {
    let tables = tables(runner, &(0..PAGES as u32).collect::<Vec<_>>());
    let tokens: Vec<u32> = (0..90).map(|i| 40 + i * 37 % 900).collect();
    let mut batches = Vec::new();
    for (from, to) in [(0, 50), (50, 80), (80, 81), (81, 82), (82, 83), (83, 90)] {
        let mut batch = Batch::default();
        batch.push(&tokens[from..to], from, &tables, Want::Logits);
        batches.push(batch);
    }
    batches
}

fn difference(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let pairs = a.iter().zip(b);
    norm(&mut pairs.map(|(a, b)| f64::from(a - b))) / norm(&mut a.iter().map(|&a| f64::from(a)))
}

/// On CPUs alone the bits are the same; beside a GPU, whose attention sums up in another order, nearly the
/// same.
fn agree(a: &[f32], b: &[f32]) -> bool {
    let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    a.len() == b.len() && (same || (on_gpu() && difference(a, b) < 0.02))
}

fn compare(model: &str) {
    let path = model_path(&format!("{model}.gguf"));
    let (mut one, mut many) = (whole(&path), split(&path));
    for (i, batch) in batches(&*one).iter().enumerate() {
        one.forward(batch).unwrap();
        many.forward(batch).unwrap();
        assert!(agree(one.outputs().host(), many.outputs().host()), "batch {i} of {model}");
    }
    // Export and import pages on all parts at once.
    let (mut page, mut again) = (Vec::new(), Vec::new());
    many.export_page(0, &mut page).unwrap();
    many.import_page(PAGES as u32 - 1, &page).unwrap();
    many.export_page(PAGES as u32 - 1, &mut again).unwrap();
    assert!(!page.is_empty() && page == again);
    assert!(many.import_page(0, &page[1..]).is_err());
}

#[test]
fn a_model_on_parts_computes_what_it_computes_on_one() {
    compare("smollm2-135m-instruct-q4_1");
}

#[test]
fn layers_with_and_without_a_window_may_be_apart() {
    compare("gemma-3-270m-q4_k_m");
}

#[test]
fn experts_may_be_apart_from_their_layers() {
    for name in [
        "qwen3moe-q4_k",
        "gpt-oss-mxfp4",
        "deepseek3-f16",
        "qwen2moe-f16",
        "llama4-f16",
        "granitemoe-shared-f16",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join(format!("../../tests/reference/tiny/{name}.gguf"));
        let (mut one, mut many) = (layers_on_one(&path, None), layers_on_one(&path, Some(0)));
        let tables = tables(&*one, &(0..PAGES as u32).collect::<Vec<_>>());
        for (from, to) in [(0, 50), (50, 51), (51, 60)] {
            let mut batch = Batch::default();
            let tokens: Vec<u32> = (from..to).map(|i| i * 37 % 97).collect();
            batch.push(&tokens, from as usize, &tables, Want::Logits);
            one.forward(&batch).unwrap();
            many.forward(&batch).unwrap();
            let (a, b) = (one.outputs().host(), many.outputs().host());
            println!("{name} from {from}: {}", difference(a, b));
            assert!(agree(a, b), "{name} from {from}: {}", difference(a, b));
        }
    }
}

#[test]
fn kept_rows_stay_what_they_were_however_many_passes_follow() {
    let path = model_path("smollm2-135m-instruct-q4_1.gguf");
    let mut runner = split(&path);
    let tables = tables(&*runner, &(0..PAGES as u32).collect::<Vec<_>>());
    let mut held = Vec::new();
    for step in 0..12 {
        let mut batch = Batch { top_k: true, keep: true, ..Batch::default() };
        batch.push(&[100 + step as u32, 7], step * 2, &tables, Want::Logits);
        runner.forward(&batch).unwrap();
        let Outputs::Device(rows) = runner.outputs() else { panic!("logits on the host") };
        let mut now = Vec::new();
        rows.read(1, &mut now).unwrap();
        assert!(rows.read(2, &mut Vec::new()).is_err() && rows.top_k(2).is_err());
        let top_k: Vec<_> = rows.top_k(1).unwrap().iter().collect();
        assert!(top_k.iter().all(|&(token, logit)| now[token as usize].to_bits() == logit.to_bits()));
        assert!(now.iter().all(|&logit| logit <= top_k[0].1));
        // Hold one of two rows of every pass, for more passes than there are buffers.
        held.push((rows.keep(1).unwrap(), now));
        if step % 3 == 2 {
            held.swap_remove(0);
        }
        for (row, values) in &held {
            let mut read = Vec::new();
            row.read(&mut read).unwrap();
            assert!(read.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()), "step {step}");
        }
    }
    assert!(held.len() > 6);
    drop(runner);
    // The model may already be gone.
    let mut read = Vec::new();
    held[0].0.read(&mut read).unwrap();
    assert_eq!(read, held[0].1);
}
