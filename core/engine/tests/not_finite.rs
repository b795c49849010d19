//! A model that computes NaN reports an error instead of an empty answer.

mod common;

use std::sync::Arc;

use common::{anybody, request};
use realm_compute::cpu::CpuBackend;
use realm_engine::{Engine, EngineConfig, Error, Grammar, Pooling, Request, Sampling};
use realm_gguf::Gguf;
use realm_model::Transformer;
use realm_tokenizer::Tokenizer;

/// The tiny model with the largest finite numbers as weights of its last norm: results of computing with them
/// are not finite.
fn broken() -> (Engine, Arc<Tokenizer>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/tiny.gguf");
    let mut bytes = std::fs::read(path).unwrap();
    let whole = Gguf::from_bytes(bytes.clone()).unwrap();
    let norm = whole.tensors().iter().find(|tensor| &*tensor.name == "output_norm.weight").unwrap();
    for at in (norm.offset()..norm.offset() + norm.bytes()).step_by(4) {
        bytes[at..at + 4].copy_from_slice(&f32::MAX.to_le_bytes());
    }
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let backend = Arc::new(CpuBackend::new(1).unwrap());
    let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap());
    (Engine::new(&model, Arc::clone(&tokenizer), &EngineConfig::default()).unwrap(), tokenizer)
}

#[test]
fn what_is_no_number_is_an_error_that_names_the_place() {
    let (engine, tokenizer) = broken();
    let greedy = request(&tokenizer, "abc", 4);
    let sampled = Request { sampling: Sampling { seed: Some(1), ..Sampling::default() }, ..greedy.clone() };
    let guided = Request { grammar: Some(Grammar::JsonObject), ..greedy.clone() };
    let judged = Request { logprobs: Some(2), ..greedy.clone() };
    for request in [greedy, sampled, guided, judged] {
        let mut chunks = engine.generate(&anybody(), request).unwrap();
        let error = chunks.find_map(Result::err).expect("an error");
        assert!(matches!(&error, Error::NotFinite(why) if why.contains("generated token 1")), "{error}");
    }
    let tokens = tokenizer.encode("abcdef", true, true);
    let error = engine.score(&anybody(), None, tokens.clone(), 0, 1).unwrap().wait().unwrap_err();
    assert!(matches!(&error, Error::NotFinite(why) if why.contains("token ")), "{error}");
    let error = engine.embed(&anybody(), None, tokens, Pooling::Mean, true).unwrap().wait().unwrap_err();
    assert!(matches!(&error, Error::NotFinite(why) if why.contains("hidden states")), "{error}");
}
