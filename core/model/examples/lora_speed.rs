//! Measures the cost of adapters: tokens a second of one batch without adapters and with eight of them.
//!
//!     cargo run --release -p realm-model --example lora_speed -- MODEL.gguf [THREADS] [ROUNDS]
//!
//! Sixteen sequences decode in one batch, two for each of eight random adapters on all linear weights. Rounds
//! without adapters, with rank 8 and with rank 16 take turns; figures cover all steps of all rounds of a
//! kind. PEFT saves adapters in 16 or 32 bits; `TYPE=F32` measures 32 bits (for quantized weights, Realm
//! keeps these in 16 bits too).

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use half::bf16;
use realm_compute::cpu::CpuBackend;
use realm_compute::{AdapterUse, Batch, CacheType, PAGE_TOKENS, Want};
use realm_gguf::Gguf;
use realm_model::{AdapterFile, Forward, LayerSpec, ModelConfig, Transformer, Weights};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const SEQUENCES: usize = 16;
const ADAPTERS: usize = 8;
/// Steps per round, after a prompt of half as many tokens.
const STEPS: usize = 32;

/// A random adapter on all linear weights of a layer.
fn adapter(c: &ModelConfig, rank: usize, seed: usize) -> Result<AdapterFile, Box<dyn Error>> {
    let LayerSpec { attention, feed_forward, .. } = c.layers.first().ok_or("a model without layers")?;
    let (q, kv, hidden) = (attention.queries(), attention.keys(), c.hidden);
    let ff = feed_forward.every_row().ok_or("adapters for experts are not measured")?.width;
    let mut modules = vec![("self_attn.o_proj", q, hidden), ("mlp.down_proj", ff, hidden)];
    match c.architecture.name() {
        "phi3" => {
            modules
                .extend([("self_attn.qkv_proj", hidden, q + 2 * kv), ("mlp.gate_up_proj", hidden, 2 * ff)]);
        }
        _ => modules.extend([
            ("self_attn.q_proj", hidden, q),
            ("self_attn.k_proj", hidden, kv),
            ("self_attn.v_proj", hidden, kv),
            ("mlp.gate_proj", hidden, ff),
            ("mlp.up_proj", hidden, ff),
        ]),
    }
    let wide = std::env::var("TYPE").is_ok_and(|ty| ty == "F32");
    let mut state = seed as u32 * 2_654_435_761 + 1;
    let mut random = |n: usize| -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..n {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 0.02;
            if wide {
                bytes.extend(value.to_le_bytes());
            } else {
                bytes.extend(bf16::from_f32(value).to_le_bytes());
            }
        }
        bytes
    };
    let mut data = BTreeMap::new();
    for layer in 0..c.layers.len() {
        for &(module, inputs, outputs) in &modules {
            let name = |which| format!("base_model.model.model.layers.{layer}.{module}.lora_{which}.weight");
            data.insert(name("A"), (vec![rank, inputs], random(rank * inputs)));
            data.insert(name("B"), (vec![outputs, rank], random(outputs * rank)));
        }
    }
    let dtype = if wide { Dtype::F32 } else { Dtype::BF16 };
    let mut views = Vec::new();
    for (name, (shape, data)) in &data {
        views.push((name.as_str(), TensorView::new(dtype, shape.clone(), data)?));
    }
    let config = format!(r#"{{"peft_type": "LORA", "r": {rank}, "lora_alpha": {rank}}}"#);
    Ok(AdapterFile::from_peft(&config, safetensors::serialize(views, None)?)?)
}

/// Returns the seconds of every step, in which all sequences decode a token after a prompt. Adapters have the
/// ids `first ..`.
fn round(runner: &mut dyn Forward, first: Option<u32>) -> Result<Vec<f64>, Box<dyn Error>> {
    let groups = runner.layout().groups() as u32;
    let pages = (2 * STEPS).div_ceil(PAGE_TOKENS) as u32;
    let tables = |sequence: usize| -> Vec<Vec<u32>> {
        let page = |group: u32, i: u32| (sequence as u32 * groups + group) * pages + i;
        (0..groups).map(|group| (0..pages).map(|i| page(group, i)).collect()).collect()
    };
    let mut batch = Batch::default();
    let push = |batch: &mut Batch, sequence: usize, tokens: &[u32], past: usize| {
        batch.push(tokens, past, &tables(sequence), Want::LastLogits);
        let id = first.map(|first| first + (sequence % ADAPTERS) as u32);
        batch.spans[sequence].adapter = id.map(|id| AdapterUse { id, scale: 1.0 });
    };
    for sequence in 0..SEQUENCES {
        push(&mut batch, sequence, &[5; STEPS / 2], 0);
    }
    runner.forward(&batch)?;
    let mut seconds = Vec::new();
    for step in 0..STEPS {
        let start = Instant::now();
        batch.clear();
        for sequence in 0..SEQUENCES {
            push(&mut batch, sequence, &[7], STEPS / 2 + step);
        }
        runner.forward(&batch)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which model?")?;
    let threads = arguments.next().map_or(Ok(2), |n| n.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(9), |n| n.parse())?;
    let model =
        Arc::new(Transformer::load(Arc::new(CpuBackend::new(threads)?), &Gguf::open(path)?, &mut |_, _| {})?);
    let pages = SEQUENCES * model.config().cache_layout().groups() * (2 * STEPS).div_ceil(PAGE_TOKENS);
    let mut runner = model.runner(pages, CacheType::F32)?;
    let kinds = [("no adapter", None), ("rank 8", Some(0)), ("rank 16", Some(ADAPTERS as u32))];
    for (rank, first) in [(8, 0), (16, ADAPTERS)] {
        let mut bytes = 0;
        for id in first..first + ADAPTERS {
            let adapter = model.adapter(&adapter(model.config(), rank, id)?)?;
            bytes += adapter.bytes();
            runner.set_adapter(id as u32, Some(adapter))?;
        }
        println!("{ADAPTERS} adapters of rank {rank}: {:.1} MiB", bytes as f64 / (1 << 20) as f64);
    }
    let mut steps = kinds.map(|_| Vec::new());
    for _ in 0..rounds {
        for ((_, first), steps) in kinds.iter().zip(&mut steps) {
            steps.extend(round(&mut *runner, *first)?);
        }
    }
    println!("{}, {rounds} rounds, tokens/s, median and best tenth of the steps:", model.device());
    let speeds = steps.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        [seconds.len() / 2, seconds.len() / 10].map(|i| SEQUENCES as f64 / seconds[i])
    });
    for ((name, _), speed) in kinds.iter().zip(speeds) {
        let [median, best] = [0, 1].map(|i| (speed[i], (speed[i] / speeds[0][i] - 1.0) * 100.0));
        println!("{name:>12}: {:8.1}  {:+.1} %   {:8.1}  {:+.1} %", median.0, median.1, best.0, best.1);
    }
    Ok(())
}
