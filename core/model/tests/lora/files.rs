//! Random adapters, written in the formats of PEFT and llama.cpp, and models with such changes merged into
//! them.

use std::collections::HashMap;

use half::{bf16, f16};
use realm_compute::quant;
use realm_gguf::{Gguf, TensorType, Value};
use realm_model::ModelConfig;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

use crate::writer::Writer;

/// A small random number generator (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns roughly normal numbers of deviation `deviation` that 16 bits hold exactly.
    pub(crate) fn floats(&mut self, n: usize, deviation: f32) -> Vec<f32> {
        let number = |_| {
            let sum: f32 = (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum();
            f32::from_bits((sum * 1.7 * deviation).to_bits() & 0xffff_0000)
        };
        (0..n).map(number).collect()
    }
}

/// The change `b · a` of one weight, with its rows in PEFT's order.
pub(crate) struct Change {
    pub(crate) peft: String,
    pub(crate) gguf: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Number of heads whose rows are in another order in llama's GGUF files.
    heads: Option<usize>,
    pub(crate) rank: usize,
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
}

impl Change {
    /// Returns `b` with its rows in the order of the model's GGUF file.
    fn b_of_file(&self) -> Vec<f32> {
        let Some(heads) = self.heads else { return self.b.clone() };
        let dim = self.outputs / heads;
        let mut out = vec![0.0; self.b.len()];
        for head in 0..heads {
            for half in 0..2 {
                for i in 0..dim / 2 {
                    let (from, to) = (head * dim + half * dim / 2 + i, head * dim + 2 * i + half);
                    out[to * self.rank..][..self.rank]
                        .copy_from_slice(&self.b[from * self.rank..][..self.rank]);
                }
            }
        }
        out
    }
}

/// Returns changes of all weights of a model that can be changed, including `output` if it has a tensor of
/// its own.
pub(crate) fn changes(c: &ModelConfig, output: bool, rank: usize, seed: u64) -> Vec<Change> {
    let mut random = Random(seed);
    let attention = &c.layers[0].attention;
    let (q, kv, hidden) = (attention.queries(), attention.keys(), c.hidden);
    let ff = c.layers[0].feed_forward.every_row().expect("no experts").width;
    let llama = c.architecture.name() == "llama";
    let mut all = Vec::new();
    let mut add = |peft: String, gguf: String, inputs: usize, outputs: usize, heads: Option<usize>| {
        let a = random.floats(rank * inputs, 1.0 / (inputs as f32).sqrt());
        let b = random.floats(outputs * rank, 0.3);
        all.push(Change { peft, gguf, inputs, outputs, heads: heads.filter(|_| llama), rank, a, b });
    };
    for i in 0..c.layers.len() {
        let modules = if c.architecture.name() == "phi3" {
            vec![
                ("self_attn.qkv_proj", "attn_qkv", hidden, q + 2 * kv, None),
                ("mlp.gate_up_proj", "ffn_up", hidden, 2 * ff, None),
            ]
        } else {
            vec![
                ("self_attn.q_proj", "attn_q", hidden, q, Some(attention.heads)),
                ("self_attn.k_proj", "attn_k", hidden, kv, Some(attention.kv_heads)),
                ("self_attn.v_proj", "attn_v", hidden, kv, None),
                ("mlp.gate_proj", "ffn_gate", hidden, ff, None),
                ("mlp.up_proj", "ffn_up", hidden, ff, None),
            ]
        };
        let both = [
            ("self_attn.o_proj", "attn_output", q, hidden, None),
            ("mlp.down_proj", "ffn_down", ff, hidden, None),
        ];
        for (peft, gguf, inputs, outputs, heads) in modules.into_iter().chain(both) {
            add(format!("model.layers.{i}.{peft}"), format!("blk.{i}.{gguf}"), inputs, outputs, heads);
        }
    }
    if output {
        add("lm_head".into(), "output".into(), hidden, c.vocab, None);
    }
    all
}

pub(crate) fn bytes(values: &[f32], ty: TensorType) -> Vec<u8> {
    match ty {
        TensorType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        TensorType::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// Returns `adapter_config.json` and `adapter_model.safetensors`.
pub(crate) fn peft(changes: &[Change], alpha: f64, ty: TensorType) -> (String, Vec<u8>) {
    let dtype = match ty {
        TensorType::F16 => Dtype::F16,
        TensorType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let mut data = Vec::new();
    for c in changes {
        let name = |which: &str| format!("base_model.model.{}.lora_{which}.weight", c.peft);
        data.push((name("A"), vec![c.rank, c.inputs], bytes(&c.a, ty)));
        data.push((name("B"), vec![c.outputs, c.rank], bytes(&c.b, ty)));
    }
    let views = data.iter().map(|(name, shape, data)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), data).expect("a tensor"))
    });
    let file = safetensors::serialize(views, None).expect("a safetensors file");
    let config = json!({"peft_type": "LORA", "r": changes[0].rank, "lora_alpha": alpha, "bias": "none",
        "use_dora": false, "use_rslora": false, "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {},
        "fan_in_fan_out": false, "init_lora_weights": true, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"});
    (config.to_string(), file)
}

/// Returns a GGUF adapter.
pub(crate) fn gguf(changes: &[Change], alpha: f32, architecture: &str, ty: TensorType) -> Vec<u8> {
    let string = |s: &str| Value::String(s.into());
    let mut writer = Writer::new()
        .value("general.type", string("adapter"))
        .value("general.architecture", string(architecture))
        .value("adapter.type", string("lora"))
        .value("adapter.lora.alpha", Value::F32(alpha));
    for c in changes {
        let (a, b) = ([c.inputs as u64, c.rank as u64], [c.rank as u64, c.outputs as u64]);
        writer = writer
            .tensor_with(format!("{}.weight.lora_a", c.gguf), &a, ty.id(), bytes(&c.a, ty))
            .tensor_with(format!("{}.weight.lora_b", c.gguf), &b, ty.id(), bytes(&c.b_of_file(), ty));
    }
    writer.bytes()
}

/// Returns a model file in F32 whose tensors `edit` has changed.
pub(crate) fn rewritten(
    model: &Gguf,
    rename: impl Fn(&str) -> String,
    architecture: &str,
    mut edit: impl FnMut(&str, &[u64], &mut Vec<f32>),
) -> Vec<u8> {
    let mut writer = Writer::new();
    for (key, value) in model.metadata().iter() {
        writer = match key {
            "general.architecture" => writer.value(key, Value::String(architecture.into())),
            _ => writer.value(rename(key), value.clone()),
        };
    }
    for info in model.tensors() {
        let mut buffer = Vec::new();
        let data = model.read(info, &mut buffer).expect("a tensor");
        let mut values = vec![0.0; info.len()];
        quant::dequantize(info.ty, data, &mut values).expect("floats");
        edit(&info.name, &info.shape, &mut values);
        writer = writer.tensor_with(
            &info.name,
            &info.shape,
            TensorType::F32.id(),
            bytes(&values, TensorType::F32),
        );
    }
    writer.bytes()
}

/// Returns a model file in F32 with `scale` times the changes merged into its weights.
pub(crate) fn merged(model: &Gguf, architecture: &str, changes: &[Change], scale: f64) -> Vec<u8> {
    let by_name: HashMap<String, &Change> =
        changes.iter().map(|c| (format!("{}.weight", c.gguf), c)).collect();
    let mut left = by_name.len();
    let file = rewritten(model, str::to_owned, architecture, |name, _, weights| {
        let Some(c) = by_name.get(name) else { return };
        left -= 1;
        for (b, weights) in c.b_of_file().chunks_exact(c.rank).zip(weights.chunks_exact_mut(c.inputs)) {
            for (k, weight) in weights.iter_mut().enumerate() {
                let sum: f64 =
                    b.iter().enumerate().map(|(r, &b)| b as f64 * c.a[r * c.inputs + k] as f64).sum();
                *weight = (*weight as f64 + scale * sum) as f32;
            }
        }
    });
    assert_eq!(left, 0, "changes without a weight");
    file
}
