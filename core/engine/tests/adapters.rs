//! Adapters in the engine, with a real model.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::Read;
use realm_compute::cpu::CpuBackend;
use realm_engine::{Adapter, Engine, EngineConfig, Error, Finish, Limits, Output, Request, Sampling, Tenant};
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_model::{AdapterFile, AdapterWeights, ModelConfig, Transformer, Weights};
use realm_tokenizer::Tokenizer;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

struct Setup {
    engine: Engine,
    model: Arc<Transformer<CpuBackend>>,
    tokenizer: Arc<Tokenizer>,
    tenant: Arc<Tenant>,
}

fn setup(config: &EngineConfig) -> Setup {
    let path = Hub::new().unwrap().resolve(&Reference::parse("smollm2-135m").unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap());
    let backend = Arc::new(CpuBackend::new(2).unwrap());
    let model = Arc::new(Transformer::load(backend, &gguf, &mut |_, _| {}).unwrap());
    let engine = Engine::new(&model, Arc::clone(&tokenizer), config).unwrap();
    let tenant = Arc::new(Tenant::new("anybody", Limits::default()).unwrap());
    Setup { engine, model, tokenizer, tenant }
}

/// A random adapter for the queries and for the feed-forward network's output, in every layer.
fn file(c: &ModelConfig, seed: u32) -> AdapterFile {
    let mut state = seed * 7919 + 1;
    let mut random = |n: usize, deviation: f32| -> Vec<u8> {
        let number = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * deviation
        };
        (0..n).map(number).flat_map(f32::to_le_bytes).collect()
    };
    let mut data = Vec::new();
    for (layer, spec) in c.layers.iter().enumerate() {
        let inner = spec.feed_forward.every_row().expect("a dense model").width;
        let modules =
            [("self_attn.q_proj", c.hidden, spec.attention.queries()), ("mlp.down_proj", inner, c.hidden)];
        for (module, inputs, outputs) in modules {
            let name =
                |which: char| format!("base_model.model.model.layers.{layer}.{module}.lora_{which}.weight");
            data.push((name('A'), vec![4, inputs], random(4 * inputs, 0.25)));
            data.push((name('B'), vec![outputs, 4], random(outputs * 4, 0.25)));
        }
    }
    let views = data.iter().map(|(name, shape, data)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    let tensors = safetensors::serialize(views, None).unwrap();
    AdapterFile::from_peft(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 4}"#, tensors).unwrap()
}

impl Setup {
    fn weights(&self, seed: u32) -> Arc<dyn AdapterWeights> {
        self.model.adapter(&file(self.model.config(), seed)).unwrap()
    }

    fn adapter(&self, seed: u32) -> Adapter {
        self.engine.add_adapter(format!("adapter {seed}"), self.weights(seed)).unwrap()
    }

    fn request(&self, adapter: Option<(&Adapter, f32)>, tokens: usize) -> Request {
        let text = "Once upon a time, in a village by the sea, there lived an old man who had never seen the water, \
            because he was afraid of it. One day";
        Request {
            prompt: self.tokenizer.encode(text, true, true),
            sampling: Sampling::greedy(),
            max_tokens: Some(tokens),
            ignore_eos: true,
            adapter: adapter.map(|(adapter, scale)| (adapter.clone(), scale)),
            ..Request::default()
        }
    }

    /// Returns the tokens and the end of a request.
    fn run(&self, adapter: Option<(&Adapter, f32)>) -> (Vec<u32>, Finish) {
        collect(self.engine.generate(&self.tenant, self.request(adapter, 20)).unwrap())
    }
}

fn collect(generation: realm_engine::Generation) -> (Vec<u32>, Finish) {
    let read = Read::all(generation);
    (read.ids(), read.finish)
}

#[test]
fn every_request_gets_its_adapter_in_any_company_also_when_pages_run_out() {
    let setup = setup(&EngineConfig::default());
    let adapters: Vec<Adapter> = (0..4).map(|seed| setup.adapter(seed)).collect();
    let alone: Vec<_> = uses(&adapters).map(|adapter| setup.run(adapter).0).collect();
    for (i, text) in alone.iter().enumerate() {
        assert!(alone[..i].iter().all(|other| other != text), "{i} is like another one");
    }
    assert!(setup.run(Some((&adapters[1], 0.0))).0 == alone[4]);
    // Room for two or three of the six: the others are preempted and computed again.
    let small = self::setup(&EngineConfig { kv_tokens: Some(192), ..EngineConfig::default() });
    for setup in [&setup, &small] {
        let adapters: Vec<Adapter> = (0..4).map(|seed| setup.adapter(seed)).collect();
        let together: Vec<_> = uses(&adapters)
            .map(|adapter| setup.engine.generate(&setup.tenant, setup.request(adapter, 20)).unwrap())
            .collect();
        for (generation, want) in together.into_iter().zip(&alone) {
            assert!(collect(generation).0 == *want);
        }
    }
}

/// Each adapter, none, and one with another scale.
fn uses(adapters: &[Adapter]) -> impl Iterator<Item = Option<(&Adapter, f32)>> {
    adapters.iter().map(|adapter| Some((adapter, 1.0))).chain([None, Some((&adapters[0], 0.5))])
}

#[test]
fn what_one_adapter_computed_is_not_remembered_for_another() {
    let setup = setup(&EngineConfig::default());
    let (one, other) = (setup.adapter(1), setup.adapter(2));
    for adapter in [None, Some((&one, 1.0)), Some((&other, 1.0)), Some((&one, 0.5))] {
        let (first, finish) = setup.run(adapter);
        assert_eq!(finish.usage.cached_tokens, 0, "{adapter:?}");
        let (again, finish) = setup.run(adapter);
        assert!(again == first && finish.usage.cached_tokens > 0, "{adapter:?}");
    }
}

#[test]
fn an_adapter_is_unloaded_with_its_last_handle_and_its_last_request() {
    let setup = setup(&EngineConfig::default());
    let weights = setup.weights(3);
    let handles = || Arc::strong_count(&weights);
    let adapter = setup.engine.add_adapter("a", Arc::clone(&weights)).unwrap();
    let mut generation =
        setup.engine.generate(&setup.tenant, setup.request(Some((&adapter, 1.0)), 400)).unwrap();
    generation.next().unwrap().unwrap();
    drop(adapter);
    generation.next().unwrap().unwrap();
    assert_eq!(handles(), 2);
    drop(generation);
    let start = Instant::now();
    while handles() > 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "it stays loaded");
        std::thread::sleep(Duration::from_millis(2));
    }
    let adapter = setup.engine.add_adapter("a", weights).unwrap();
    setup.run(Some((&adapter, 1.0)));
}

#[test]
fn a_sequence_and_its_forks_see_their_adapter() {
    let setup = setup(&EngineConfig::default());
    let adapter = setup.adapter(4);
    let want = setup.run(Some((&adapter, 1.0))).0[0];
    let mut sequence = setup.engine.sequence(&setup.tenant, Some((adapter, 1.0)), 0).unwrap();
    sequence.append(&setup.request(None, 1).prompt).unwrap();
    let mut fork = sequence.fork().unwrap();
    for sequence in [&mut sequence, &mut fork] {
        let forwarded = sequence.forward(Output::LastLogits).unwrap();
        let logits = forwarded.rows().next().unwrap();
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!(best as u32, want);
    }
}

#[test]
fn adapters_that_a_request_may_not_use_are_refused() {
    let setup = setup(&EngineConfig::default());
    let other = self::setup(&EngineConfig::default());
    let adapter = setup.adapter(1);
    let refused = |setup: &Setup, tenant: &Arc<Tenant>, scale: f32| {
        setup.engine.generate(tenant, setup.request(Some((&adapter, scale)), 1)).err().expect("an error")
    };
    assert!(matches!(refused(&setup, &setup.tenant, f32::NAN), Error::InvalidArgument(_)));
    let error = refused(&other, &other.tenant, 1.0);
    assert!(matches!(&error, Error::InvalidArgument(why) if why.contains("another model")), "{error}");
    let error = other.engine.add_adapter("a", setup.weights(1)).expect_err("an error");
    assert!(matches!(&error, Error::InvalidArgument(why) if why.contains("another model")), "{error}");
    let limits = Limits { adapters: Some(vec!["another".into()]), ..Limits::default() };
    let tenant = Arc::new(Tenant::new("small", limits).unwrap());
    let error = refused(&setup, &tenant, 1.0);
    assert!(matches!(&error, Error::LimitExceeded(why) if why.contains("adapter 1")), "{error}");
    let limits = Limits { adapters: Some(vec!["adapter 1".into()]), ..Limits::default() };
    tenant.set_limits(limits).unwrap();
    setup.engine.generate(&tenant, setup.request(Some((&adapter, 1.0)), 1)).unwrap();
}
