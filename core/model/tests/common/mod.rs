//! Shared code of this crate's tests.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use realm_compute::cpu::CpuBackend;
use realm_compute::cuda::CudaBackend;
use realm_compute::{Backend, Batch, CacheType, Feature, PAGE_TOKENS, Want};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::{Forward, ModelConfig, Transformer, Weights};
use serde_json::Value;

/// Returns the path of a model in the user's cache folder; fetches it if it is missing.
pub(crate) fn model_path(file: &str) -> PathBuf {
    let entry = realm_hub::catalog().iter().find(|entry| entry.file == file).expect("a model of the catalog");
    let path = Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ()));
    path.expect("the model's file")
}

/// Returns whether the tests run on a GPU (`REALM_TEST_DEVICE=cuda`).
pub(crate) fn on_gpu() -> bool {
    std::env::var("REALM_TEST_DEVICE").is_ok_and(|device| device == "cuda")
}

/// The first GPU, the same for all tests; `None` without one. With `REALM_NEEDS_GPU` in the environment,
/// there must be one.
fn gpu() -> Option<Arc<CudaBackend>> {
    static GPU: OnceLock<Option<Arc<CudaBackend>>> = OnceLock::new();
    let open = || match CudaBackend::new(0) {
        Ok(gpu) => Some(Arc::new(gpu)),
        Err(realm_compute::Error::Unsupported(why)) if std::env::var_os("REALM_NEEDS_GPU").is_none() => {
            eprintln!("SKIPPED, for want of a GPU: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    GPU.get_or_init(open).clone()
}

/// A device that a test runs on.
#[derive(Clone)]
pub(crate) enum Device {
    /// Two threads.
    Cpu,
    Gpu(Arc<CudaBackend>),
}

impl Device {
    /// The device that this run of the tests is for.
    pub(crate) fn chosen() -> Self {
        if on_gpu() { Self::Gpu(gpu().expect("a GPU")) } else { Self::Cpu }
    }

    /// All devices: the CPU, unless this run is for the GPU, and the first GPU, if there is one.
    pub(crate) fn all() -> Vec<Self> {
        let cpu = (!on_gpu()).then_some(Self::Cpu);
        cpu.into_iter().chain(gpu().map(Self::Gpu)).collect()
    }

    pub(crate) fn is_gpu(&self) -> bool {
        matches!(self, Self::Gpu(_))
    }

    /// Returns what a model needs that the device does not compute.
    pub(crate) fn lacking(&self, path: &Path) -> Option<Feature> {
        let gguf = Gguf::open(path).expect("a GGUF file");
        let config = ModelConfig::from_gguf(&gguf).expect("a model");
        match self {
            Self::Cpu => None,
            Self::Gpu(gpu) => config.lacking(&gguf, &**gpu),
        }
    }

    /// Loads a model with room for `pages` pages of every group of layers.
    pub(crate) fn load(&self, path: &Path, pages: usize, kind: CacheType) -> Box<dyn Forward> {
        fn runner<B: Backend>(b: Arc<B>, path: &Path, pages: usize, kind: CacheType) -> Box<dyn Forward> {
            let gguf = Gguf::open(path).expect("a GGUF file");
            let model = Arc::new(Transformer::load(b, &gguf, &mut |_, _| {}).expect("a model"));
            let groups = model.config().cache_layout().groups();
            model.runner(pages * groups, kind).expect("a runner")
        }
        match self {
            Self::Cpu => runner(Arc::new(CpuBackend::new(2).expect("a backend")), path, pages, kind),
            Self::Gpu(gpu) => runner(Arc::clone(gpu), path, pages, kind),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_gpu() { "GPU" } else { "CPU" })
    }
}

/// Loads a model on the device that this run of the tests is for.
pub(crate) fn load(path: &Path, pages: usize, kind: CacheType) -> Box<dyn Forward> {
    Device::chosen().load(path, pages, kind)
}

/// Makes a page table for every group of layers from the first group's.
pub(crate) fn tables(runner: &dyn Forward, pages: &[u32]) -> Vec<Vec<u32>> {
    let groups = runner.layout().groups() as u32;
    (0..groups).map(|group| pages.iter().map(|page| page * groups + group).collect()).collect()
}

/// Returns the log-probabilities after each of `tokens`, `[tokens, vocab]`, fed in pieces of `piece`.
pub(crate) fn log_probabilities(runner: &mut dyn Forward, tokens: &[u32], piece: usize) -> Vec<Vec<f64>> {
    let vocab = runner.config().vocab;
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
    let tables = tables(runner, &pages);
    let mut out = Vec::new();
    for (i, tokens) in tokens.chunks(piece).enumerate() {
        let mut batch = Batch::default();
        batch.push(tokens, i * piece, &tables, Want::Logits);
        runner.forward(&batch).expect("a pass");
        out.extend(runner.outputs().host().chunks_exact(vocab).map(log_softmax));
    }
    out
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max) as f64;
    let sum: f64 = logits.iter().map(|&l| (l as f64 - max).exp()).sum();
    logits.iter().map(|&l| l as f64 - max - sum.ln()).collect()
}

/// Reads a JSON file under `tests/` of the repository.
pub(crate) fn json(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// Reads an array of token ids.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("an array").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
}
