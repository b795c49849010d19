//! Logits that stay on a device give the same results as those on the host.

mod common;

use std::sync::Arc;

use common::{Read, anybody, request};
use realm_compute::cpu::CpuBackend;
use realm_compute::parts::{Part, PartsBackend, Plan};
use realm_engine::{Engine, EngineConfig, Logits, Sampler, Sampling, Sequence, TokenMask};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::names::TensorId;
use realm_model::{Transformer, Weights};
use realm_tokenizer::Tokenizer;

/// The same model twice: as one, whose logits are in the host's memory, and in two parts, whose logits are
/// not.
fn engines() -> (Engine, Engine, Arc<Tokenizer>) {
    let path = Hub::new().unwrap().resolve(&Reference::parse("smollm2-135m").unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let config = EngineConfig { kv_tokens: Some(4096), ..EngineConfig::default() };
    let cpu = Arc::new(CpuBackend::new(2).unwrap());
    let one = Arc::new(Transformer::load(Arc::clone(&cpu), &gguf, &mut |_, _| {}).unwrap());
    let layers = (0..one.config().layers.len()).map(|layer| usize::from(layer > 9)).collect();
    let plan = Plan { layers, embeddings: 1, output: 1, experts: None };
    let parts =
        PartsBackend::new(vec![Part::Cpu(Arc::clone(&cpu)), Part::Cpu(cpu)], plan, TensorId::place).unwrap();
    let two = Arc::new(Transformer::load(Arc::new(parts), &gguf, &mut |_, _| {}).unwrap());
    let engine = |weights: &dyn Weights| Engine::new(weights, Arc::clone(&tokenizer), &config).unwrap();
    (engine(&one), engine(&two), tokenizer)
}

fn next(sequence: &mut Sequence, tokens: &[u32]) -> Logits {
    sequence.append(tokens).unwrap();
    sequence.start_logits(false).unwrap().wait().unwrap().rows.pop().unwrap()
}

#[test]
fn every_question_has_the_same_answer() {
    let (one, two, tokenizer) = engines();
    let prompt = tokenizer.encode("The capital of France is", true, true);
    let mut sequences = [&one, &two].map(|engine| engine.sequence(&anybody(), None, 0).unwrap());
    let mut rows = sequences.each_mut().map(|sequence| next(sequence, &prompt));
    let vocabulary = rows[0].vocabulary();
    assert!(rows[0].top_k(5).is_none() && rows[1].top_k(5).is_some(), "only one of them is on a device");
    let best = rows.each_mut().map(|row| row.argmax().unwrap());
    assert_eq!(best[0], best[1]);
    let unlikely = (best[0] + 1234) % vocabulary as u32;
    let mask = |tokens: &[u32]| {
        let mut mask = TokenMask::none(vocabulary);
        tokens.iter().for_each(|&token| mask.allow(token));
        mask
    };
    let samplings = [
        Sampling::greedy(),
        Sampling { seed: Some(1), ..Sampling::default() },
        Sampling { seed: Some(2), top_k: 0, temperature: 2.0, min_p: 0.0, ..Sampling::default() },
        Sampling { banned_tokens: vec![best[0]], ..Sampling::greedy() },
    ];
    for sampling in samplings {
        for mask in [None, Some(mask(&[unlikely])), Some(mask(&[best[0], unlikely])), Some(mask(&[]))] {
            // From the start each time, so that no earlier query has fetched the logits.
            for sequence in &mut sequences {
                sequence.truncate(prompt.len() - 1).unwrap();
            }
            let mut rows = sequences.each_mut().map(|sequence| next(sequence, &prompt[prompt.len() - 1..]));
            let tokens = rows.each_mut().map(|row| {
                let mut sampler = Sampler::new(sampling.clone(), &prompt);
                [row.sample(&mut sampler, mask.as_ref()), row.sample(&mut sampler, mask.as_ref())]
                    .map(Result::unwrap)
            });
            assert_eq!(tokens[0], tokens[1], "{sampling:?}");
        }
    }
    let few = rows[1].top_k(9).unwrap();
    for (token, logit) in few {
        assert_eq!(rows[0].get(token).unwrap().map(f32::to_bits), Some(logit.to_bits()));
    }
    for token in [best[0], unlikely, vocabulary as u32] {
        let found = rows.each_mut().map(|row| row.get(token).unwrap().map(f32::to_bits));
        assert_eq!(found[0], found[1]);
    }
    // Held rows give the same values after other passes.
    let after = sequences.each_mut().map(|sequence| next(sequence, &[best[0]]));
    drop(after);
    let values = rows.map(|mut row| row.values().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    assert_eq!(values[0], values[1]);
}

#[test]
fn every_new_tokens_logits_come_in_their_order() {
    let (one, two, tokenizer) = engines();
    let prompt = tokenizer.encode("One, two, three, four, five, six, seven", true, true);
    let rows = [&one, &two].map(|engine| {
        let mut sequence = engine.sequence(&anybody(), None, 0).unwrap();
        sequence.append(&prompt).unwrap();
        let mut rows = sequence.start_logits(true).unwrap().wait().unwrap().rows;
        rows.iter_mut().map(|row| row.argmax().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(rows[0].len(), prompt.len());
    assert_eq!(rows[0], rows[1]);
}

#[test]
fn a_sequences_text_is_a_generations_beside_others() {
    let (_, engine, tokenizer) = engines();
    let plain = engine.generate(&anybody(), request(&tokenizer, "Once upon a time", 20)).unwrap();
    let text = Read::all(plain).ids();
    // One request that needs all logits brings those of all requests to the host.
    let mut scored = request(&tokenizer, "Once upon a time", 20);
    scored.logprobs = Some(1);
    let beside = engine.generate(&anybody(), scored).unwrap();
    let mut sequence = engine.sequence(&anybody(), None, 0).unwrap();
    let (mut tokens, mut new) = (Vec::new(), tokenizer.encode("Once upon a time", true, true));
    while tokens.len() < 20 {
        let token = next(&mut sequence, &new).argmax().unwrap();
        tokens.push(token);
        new = vec![token];
    }
    assert_eq!(tokens, text);
    assert_eq!(Read::all(beside).ids(), text);
}
