//! Names in Hugging Face's files, which PEFT's adapters use as well.

use super::{LayerTensor, TensorId};

/// Module names within a layer.
const LAYER: &[(&str, LayerTensor)] = &[
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
];

impl TensorId {
    /// Returns the role of the module `path`, such as `model.layers.0.self_attn.q_proj`; `None` if no role has
    /// that name.
    pub fn from_hugging_face(path: &str) -> Option<Self> {
        if path == "lm_head" {
            return Some(Self::Output);
        }
        let prefixes = ["model.language_model.", "language_model.model.", "model."];
        let path = prefixes.iter().find_map(|p| path.strip_prefix(p)).unwrap_or(path);
        let (layer, module) = path.strip_prefix("layers.")?.split_once('.')?;
        let (_, tensor) = LAYER.iter().find(|(name, _)| *name == module)?;
        Some(Self::Layer(layer.parse().ok()?, *tensor))
    }
}
