//! Writes folders as transformers saves them.

use std::path::{Path, PathBuf};

use realm_gguf::{Gguf, TensorType};
use serde_json::{Map, Value, json};

/// A tensor in a safetensors file: name, type, shape with the outermost dimension first, bytes.
pub(crate) type Stored = (String, &'static str, Vec<usize>, Vec<u8>);

pub(crate) fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/reference/tiny/{name}.gguf"))
}

pub(crate) fn safetensors(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        header.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

pub(crate) fn write(folder: &Path, name: &str, value: &Value) {
    std::fs::write(folder.join(name), serde_json::to_vec(value).unwrap()).unwrap();
}

pub(crate) fn bytes(gguf: &Gguf, name: &str) -> Vec<u8> {
    let mut buffer = Vec::new();
    gguf.read(gguf.require_tensor(name).unwrap(), &mut buffer).unwrap().to_vec()
}

fn dtype(ty: TensorType) -> &'static str {
    match ty {
        TensorType::F32 => "F32",
        TensorType::F16 => "F16",
        TensorType::BF16 => "BF16",
        other => panic!("{other}"),
    }
}

/// The name that transformers has for a tensor.
fn name_of(architecture: &str, name: &str) -> String {
    let outside = [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
    ];
    if let Some((_, theirs)) = outside.into_iter().find(|(ours, _)| *ours == name) {
        return theirs.into();
    }
    let (layer, part) = name.strip_prefix("blk.").unwrap().split_once('.').unwrap();
    let (part, suffix) = part.rsplit_once('.').unwrap();
    let gemma = architecture.starts_with("gemma");
    let module = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "post_attention_norm" => "post_attention_layernorm",
        "ffn_norm" if gemma => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" if architecture == "phi3" => "mlp.gate_up_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => panic!("{other}"),
    };
    format!("model.layers.{layer}.{module}.{suffix}")
}

/// Separates the two halves of each head's rows, as transformers has them.
fn apart(data: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row, size) = (data.len() / rows, rows / heads);
    let from = |i: usize| {
        let (head, at) = (i / size, i % size);
        head * size + at % (size / 2) * 2 + at / (size / 2)
    };
    (0..rows).flat_map(|i| data[from(i) * row..][..row].to_vec()).collect()
}

/// The tensors of a GGUF file as transformers has them.
pub(crate) fn tensors(gguf: &Gguf) -> Vec<Stored> {
    let architecture = gguf.metadata().require_str("general.architecture").unwrap();
    let heads =
        |key: &str| gguf.metadata().require_u32(&format!("{architecture}.attention.{key}")).unwrap() as usize;
    let plain = gguf.tensors().iter().filter(|tensor| !tensor.name.starts_with("rope_"));
    plain
        .map(|tensor| {
            let mut data = bytes(gguf, &tensor.name);
            let shape: Vec<_> = tensor.shape.iter().rev().map(|&n| n as usize).collect();
            if architecture == "llama" && tensor.name.contains("attn_q.") {
                data = apart(&data, shape[0], heads("head_count"));
            } else if architecture == "llama" && tensor.name.contains("attn_k.") {
                data = apart(&data, shape[0], heads("head_count_kv"));
            } else if architecture.starts_with("gemma") && tensor.name.contains("norm") {
                for bytes in data.as_chunks_mut().0 {
                    *bytes = (f32::from_le_bytes(*bytes) - 1.0).to_le_bytes();
                }
            }
            (name_of(architecture, &tensor.name), dtype(tensor.ty), shape, data)
        })
        .collect()
}

/// The config.json of a tiny GGUF file.
pub(crate) fn config(gguf: &Gguf) -> Value {
    let metadata = gguf.metadata();
    let architecture = metadata.require_str("general.architecture").unwrap();
    let number = |key: &str| metadata.u32(&format!("{architecture}.{key}")).unwrap();
    let float = |key: &str| metadata.f32(&format!("{architecture}.{key}")).unwrap();
    let class = match architecture {
        "llama" => "LlamaForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        "gemma2" => "Gemma2ForCausalLM",
        "gemma3" => "Gemma3ForCausalLM",
        "phi3" => "Phi3ForCausalLM",
        other => panic!("{other}"),
    };
    let floats = |name: &str| -> Option<Vec<f32>> {
        gguf.tensor(name)?;
        Some(bytes(gguf, name).as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    };
    let kind = metadata.str(&format!("{architecture}.rope.scaling.type")).unwrap();
    let long = floats("rope_factors_long.weight");
    let heads = number("attention.head_count").unwrap();
    let head_dim =
        number("attention.key_length").unwrap_or_else(|| number("embedding_length").unwrap() / heads);
    let factor = float("rope.scaling.factor");
    let mut rope = json!({
        "rope_type": kind.or(long.is_some().then_some("longrope")).unwrap_or("default"),
        "factor": factor,
        "original_max_position_embeddings": number("rope.scaling.original_context_length"),
        "beta_fast": float("rope.scaling.yarn_beta_fast"),
        "beta_slow": float("rope.scaling.yarn_beta_slow"),
        "attention_factor": match (kind, float("rope.scaling.attn_factor")) {
            (Some("yarn"), Some(f)) => Some(f * (0.1 * factor.unwrap().ln() + 1.0)),
            (_, f) => f,
        },
        "long_factor": long,
        "short_factor": floats("rope_factors_short.weight"),
    });
    rope.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    json!({
        "architectures": [class],
        "num_hidden_layers": number("block_count"),
        "max_position_embeddings": number("context_length"),
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": head_dim,
        "rms_norm_eps": float("attention.layer_norm_rms_epsilon"),
        "rope_theta": float("rope.freq_base").unwrap_or(10_000.0),
        "rope_scaling": rope,
        "partial_rotary_factor": number("rope.dimension_count").map(|n| f64::from(n) / f64::from(head_dim)),
        "sliding_window": number("attention.sliding_window").filter(|&n| n > 0),
        "attn_logit_softcapping": float("attn_logit_softcapping"),
        "final_logit_softcapping": float("final_logit_softcapping"),
        "tie_word_embeddings": gguf.tensor("output.weight").is_none(),
        "vocab_size": gguf.require_tensor("token_embd.weight").unwrap().shape[1],
    })
}
