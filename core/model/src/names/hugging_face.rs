//! Names in Hugging Face's files, which PEFT's adapters use as well.

use std::borrow::Cow;

use super::{LayerTensor, TensorId};

/// Names of a layer's matrices.
const MATRICES: &[(&str, LayerTensor)] = &[
    ("self_attn.q_proj", LayerTensor::Q),
    ("self_attn.k_proj", LayerTensor::K),
    ("self_attn.v_proj", LayerTensor::V),
    ("self_attn.qkv_proj", LayerTensor::Qkv),
    ("self_attn.o_proj", LayerTensor::AttentionOutput),
    ("mlp.gate_proj", LayerTensor::Gate),
    ("mlp.up_proj", LayerTensor::Up),
    ("mlp.gate_up_proj", LayerTensor::Up),
    ("mlp.down_proj", LayerTensor::Down),
    ("mlp.shared_expert.gate_proj", LayerTensor::SharedGate),
    ("mlp.shared_expert.up_proj", LayerTensor::SharedUp),
    ("mlp.shared_expert.down_proj", LayerTensor::SharedDown),
    ("mlp.shared_experts.gate_proj", LayerTensor::SharedGate),
    ("mlp.shared_experts.up_proj", LayerTensor::SharedUp),
    ("mlp.shared_experts.down_proj", LayerTensor::SharedDown),
    ("shared_mlp.output_linear", LayerTensor::SharedDown),
    ("self_attn.q_a_proj", LayerTensor::QueryDown),
    ("self_attn.q_b_proj", LayerTensor::QueryUp),
    ("self_attn.kv_a_proj_with_mqa", LayerTensor::KeyValueDown),
    ("attention.query_key_value", LayerTensor::Qkv),
    ("attention.dense", LayerTensor::AttentionOutput),
    ("mlp.c_fc", LayerTensor::Up),
    ("mlp.c_proj", LayerTensor::Down),
];

/// Names of a layer's other tensors, the same in all families that have them.
const OTHERS: &[(&str, LayerTensor)] = &[
    ("input_layernorm", LayerTensor::AttentionNorm),
    ("self_attn.q_norm", LayerTensor::QNorm),
    ("self_attn.k_norm", LayerTensor::KNorm),
    ("self_attn.sinks", LayerTensor::Sinks),
    ("self_attn.query_layernorm", LayerTensor::QNorm),
    ("self_attn.key_layernorm", LayerTensor::KNorm),
    ("self_attn.q_a_layernorm", LayerTensor::QueryDownNorm),
    ("self_attn.kv_a_layernorm", LayerTensor::KeyValueDownNorm),
    ("self_attn.kv_b_proj", LayerTensor::KeyValueUp),
    ("attention.query_layernorm", LayerTensor::QNorm),
    ("attention.key_layernorm", LayerTensor::KNorm),
    ("mlp.gate", LayerTensor::Router),
    ("mlp.router", LayerTensor::Router),
    ("block_sparse_moe.gate", LayerTensor::Router),
    ("block_sparse_moe.router.layer", LayerTensor::Router),
    ("mlp.gate.e_score_correction_bias", LayerTensor::SelectionBias),
    ("mlp.gate.expert_bias", LayerTensor::SelectionBias),
    ("mlp.moe_statics.e_score_correction_bias", LayerTensor::SelectionBias),
    ("mlp.shared_expert_gate", LayerTensor::SharedRouter),
    ("mlp.experts.gate_proj", LayerTensor::ExpertGates),
    ("mlp.experts.up_proj", LayerTensor::ExpertUps),
    ("mlp.experts.down_proj", LayerTensor::ExpertDowns),
    ("block_sparse_moe.output_linear", LayerTensor::ExpertDowns),
];

/// A module of a layer that adapters change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Adapted {
    /// A matrix, or the matrices of all experts.
    Matrix(TensorId),
    /// The matrix of one expert.
    Expert(TensorId, u32),
    /// A parameter of the experts of a layer: their gates and ways up, or their ways down. PEFT names both
    /// alike (`target_parameters`).
    Experts(usize),
}

/// Names of one expert's matrices: behind `mlp.experts.N.`, and in Mixtral behind
/// `block_sparse_moe.experts.N.`.
const EXPERT: &[(&str, LayerTensor)] = &[
    ("gate_proj", LayerTensor::ExpertGates),
    ("up_proj", LayerTensor::ExpertUps),
    ("down_proj", LayerTensor::ExpertDowns),
    ("w1", LayerTensor::ExpertGates),
    ("w3", LayerTensor::ExpertUps),
    ("w2", LayerTensor::ExpertDowns),
];

/// The names of the norms around a layer's two blocks, which differ from family to family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormNames {
    /// One before each block.
    Before,
    /// One after each block.
    After,
    /// Before and after, as in Gemma.
    Gemma,
    /// Before and after, as in GLM 4.
    Glm4,
    /// One before each block; GGUF names the second like one after attention, in gpt-oss and GLM 4.5.
    Renamed,
}

impl NormNames {
    fn table(self) -> &'static [(&'static str, LayerTensor)] {
        match self {
            Self::Before => &[("post_attention_layernorm", LayerTensor::FeedForwardNorm)],
            Self::After => &[
                ("post_attention_layernorm", LayerTensor::PostAttentionNorm),
                ("post_feedforward_layernorm", LayerTensor::PostFeedForwardNorm),
            ],
            Self::Gemma => &[
                ("post_attention_layernorm", LayerTensor::PostAttentionNorm),
                ("pre_feedforward_layernorm", LayerTensor::FeedForwardNorm),
                ("post_feedforward_layernorm", LayerTensor::PostFeedForwardNorm),
            ],
            Self::Glm4 => &[
                ("post_self_attn_layernorm", LayerTensor::PostAttentionNorm),
                ("post_attention_layernorm", LayerTensor::FeedForwardNorm),
                ("post_mlp_layernorm", LayerTensor::PostFeedForwardNorm),
            ],
            Self::Renamed => &[("post_attention_layernorm", LayerTensor::PostAttentionNorm)],
        }
    }
}

/// Removes what stands before `layers.N`; models of texts and images keep the part for texts under a name of
/// its own.
fn inner(path: &str) -> &str {
    let prefixes = ["model.language_model.", "language_model.model.", "language_model.", "model."];
    prefixes.iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path)
}

fn find(table: &[(&str, LayerTensor)], name: &str) -> Option<LayerTensor> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, tensor)| tensor)
}

impl TensorId {
    /// Returns the role of the module `path` of a model's own files, such as
    /// `model.layers.0.input_layernorm`, and the number of the expert if each expert has a tensor of its own;
    /// `None` if no role has that name.
    pub fn of_module(path: &str, norms: NormNames) -> Option<(Self, Option<u32>)> {
        let inner = inner(path);
        let outside = match inner {
            "embed_tokens" | "word_embeddings" => Some(Self::Embeddings),
            "norm" => Some(Self::OutputNorm),
            "lm_head" => Some(Self::Output),
            _ => None,
        };
        if let Some(id) = outside {
            return Some((id, None));
        }
        let (layer, module) = inner.strip_prefix("layers.")?.split_once('.')?;
        let layer = layer.parse().ok()?;
        let module = &*plain(module);
        let tables = [norms.table(), MATRICES, OTHERS];
        if let Some(tensor) = tables.iter().find_map(|table| find(table, module)) {
            return Some((Self::Layer(layer, tensor), None));
        }
        let (tensor, expert) = of_expert(module)?;
        Some((Self::Layer(layer, tensor), Some(expert)))
    }
}

impl Adapted {
    /// Returns the module `path`, such as `model.layers.0.self_attn.q_proj`, which an adapter changes; `None`
    /// if no matrix of a layer has that name.
    pub fn from_hugging_face(path: &str) -> Option<Self> {
        if path == "lm_head" {
            return Some(Self::Matrix(TensorId::Output));
        }
        let (layer, module) = inner(path).strip_prefix("layers.")?.split_once('.')?;
        let layer = layer.parse().ok()?;
        let module = &*plain(module);
        if let Some(tensor) = find(MATRICES, module) {
            return Some(Self::Matrix(TensorId::Layer(layer, tensor)));
        }
        if matches!(module, "mlp.experts" | "mlp.experts.base_layer") {
            return Some(Self::Experts(layer));
        }
        of_expert(module).map(|(tensor, expert)| Self::Expert(TensorId::Layer(layer, tensor), expert))
    }
}

/// Returns a layer's module with the usual name of the feed-forward network, which Llama 4 has renamed.
fn plain(module: &str) -> Cow<'_, str> {
    match module.strip_prefix("feed_forward.") {
        Some(rest) => format!("mlp.{rest}").into(),
        None => module.into(),
    }
}

/// Returns the matrix of an expert, and its number.
fn of_expert(module: &str) -> Option<(LayerTensor, u32)> {
    let rest =
        module.strip_prefix("mlp.experts.").or_else(|| module.strip_prefix("block_sparse_moe.experts."))?;
    let (expert, matrix) = rest.split_once('.')?;
    Some((find(EXPERT, matrix)?, expert.parse().ok()?))
}
