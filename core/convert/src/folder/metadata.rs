//! GGUF's metadata of a model, from config.json. Keys: `docs/gguf.md` of ggml, and llama.cpp's converter.

use realm_gguf::{Array, Value};
use realm_model::names::NormNames;
use serde_json::Value as Json;

use super::config::Config;
use super::families::Family;
use crate::Error;
use crate::error::short;

/// Families whose files say how many numbers of a head are rotated even if all are.
const ROPE_DIMENSIONS: [&str; 10] = [
    "llama",
    "phi3",
    "phimoe",
    "granite",
    "granitemoe",
    "smollm3",
    "cohere2",
    "deepseek2",
    "mistral3",
    "llama4",
];

/// Metadata entries, and tensors of floats that the configuration holds.
pub(super) struct Facts {
    pub(super) entries: Vec<(String, Value)>,
    pub(super) tensors: Vec<(String, Vec<f32>)>,
}

/// Collects entries under the architecture's name.
struct Writer<'a> {
    family: &'a Family,
    facts: Facts,
}

impl Writer<'_> {
    fn put(&mut self, key: &str, value: Value) {
        self.facts.entries.push((format!("{}.{key}", self.family.name), value));
    }

    fn number(&mut self, key: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.put(key, Value::U32(value));
        }
    }

    fn float(&mut self, key: &str, value: Option<f32>) {
        if let Some(value) = value {
            self.put(key, Value::F32(value));
        }
    }
}

/// Reads config.json. `name` is the model's.
pub(super) fn facts(family: &Family, config: &Config, name: &str) -> Result<Facts, Error> {
    let text = |key: &str, value: &str| (key.to_owned(), Value::String(value.to_owned()));
    let entries = vec![text("general.architecture", family.name), text("general.name", name)];
    let mut w = Writer { family, facts: Facts { entries, tensors: Vec::new() } };
    let context = config.size(&["max_position_embeddings"])?;
    let context = context.or((family.name == "gemma3").then_some(131_072));
    w.number("block_count", Some(config.layers()?));
    w.number("context_length", context);
    w.number("embedding_length", Some(config.require_size(&["hidden_size"])?));
    let widths: &[&str] =
        if family.name == "llama4" { &["intermediate_size_mlp"] } else { &["intermediate_size"] };
    w.number("feed_forward_length", config.size(widths)?);
    w.number("attention.head_count", Some(config.heads()?));
    let head_dim = if family.name == "deepseek2" {
        latent(&mut w, config)?
    } else {
        let head_dim = config.head_dim()?;
        w.number("attention.head_count_kv", Some(config.kv_heads()?));
        w.number("attention.key_length", Some(head_dim));
        w.number("attention.value_length", Some(head_dim));
        head_dim
    };
    w.number("vocab_size", config.size(&["vocab_size"])?);
    if family.layer_norm {
        let epsilon = config.float(&["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"])?;
        w.float("attention.layer_norm_epsilon", epsilon);
    } else {
        w.float("attention.layer_norm_rms_epsilon", config.float(&["rms_norm_eps"])?.or(Some(1e-6)));
    }
    window(&mut w, config)?;
    rope(&mut w, config, head_dim, context)?;
    factors(&mut w, config, head_dim)?;
    experts(&mut w, config)?;
    Ok(w.facts)
}

/// Latent attention, whose cache has one head of a latent state and a rotated part. Returns the numbers of a
/// head that are rotated.
fn latent(w: &mut Writer<'_>, config: &Config) -> Result<u32, Error> {
    let rank = config.require_size(&["kv_lora_rank"])?;
    let rotated = config.require_size(&["qk_rope_head_dim"])?;
    w.number("attention.q_lora_rank", config.size(&["q_lora_rank"])?);
    w.number("attention.kv_lora_rank", Some(rank));
    w.number("attention.head_count_kv", Some(1));
    w.number("attention.key_length", Some(rank + rotated));
    w.number("attention.value_length", Some(rank));
    w.number("attention.key_length_mla", Some(config.require_size(&["qk_nope_head_dim"])? + rotated));
    w.number("attention.value_length_mla", Some(config.require_size(&["v_head_dim"])?));
    Ok(rotated)
}

fn window(w: &mut Writer<'_>, config: &Config) -> Result<(), Error> {
    let mut window = config.size(&["sliding_window"])?;
    // Qwen's configurations have a window that is switched off.
    if config.flag(&["use_sliding_window"]) == Some(false) {
        window = None;
    }
    match (w.family.name, window) {
        // Without the key, a file would get the window of its family.
        ("phi3", None) => w.number("attention.sliding_window", Some(0)),
        ("qwen2" | "qwen3" | "qwen2moe" | "qwen3moe", Some(window)) => {
            let why = format!("a sliding window of {window} in a {} model is not converted", w.family.name);
            return Err(Error::Unsupported(why));
        }
        (_, window) => w.number("attention.sliding_window", window),
    }
    // Olmo 2 has no window, and Olmo 3 has the same class of files.
    if window.is_some() && matches!(w.family.name, "olmo2" | "gemma3" | "cohere2" | "exaone4") {
        let layers = config.layers()?;
        let every = match w.family.name {
            "gemma3" => {
                config.size(&["sliding_window_pattern", "_sliding_window_pattern"])?.unwrap_or(6).max(1)
            }
            _ => 4,
        };
        let pattern =
            config.windowed().unwrap_or_else(|| (0..layers).map(|i| (i + 1) % every != 0).collect());
        if w.family.name == "gemma3" {
            let usual = pattern.iter().enumerate().all(|(i, windowed)| *windowed == ((i + 1) % 6 != 0));
            if !usual {
                let why = "the pattern of its sliding windows is another one than Gemma 3's, every sixth layer without";
                return Err(Error::Unsupported(why.into()));
            }
        } else {
            w.put("attention.sliding_window_pattern", Value::Array(Array::Bool(pattern)));
        }
    }
    Ok(())
}

fn rope(w: &mut Writer<'_>, config: &Config, head_dim: u32, context: Option<u32>) -> Result<(), Error> {
    let rope = config.rope();
    let number = |key: &str| rope.get(key).and_then(Json::as_f64).map(|v| v as f32);
    let mut base = number("rope_theta").or((w.family.name == "gemma3").then_some(1_000_000.0));
    let mut kind =
        rope.get("rope_type").or_else(|| rope.get("type")).and_then(Json::as_str).unwrap_or("default");
    // Hunyuan's scaling is another base (transformers, `HunYuanDenseV1RotaryEmbedding`).
    if w.family.name == "hunyuan-dense"
        && kind == "dynamic"
        && let Some(alpha) = number("alpha").filter(|&alpha| alpha > 0.0)
    {
        let power = head_dim as f32 / (head_dim as f32 - 2.0);
        base = Some(base.unwrap_or(10_000.0) * alpha.powf(power));
        kind = "default";
    }
    w.float("rope.freq_base", base);
    let sliding =
        config.get(&["rope_parameters"]).and_then(|rope| rope.get("sliding_attention")?.get("rope_theta"));
    let local = match sliding.and_then(Json::as_f64) {
        Some(base) => Some(base as f32),
        None => config.float(&["rope_local_base_freq"])?,
    };
    if w.family.name == "gemma3" {
        w.float("rope.freq_base_swa", local);
    }
    let part = number("partial_rotary_factor").or(config.float(&["rotary_pct"])?);
    let part = part.unwrap_or(if w.family.name.starts_with("glm4") { 0.5 } else { 1.0 });
    let turned = (part * head_dim as f32) as u32;
    if part != 1.0 || ROPE_DIMENSIONS.contains(&w.family.name) {
        w.number("rope.dimension_count", Some(turned));
    }
    if let Some(sections) = rope.get("mrope_section").and_then(Json::as_array) {
        let numbers = sections.iter().map(|n| n.as_u64().unwrap_or(0) as i32);
        let padded = numbers.chain(std::iter::repeat(0)).take(4).collect();
        w.put("rope.dimension_sections", Value::Array(Array::I32(padded)));
    }
    let original = number("original_max_position_embeddings").map(|n| n as u32);
    let factor = number("factor");
    let text = |value: &str| Value::String(value.to_owned());
    match kind {
        "default" | "mrope" => {}
        "linear" => {
            w.put("rope.scaling.type", text("linear"));
            w.float("rope.scaling.factor", factor);
        }
        "yarn" => {
            w.put("rope.scaling.type", text("yarn"));
            w.float("rope.scaling.factor", factor);
            w.number("rope.scaling.original_context_length", original.or(context));
            let beyond = [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")];
            for (theirs, ours) in beyond {
                w.float(&format!("rope.scaling.{ours}"), number(theirs));
            }
            // GGUF's factor multiplies the one that the scaling gives, 0.1 ln(factor) + 1.
            let magnitude = number("attention_factor").zip(factor).map(|(m, f)| m / (0.1 * f.ln() + 1.0));
            w.float("rope.scaling.attn_factor", magnitude);
            let multiplier = number("mscale_all_dim").filter(|&multiplier| multiplier != 0.0);
            w.float(
                "rope.scaling.yarn_log_multiplier",
                match w.family.name {
                    "deepseek2" => multiplier.map(|multiplier| 0.1 * multiplier),
                    "mistral3" => multiplier,
                    _ => None,
                },
            );
        }
        "llama3" => w.facts.tensors.push(("rope_freqs.weight".into(), llama3(&number, base, head_dim))),
        "longrope" | "su" => {
            let context = context.unwrap_or(0);
            let original = original.filter(|&n| n > 0).unwrap_or(context);
            w.put("rope.scaling.type", text("longrope"));
            w.number("rope.scaling.original_context_length", Some(original));
            let scale = context as f32 / original as f32;
            let magnitude =
                if scale > 1.0 { (1.0 + scale.ln() / (original as f32).ln()).sqrt() } else { 1.0 };
            w.float("rope.scaling.attn_factor", number("attention_factor").or(Some(magnitude)));
            for length in ["long", "short"] {
                let factors = rope.get(&format!("{length}_factor")).and_then(Json::as_array);
                let factors: Vec<f32> =
                    factors.into_iter().flatten().filter_map(Json::as_f64).map(|v| v as f32).collect();
                if factors.len() as u32 != turned / 2 {
                    let (found, wanted) = (factors.len(), turned / 2);
                    let why =
                        format!("config.json: `{length}_factor` has {found} numbers; {wanted} are needed");
                    return Err(Error::Folder(why));
                }
                w.facts.tensors.push((format!("rope_factors_{length}.weight"), factors));
            }
        }
        other => {
            let why = format!(
                "config.json: rope scaling `{}` is not converted; default, linear, yarn, llama3 and longrope are",
                short(other)
            );
            return Err(Error::Unsupported(why));
        }
    }
    Ok(())
}

/// The factors by which Llama 3.1 divides its frequencies: low ones by `factor`, high ones by 1, and a ramp
/// between (transformers, `_compute_llama3_parameters`).
fn llama3(number: &dyn Fn(&str) -> Option<f32>, base: Option<f32>, head_dim: u32) -> Vec<f32> {
    let of = |key: &str, default: f32| f64::from(number(key).unwrap_or(default));
    let (factor, low, high) = (of("factor", 8.0), of("low_freq_factor", 1.0), of("high_freq_factor", 4.0));
    let original = of("original_max_position_embeddings", 8192.0);
    let base = f64::from(base.unwrap_or(10_000.0));
    let each = (0..head_dim / 2).map(|i| {
        let wavelength = std::f64::consts::TAU * base.powf(f64::from(2 * i) / f64::from(head_dim));
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    each.map(|factor| factor as f32).collect()
}

/// Factors on scores, embeddings and logits.
fn factors(w: &mut Writer<'_>, config: &Config, head_dim: u32) -> Result<(), Error> {
    if w.family.norms == NormNames::Gemma {
        w.float("attn_logit_softcapping", config.float(&["attn_logit_softcapping"])?);
        w.float("final_logit_softcapping", config.float(&["final_logit_softcapping"])?);
        let by = config.float(&["query_pre_attn_scalar"])?.filter(|&by| by > 0.0 && by != head_dim as f32);
        w.float("attention.scale", by.map(|by| 1.0 / by.sqrt()));
    }
    if w.family.name == "mistral3" {
        let scale = config.rope().get("llama_4_scaling_beta").and_then(Json::as_f64);
        w.float("attention.temperature_scale", scale.map(|scale| scale as f32));
    }
    w.float("attention.scale", config.float(&["attention_multiplier"])?);
    w.float("embedding_scale", config.float(&["embedding_multiplier"])?);
    w.float("residual_scale", config.float(&["residual_multiplier"])?);
    w.float("logit_scale", config.float(&["logits_scaling", "logit_scale"])?);
    Ok(())
}

fn experts(w: &mut Writer<'_>, config: &Config) -> Result<(), Error> {
    let count = config
        .size(&["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"])?
        .filter(|&n| n > 0);
    let Some(count) = count else { return Ok(()) };
    w.number("expert_count", Some(count));
    w.number("expert_used_count", config.size(&["num_experts_per_tok", "experts_per_token", "moe_k"])?);
    let width = match w.family.name {
        "gpt-oss" | "llama4" => "intermediate_size",
        _ => "moe_intermediate_size",
    };
    w.number("expert_feed_forward_length", config.size(&[width])?);
    let step = config.size(&["interleave_moe_layer_step", "moe_layer_interval"])?;
    w.number("interleave_moe_layer_step", step);
    if w.family.name == "ernie4_5-moe" {
        let layers = config.layers()?;
        let last = config.get(&["moe_layer_end_index"]).and_then(Json::as_i64);
        if last.is_some_and(|last| last >= 0 && last + 1 < i64::from(layers)) {
            return Err(Error::Unsupported("layers without experts behind layers with experts".into()));
        }
        w.number("leading_dense_block_count", config.size(&["moe_layer_start_index"])?);
        let shared = config.size(&["moe_num_shared_experts"])?;
        w.number("expert_shared_count", shared);
        let width = config.size(&["moe_intermediate_size"])?.zip(shared).map(|(width, count)| width * count);
        w.number("expert_shared_feed_forward_length", width.filter(|&width| width > 0));
        return Ok(());
    }
    if w.family.shared_experts {
        w.number("expert_shared_count", config.size(&["n_shared_experts", "num_shared_experts"])?);
        w.number("leading_dense_block_count", config.size(&["first_k_dense_replace"])?);
        // DeepSeek V2 may name groups and not use them.
        if config.get(&["topk_method"]).and_then(Json::as_str) != Some("greedy") {
            w.number("expert_group_count", config.size(&["n_group"])?);
            w.number("expert_group_used_count", config.size(&["topk_group"])?);
        }
        w.float("expert_weights_scale", config.float(&["routed_scaling_factor"])?);
        let softmax = config.get(&["scoring_func"]).and_then(Json::as_str) == Some("softmax");
        w.put("expert_weights_norm", Value::Bool(config.flag(&["norm_topk_prob"]).unwrap_or(!softmax)));
        w.number("expert_gating_func", Some(if softmax { 1 } else { 2 }));
    }
    let shared = [
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "moe_shared_expert_intermediate_size",
    ];
    w.number("expert_shared_feed_forward_length", config.size(&shared)?);
    Ok(())
}
