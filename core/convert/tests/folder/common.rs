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

/// The name that transformers has for a tensor, with `*` for the number of an expert.
fn name_of(architecture: &str, name: &str) -> String {
    let (whole, suffix) = name.rsplit_once('.').unwrap();
    let outside =
        [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];
    if let Some((_, theirs)) = outside.into_iter().find(|(ours, _)| *ours == whole) {
        return format!("{theirs}.{suffix}");
    }
    let (layer, part) = whole.strip_prefix("blk.").unwrap().split_once('.').unwrap();
    let (gemma, glm4) = (architecture.starts_with("gemma"), architecture == "glm4");
    let mixtral = matches!(architecture, "llama" | "phimoe");
    let ling = architecture == "bailingmoe2";
    let several_shared =
        matches!(architecture, "glm4moe" | "deepseek2" | "dots1" | "bailingmoe2" | "ernie4_5-moe");
    let module = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_qkv" if ling => "attention.query_key_value",
        "attn_output" if ling => "attention.dense",
        "attn_q_norm" if ling => "attention.query_layernorm",
        "attn_k_norm" if ling => "attention.key_layernorm",
        "attn_q_norm" if architecture == "hunyuan-dense" => "self_attn.query_layernorm",
        "attn_k_norm" if architecture == "hunyuan-dense" => "self_attn.key_layernorm",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_q_a" => "self_attn.q_a_proj",
        "attn_q_a_norm" => "self_attn.q_a_layernorm",
        "attn_q_b" => "self_attn.q_b_proj",
        "attn_kv_a_mqa" => "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm" => "self_attn.kv_a_layernorm",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_sinks" => return format!("model.layers.{layer}.self_attn.sinks"),
        "exp_probs_b" if ling => return format!("model.layers.{layer}.mlp.gate.expert_bias"),
        "exp_probs_b" if architecture == "ernie4_5-moe" => {
            return format!("model.layers.{layer}.mlp.moe_statics.e_score_correction_bias");
        }
        "exp_probs_b" => return format!("model.layers.{layer}.mlp.gate.e_score_correction_bias"),
        "post_attention_norm" if glm4 => "post_self_attn_layernorm",
        "post_attention_norm" => "post_attention_layernorm",
        "ffn_norm" if gemma => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "post_ffw_norm" if glm4 => "post_mlp_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" if matches!(architecture, "phi3" | "glm4") => "mlp.gate_up_proj",
        "ffn_up" if architecture == "starcoder2" => "mlp.c_fc",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" if architecture == "starcoder2" => "mlp.c_proj",
        "ffn_down" => "mlp.down_proj",
        "ffn_gate_inp" if architecture == "gpt-oss" => "mlp.router",
        "ffn_gate_inp" if architecture == "granitemoe" => "block_sparse_moe.router.layer",
        "ffn_down_exps" if architecture == "granitemoe" => "block_sparse_moe.output_linear",
        "ffn_down_shexp" if architecture == "granitemoe" => "shared_mlp.output_linear",
        "ffn_gate_inp" if mixtral => "block_sparse_moe.gate",
        "ffn_gate_inp" => "mlp.gate",
        "ffn_gate_exps" if mixtral => "block_sparse_moe.experts.*.w1",
        "ffn_up_exps" if mixtral => "block_sparse_moe.experts.*.w3",
        "ffn_down_exps" if mixtral => "block_sparse_moe.experts.*.w2",
        "ffn_gate_exps" => "mlp.experts.*.gate_proj",
        "ffn_up_exps" => "mlp.experts.*.up_proj",
        "ffn_down_exps" => "mlp.experts.*.down_proj",
        "ffn_gate_inp_shexp" => "mlp.shared_expert_gate",
        "ffn_gate_shexp" if several_shared => "mlp.shared_experts.gate_proj",
        "ffn_up_shexp" if several_shared => "mlp.shared_experts.up_proj",
        "ffn_down_shexp" if several_shared => "mlp.shared_experts.down_proj",
        "ffn_gate_shexp" => "mlp.shared_expert.gate_proj",
        "ffn_up_shexp" => "mlp.shared_expert.up_proj",
        "ffn_down_shexp" => "mlp.shared_expert.down_proj",
        other => panic!("{other}"),
    };
    if architecture == "llama4" {
        let module = if part == "ffn_gate_inp" { "mlp.router" } else { module };
        let module = module.replace("mlp.", "feed_forward.");
        return format!("language_model.model.layers.{layer}.{module}.{suffix}");
    }
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
    let permuted = matches!(architecture, "llama" | "smollm3" | "granite" | "granitemoe" | "mistral3");
    let mut all = Vec::new();
    for tensor in gguf.tensors().iter().filter(|tensor| !tensor.name.starts_with("rope_")) {
        if is_fused(architecture, &tensor.name) {
            continue;
        }
        let mut data = bytes(gguf, &tensor.name);
        let mut shape: Vec<_> = tensor.shape.iter().rev().map(|&n| n as usize).collect();
        if permuted && tensor.name.contains("attn_q.") {
            data = apart(&data, shape[0], heads("head_count"));
        } else if permuted && tensor.name.contains("attn_k.") {
            data = apart(&data, shape[0], heads("head_count_kv"));
        } else if architecture.starts_with("gemma") && tensor.name.contains("norm") {
            for bytes in data.as_chunks_mut().0 {
                *bytes = (f32::from_le_bytes(*bytes) - 1.0).to_le_bytes();
            }
        } else if tensor.name.contains("inp_shexp")
            || (architecture == "ernie4_5-moe" && tensor.name.contains("exp_probs_b"))
        {
            shape.insert(0, 1);
        }
        let name = name_of(architecture, &tensor.name);
        if !name.contains('*') {
            all.push((name, dtype(tensor.ty), shape, data));
            continue;
        }
        for (expert, part) in data.chunks(data.len() / shape[0]).enumerate() {
            let name = name.replace('*', &expert.to_string());
            all.push((name, dtype(tensor.ty), shape[1..].to_vec(), part.to_vec()));
        }
    }
    all.extend(match architecture {
        "gpt-oss" => fused_experts(gguf),
        "granitemoe" | "llama4" | "qwen3vlmoe" => joined_experts(gguf),
        "deepseek2" => keys_and_values(gguf),
        _ => Vec::new(),
    });
    all
}

/// Whether a tensor is stored as a part of another one.
fn is_fused(architecture: &str, name: &str) -> bool {
    let parts: &[&str] = match architecture {
        "gpt-oss" | "llama4" | "qwen3vlmoe" => &["_exps."],
        "granitemoe" => &["gate_exps.", "up_exps.", "gate_shexp.", "up_shexp."],
        "deepseek2" => &["attn_k_b.", "attn_v_b."],
        _ => &[],
    };
    parts.iter().any(|part| name.contains(part))
}

/// A tensor's numbers, matrix by matrix: `[matrices][rows][columns]` of some bytes each.
fn matrices(gguf: &Gguf, name: &str) -> Option<Vec<Vec<Vec<Vec<u8>>>>> {
    let tensor = gguf.tensor(name)?;
    let size = tensor.ty.block_bytes();
    let (columns, rows) = (tensor.shape[0] as usize, tensor.shape[1] as usize);
    let data = bytes(gguf, name);
    let row = |row: &[u8]| row.chunks(size).map(<[u8]>::to_vec).collect();
    let matrix = |matrix: &[u8]| matrix.chunks(size * columns).map(row).collect();
    Some(data.chunks(size * columns * rows).map(matrix).collect())
}

fn transposed(matrix: &[Vec<Vec<u8>>]) -> Vec<Vec<Vec<u8>>> {
    (0..matrix[0].len()).map(|column| matrix.iter().map(|row| row[column].clone()).collect()).collect()
}

/// A tensor of matrices with rows of numbers.
fn stored(name: String, dtype: &'static str, all: &[Vec<Vec<Vec<u8>>>]) -> Stored {
    let shape = vec![all.len(), all[0].len(), all[0][0].len()];
    (name, dtype, shape, all.iter().flatten().flatten().flatten().copied().collect())
}

/// Experts whose gates and ways up are one tensor, of inputs before outputs but in Granite.
fn joined_experts(gguf: &Gguf) -> Vec<Stored> {
    let architecture = gguf.metadata().require_str("general.architecture").unwrap();
    let layers = gguf.metadata().require_u32(&format!("{architecture}.block_count")).unwrap();
    let (prefix, granite) = match architecture {
        "llama4" => ("language_model.model.layers", false),
        "granitemoe" => ("model.layers", true),
        _ => ("model.language_model.layers", false),
    };
    let mut all = Vec::new();
    for layer in 0..layers {
        let read = |part: &str| matrices(gguf, &format!("blk.{layer}.{part}.weight"));
        let both = |gates: &str, ups: &str| {
            let pairs = read(gates)?.into_iter().zip(read(ups)?);
            Some(pairs.map(|(gate, up)| [gate, up].concat()).collect::<Vec<_>>())
        };
        let experts = both("ffn_gate_exps", "ffn_up_exps");
        if granite {
            all.push(stored(
                format!("{prefix}.{layer}.block_sparse_moe.input_linear.weight"),
                "F16",
                &experts.unwrap(),
            ));
            if let Some(shared) = both("ffn_gate_shexp", "ffn_up_shexp") {
                let (name, ty, shape, data) =
                    stored(format!("{prefix}.{layer}.shared_mlp.input_linear.weight"), "F16", &shared);
                all.push((name, ty, shape[1..].to_vec(), data));
            }
            continue;
        }
        let Some(experts) = experts else { continue };
        let module = if architecture == "llama4" { "feed_forward" } else { "mlp" };
        let turned = |all: Vec<Vec<Vec<Vec<u8>>>>| all.iter().map(|m| transposed(m)).collect::<Vec<_>>();
        all.push(stored(format!("{prefix}.{layer}.{module}.experts.gate_up_proj"), "F16", &turned(experts)));
        let downs = turned(read("ffn_down_exps").unwrap());
        all.push(stored(format!("{prefix}.{layer}.{module}.experts.down_proj"), "F16", &downs));
    }
    all
}

/// Of each head the rows of keys, then those of values.
fn keys_and_values(gguf: &Gguf) -> Vec<Stored> {
    let layers = gguf.metadata().require_u32("deepseek2.block_count").unwrap();
    let read = |layer: u32, part: &str| matrices(gguf, &format!("blk.{layer}.{part}.weight")).unwrap();
    let of_layer = |layer| {
        let pairs = read(layer, "attn_k_b").into_iter().zip(read(layer, "attn_v_b"));
        let heads: Vec<_> = pairs.map(|(keys, values)| [transposed(&keys), values].concat()).collect();
        let name = format!("model.layers.{layer}.self_attn.kv_b_proj.weight");
        let (name, ty, shape, data) = stored(name, "F16", &heads);
        (name, ty, vec![shape[0] * shape[1], shape[2]], data)
    };
    (0..layers).map(of_layer).collect()
}

/// gpt-oss' experts: rows of gates and ways up alternate, neighbors share a byte, exponents stand apart.
fn fused_experts(gguf: &Gguf) -> Vec<Stored> {
    let layers = gguf.metadata().require_u32("gpt-oss.block_count").unwrap();
    let mut all = Vec::new();
    for layer in 0..layers {
        for (fused, parts) in
            [("gate_up_proj", &["ffn_gate_exps", "ffn_up_exps"][..]), ("down_proj", &["ffn_down_exps"])]
        {
            let name = |part: &str, suffix: &str| format!("blk.{layer}.{part}.{suffix}");
            let shape = &gguf.require_tensor(&name(parts[0], "weight")).unwrap().shape;
            let (columns, rows, experts) = (shape[0] as usize, shape[1] as usize, shape[2] as usize);
            let across = columns / 32;
            let weights: Vec<_> = parts.iter().map(|part| bytes(gguf, &name(part, "weight"))).collect();
            let biases: Vec<_> = parts.iter().map(|part| bytes(gguf, &name(part, "bias"))).collect();
            let (mut blocks, mut scales, mut bias) = (Vec::new(), Vec::new(), Vec::new());
            for row in 0..experts * rows {
                for part in 0..parts.len() {
                    bias.extend_from_slice(&biases[part][4 * row..][..4]);
                    for block in weights[part][17 * across * row..][..17 * across].as_chunks::<17>().0 {
                        scales.push(block[0]);
                        let code = |i: usize| block[1 + i % 16] >> (i / 16 * 4) & 15;
                        blocks.extend((0..16).map(|i| code(2 * i) | code(2 * i + 1) << 4));
                    }
                }
            }
            let path = format!("model.layers.{layer}.mlp.experts.{fused}");
            let all_rows = rows * parts.len();
            all.push((format!("{path}_blocks"), "U8", vec![experts, all_rows, across, 16], blocks));
            all.push((format!("{path}_scales"), "U8", vec![experts, all_rows, across], scales));
            all.push((format!("{path}_bias"), "F32", vec![experts, all_rows], bias));
        }
    }
    all
}

fn list(value: Option<&realm_gguf::Value>) -> Option<Value> {
    let realm_gguf::Value::Array(array) = value? else { return None };
    Some(array.integers()?.into_iter().map(|n| n as i64).collect())
}

/// The config.json of ERNIE's tiny file with experts, which has other keys.
fn ernie(gguf: &Gguf) -> Value {
    let number = |key: &str| gguf.metadata().u32(&format!("ernie4_5-moe.{key}")).unwrap().unwrap();
    let float = |key: &str| gguf.metadata().f32(&format!("ernie4_5-moe.{key}")).unwrap().unwrap();
    let (width, shared) = (number("expert_feed_forward_length"), number("expert_shared_feed_forward_length"));
    assert_eq!(shared % width, 0);
    json!({
        "architectures": ["Ernie4_5_MoeForCausalLM"],
        "num_hidden_layers": number("block_count"),
        "max_position_embeddings": number("context_length"),
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": number("attention.key_length"),
        "rms_norm_eps": float("attention.layer_norm_rms_epsilon"),
        "rope_theta": float("rope.freq_base"),
        "moe_num_experts": number("expert_count"),
        "moe_k": number("expert_used_count"),
        "moe_intermediate_size": width,
        "moe_num_shared_experts": shared / width,
        "moe_layer_start_index": number("leading_dense_block_count"),
        "moe_layer_interval": number("interleave_moe_layer_step"),
        "moe_layer_end_index": -1,
        "tie_word_embeddings": gguf.tensor("output.weight").is_none(),
        "vocab_size": gguf.require_tensor("token_embd.weight").unwrap().shape[1],
    })
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
        "qwen2moe" => "Qwen2MoeForCausalLM",
        "qwen3moe" => "Qwen3MoeForCausalLM",
        "qwen3vl" => "Qwen3VLForConditionalGeneration",
        "olmo2" => "Olmo3ForCausalLM",
        "olmoe" => "OlmoeForCausalLM",
        "granite" => "GraniteForCausalLM",
        "smollm3" => "SmolLM3ForCausalLM",
        "cohere2" => "Cohere2ForCausalLM",
        "command-r" => "CohereForCausalLM",
        "starcoder2" => "Starcoder2ForCausalLM",
        "glm4" => "Glm4ForCausalLM",
        "glm4moe" => "Glm4MoeForCausalLM",
        "exaone4" => "Exaone4ForCausalLM",
        "granitemoe" => "GraniteMoeSharedForCausalLM",
        "deepseek2" => "DeepseekV3ForCausalLM",
        "mistral3" => "Ministral3ForCausalLM",
        "llama4" => "Llama4ForConditionalGeneration",
        "phimoe" => "PhimoeForCausalLM",
        "hunyuan-dense" => "HunYuanDenseV1ForCausalLM",
        "seed_oss" => "SeedOssForCausalLM",
        "dots1" => "Dots1ForCausalLM",
        "bailingmoe2" => "BailingMoeV2ForCausalLM",
        "ernie4_5" => "Ernie4_5ForCausalLM",
        "ernie4_5-moe" => return ernie(gguf),
        "qwen3vlmoe" => "Qwen3VLMoeForConditionalGeneration",
        "gpt-oss" => "GptOssForCausalLM",
        other => panic!("{other}"),
    };
    let floats = |name: &str| -> Option<Vec<f32>> {
        gguf.tensor(name)?;
        Some(bytes(gguf, name).as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    };
    let kind =
        metadata.str(&format!("{architecture}.rope.scaling.type")).unwrap().filter(|kind| *kind != "none");
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
        "mscale_all_dim": float("rope.scaling.yarn_log_multiplier")
            .map(|multiplier| if architecture == "deepseek2" { 10.0 * multiplier } else { multiplier }),
        "llama_4_scaling_beta": float("attention.temperature_scale"),
    });
    rope.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    if let Some(Value::Array(sections)) =
        list(metadata.get(&format!("{architecture}.rope.dimension_sections")))
    {
        rope["mrope_section"] = sections[..3].into();
    }
    let windows = metadata.bools(&format!("{architecture}.attention.sliding_window_pattern")).unwrap();
    let kinds = |windowed: &bool| if *windowed { "sliding_attention" } else { "full_attention" };
    let kinds: Option<Vec<_>> = windows.map(|all| all.iter().map(kinds).collect());
    let logit_scale = if architecture.starts_with("granite") { "logits_scaling" } else { "logit_scale" };
    let llama4 = architecture == "llama4";
    let (key, rotated) = (number("attention.key_length_mla"), number("rope.dimension_count"));
    let softmax = architecture == "deepseek2" && number("expert_gating_func").is_none();
    let mut config = json!({
        "architectures": [class],
        "q_lora_rank": number("attention.q_lora_rank"),
        "kv_lora_rank": number("attention.kv_lora_rank"),
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": key.zip(rotated).map(|(key, rotated)| key - rotated),
        "v_head_dim": number("attention.value_length_mla"),
        "scoring_func": softmax.then_some("softmax"),
        "interleave_moe_layer_step": number("interleave_moe_layer_step"),
        "num_hidden_layers": number("block_count"),
        "max_position_embeddings": number("context_length"),
        "hidden_size": number("embedding_length"),
        "intermediate_size": number(if llama4 { "expert_feed_forward_length" } else { "feed_forward_length" }),
        "intermediate_size_mlp": number("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": head_dim,
        "rms_norm_eps": float("attention.layer_norm_rms_epsilon"),
        "rope_theta": float("rope.freq_base").unwrap_or(10_000.0),
        "rope_scaling": rope,
        "partial_rotary_factor": rotated.filter(|_| key.is_none()).map(|n| f64::from(n) / f64::from(head_dim)),
        "sliding_window": number("attention.sliding_window").filter(|&n| n > 0),
        "attn_logit_softcapping": float("attn_logit_softcapping"),
        "final_logit_softcapping": float("final_logit_softcapping"),
        "tie_word_embeddings": gguf.tensor("output.weight").is_none(),
        "layer_norm_eps": float("attention.layer_norm_epsilon"),
        "layer_types": kinds,
        "attention_multiplier": float("attention.scale"),
        "embedding_multiplier": float("embedding_scale"),
        "residual_multiplier": float("residual_scale"),
        logit_scale: float("logit_scale"),
        "num_experts": number("expert_count"),
        "num_experts_per_tok": number("expert_used_count"),
        "moe_intermediate_size": number("expert_feed_forward_length"),
        "shared_expert_intermediate_size": number("expert_shared_feed_forward_length"),
        "n_shared_experts": number("expert_shared_count"),
        "first_k_dense_replace": number("leading_dense_block_count"),
        "n_group": number("expert_group_count"),
        "topk_group": number("expert_group_used_count"),
        "routed_scaling_factor": float("expert_weights_scale"),
        "norm_topk_prob": metadata.bool(&format!("{architecture}.expert_weights_norm")).unwrap(),
        "vocab_size": gguf.require_tensor("token_embd.weight").unwrap().shape[1],
    });
    config["topk_method"] = json!(softmax.then_some("group_limited_greedy"));
    config
}
