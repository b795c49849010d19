//! The engine that the targets work on, with the tiny model of the conformance suite.

use std::sync::Arc;

use realm_compute::cpu::CpuBackend;
use realm_engine::{Engine, EngineConfig, Limits, Output, Tenant};
use realm_gguf::Gguf;
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;

/// Starts an engine; returns it with its model.
pub fn tiny() -> (Engine, Arc<Transformer<CpuBackend>>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/conformance/tiny.gguf");
    let gguf = Gguf::open(path).expect("a GGUF file");
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).expect("a tokenizer"));
    let backend = Arc::new(CpuBackend::new(1).expect("a backend"));
    let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).expect("a model"));
    let engine = Engine::new(&model, tokenizer, &EngineConfig::default()).expect("an engine");
    (engine, model)
}

/// Creates a tenant with the default limits.
pub fn tenant(name: &str) -> Arc<Tenant> {
    Arc::new(Tenant::new(name, Limits::default()).expect("a tenant"))
}

/// Computes logits for another tenant, which nothing that a target does may change.
pub fn bystander(engine: &Engine) -> Vec<f32> {
    let mut sequence = engine.sequence(&tenant("another"), None, 0).expect("a sequence");
    sequence.append(&[9, 8, 7]).expect("tokens");
    sequence.forward(Output::LastLogits).expect("a forward").values
}
