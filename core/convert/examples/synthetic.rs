//! Writes a GGUF file of a known model's geometry with random weights, for benchmarks: speed and memory
//! depend on geometry and types, not on what the weights say. The text that such a model writes is noise.
//!
//!     cargo run --release -p realm-convert --example synthetic -- qwen3-30b-a3b q4_k_m out.gguf

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufWriter, Write};

use realm_convert::{Recipe, quantize, types_of};
use realm_gguf::{Array, Gguf, Metadata, TensorInfo, TensorType, Tensors, Value, Writer};

/// Numbers that are drawn and quantized once for each type; tensors repeat them. A prime number of blocks, so
/// that rows differ: equal rows of the output matrix would be equally likely tokens.
const DRAWN: usize = 65_537 * 256;
/// Standard deviation of weights.
const DEVIATION: f32 = 0.02;

#[derive(Clone, Copy)]
struct Geometry {
    name: &'static str,
    architecture: &'static str,
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: u32,
    rope_base: f32,
    /// Width of a dense feed-forward network, or of an expert.
    width: usize,
    experts: usize,
    used: u32,
}

#[rustfmt::skip]
const ALL: [Geometry; 5] = [
    Geometry { name: "llama-7b", architecture: "llama", layers: 32, hidden: 4096, heads: 32, kv_heads: 32, head_dim: 128,
        vocab: 32_000, context: 32_768, rope_base: 1e4, width: 11_008, experts: 0, used: 0 },
    Geometry { name: "llama-8b", architecture: "llama", layers: 32, hidden: 4096, heads: 32, kv_heads: 8, head_dim: 128,
        vocab: 128_256, context: 131_072, rope_base: 5e5, width: 14_336, experts: 0, used: 0 },
    Geometry { name: "qwen3-30b-a3b", architecture: "qwen3moe", layers: 48, hidden: 2048, heads: 32, kv_heads: 4, head_dim: 128,
        vocab: 151_936, context: 40_960, rope_base: 1e6, width: 768, experts: 128, used: 8 },
    Geometry { name: "gpt-oss-20b", architecture: "gpt-oss", layers: 24, hidden: 2880, heads: 64, kv_heads: 8, head_dim: 64,
        vocab: 201_088, context: 131_072, rope_base: 1.5e5, width: 2880, experts: 32, used: 4 },
    Geometry { name: "moe-1b-a0.3b", architecture: "qwen3moe", layers: 20, hidden: 1024, heads: 16, kv_heads: 8, head_dim: 64,
        vocab: 32_000, context: 8192, rope_base: 1e4, width: 512, experts: 32, used: 6 },
];

/// Tensors that are not read.
struct Unread;

impl Tensors for Unread {
    fn read(&self, _: usize, _: &mut Vec<u8>) -> Result<(), realm_gguf::Error> {
        unreachable!("only the index is used")
    }

    fn file_bytes(&self) -> u64 {
        0
    }
}

impl Geometry {
    fn metadata(&self) -> Metadata {
        let key = |name: &str| format!("{}.{name}", self.architecture);
        let number = |name: &str, value: usize| (key(name), Value::U32(value as u32));
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        let (special, bytes) = (3, tokens.len());
        tokens.extend((bytes..self.vocab).map(|i| format!("\u{2581}w{i:x}")));
        let kind = |i: usize| match i {
            0 => 2,
            _ if i < special => 3,
            _ if i < bytes => 6,
            _ => 1,
        };
        let mut all = vec![
            ("general.architecture".to_owned(), Value::String(self.architecture.into())),
            ("general.name".to_owned(), Value::String(format!("synthetic {}", self.name))),
            number("block_count", self.layers),
            number("context_length", self.context as usize),
            number("embedding_length", self.hidden),
            number("feed_forward_length", self.width),
            number("attention.head_count", self.heads),
            number("attention.head_count_kv", self.kv_heads),
            number("attention.key_length", self.head_dim),
            number("attention.value_length", self.head_dim),
            (key("rope.freq_base"), Value::F32(self.rope_base)),
            (key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5)),
            number("vocab_size", self.vocab),
            ("tokenizer.ggml.model".to_owned(), Value::String("llama".into())),
            (
                "tokenizer.ggml.scores".to_owned(),
                Value::Array(Array::F32((0..self.vocab).map(|i| -(i as f32)).collect())),
            ),
            (
                "tokenizer.ggml.token_type".to_owned(),
                Value::Array(Array::I32((0..self.vocab).map(kind).collect())),
            ),
            (
                "tokenizer.ggml.tokens".to_owned(),
                Value::Array(Array::Strings(tokens.iter().map(String::as_bytes).collect())),
            ),
            ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(1)),
            ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(2)),
        ];
        if self.experts > 0 {
            all.push(number("expert_count", self.experts));
            all.push(number("expert_used_count", self.used as usize));
            all.push(number("expert_feed_forward_length", self.width));
        }
        if self.architecture == "gpt-oss" {
            all.push(number("attention.sliding_window", 128));
            all.push((key("rope.scaling.type"), Value::String("yarn".into())));
            all.push((key("rope.scaling.factor"), Value::F32(32.0)));
            all.push(number("rope.scaling.original_context_length", 4096));
        }
        Metadata::from_entries(all)
    }

    fn tensors(&self) -> Vec<TensorInfo> {
        let mut all = Vec::new();
        let mut add = |name: String, shape: &[usize]| {
            let shape = shape.iter().map(|&n| n as u64).collect();
            all.push(TensorInfo::new(name, shape, TensorType::F32).expect("a shape of a few numbers"));
        };
        let (h, q, kv) = (self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let oss = self.architecture == "gpt-oss";
        add("token_embd.weight".into(), &[h, self.vocab]);
        for layer in 0..self.layers {
            let mut matrix = |name: &str, shape: &[usize], bias: bool| {
                add(format!("blk.{layer}.{name}.weight"), shape);
                if bias {
                    add(format!("blk.{layer}.{name}.bias"), &shape[1..]);
                }
            };
            matrix("attn_norm", &[h], false);
            matrix("attn_q", &[h, q], oss);
            matrix("attn_k", &[h, kv], oss);
            matrix("attn_v", &[h, kv], oss);
            matrix("attn_output", &[q, h], oss);
            if oss {
                matrix("attn_sinks", &[self.heads], false);
            } else if self.experts > 0 {
                matrix("attn_q_norm", &[self.head_dim], false);
                matrix("attn_k_norm", &[self.head_dim], false);
            }
            matrix(if oss { "post_attention_norm" } else { "ffn_norm" }, &[h], false);
            if self.experts == 0 {
                matrix("ffn_gate", &[h, self.width], false);
                matrix("ffn_up", &[h, self.width], false);
                matrix("ffn_down", &[self.width, h], false);
                continue;
            }
            matrix("ffn_gate_inp", &[h, self.experts], oss);
            matrix("ffn_gate_exps", &[h, self.width, self.experts], oss);
            matrix("ffn_up_exps", &[h, self.width, self.experts], oss);
            matrix("ffn_down_exps", &[self.width, h, self.experts], oss);
        }
        add("output_norm.weight".into(), &[h]);
        add("output.weight".into(), &[h, self.vocab]);
        all
    }
}

/// Numbers of about a normal distribution, the same in every run.
fn draw() -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    // The variance of a uniform number is 1/12.
    (0..DRAWN).map(|_| DEVIATION * (0..12).map(|_| uniform()).sum::<f32>()).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [preset, recipe, path] = &arguments[..] else {
        let names: Vec<_> = ALL.iter().map(|geometry| geometry.name).collect();
        return Err(format!("usage: synthetic {} RECIPE OUT.gguf", names.join("|")).into());
    };
    let geometry = ALL.iter().find(|geometry| geometry.name == preset).ok_or("an unknown geometry")?;
    let recipe = Recipe::named(recipe)?;
    let plain = Gguf::from_tensors(geometry.metadata(), geometry.tensors(), Box::new(Unread))?;
    let typed = plain.tensors().iter().zip(types_of(&plain, recipe));
    let index: Option<Vec<_>> =
        typed.map(|(tensor, ty)| TensorInfo::new(tensor.name.clone(), tensor.shape.clone(), ty)).collect();
    let index = index.ok_or("a type whose blocks do not fit into rows")?;
    let numbers = draw();
    let mut drawn: HashMap<TensorType, Vec<u8>> = HashMap::new();
    let mut writer =
        Writer::new(BufWriter::with_capacity(1 << 20, File::create(path)?), &geometry.metadata(), &index)?;
    for tensor in &index {
        let bytes = if tensor.name.ends_with("_norm.weight") {
            1f32.to_le_bytes().repeat(tensor.len())
        } else {
            let blocks = match drawn.entry(tensor.ty) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let mut blocks = Vec::new();
                    quantize(tensor.ty, &numbers, 256, None, &mut blocks)?;
                    new.insert(blocks)
                }
            };
            let mut bytes = Vec::with_capacity(tensor.bytes());
            while bytes.len() < tensor.bytes() {
                let left = tensor.bytes() - bytes.len();
                bytes.extend_from_slice(&blocks[..left.min(blocks.len())]);
            }
            bytes
        };
        writer.tensor(&bytes)?;
    }
    writer.finish()?.flush()?;
    Ok(())
}
