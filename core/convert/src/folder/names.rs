//! Hugging Face's names of tensors, and GGUF's.

use super::families::{Family, Norms};

/// Names outside layers.
const OUTSIDE: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// Names within a layer, the same in all families that have them.
const WITHIN: [(&str, &str); 23] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
];

/// Mixtral's names of an expert's matrices.
const MIXTRAL: [(&str, &str); 3] = [("w1", "ffn_gate_exps"), ("w2", "ffn_down_exps"), ("w3", "ffn_up_exps")];

fn norms(norms: Norms) -> &'static [(&'static str, &'static str)] {
    match norms {
        Norms::Before => &[("post_attention_layernorm", "ffn_norm")],
        Norms::After => &[
            ("post_attention_layernorm", "post_attention_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
        ],
        Norms::Gemma => &[
            ("post_attention_layernorm", "post_attention_norm"),
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
        ],
        Norms::Glm4 => &[
            ("post_self_attn_layernorm", "post_attention_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("post_mlp_layernorm", "post_ffw_norm"),
        ],
    }
}

/// A tensor's place in a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The layer; `None` outside layers.
    pub(super) layer: Option<u32>,
    /// The name without layer and suffix, such as `attn_q`.
    pub(super) part: &'static str,
    /// The expert whose matrix this is, for matrices that GGUF keeps together.
    pub(super) expert: Option<u32>,
}

impl Place {
    pub(super) fn name(&self, suffix: &str) -> String {
        match self.layer {
            Some(layer) => format!("blk.{layer}.{}.{suffix}", self.part),
            None => format!("{}.{suffix}", self.part),
        }
    }
}

/// Finds the place of a module, which is a tensor's name without `.weight` or `.bias`. `None` if the family
/// has no such module.
pub(super) fn place(family: &Family, module: &str) -> Option<Place> {
    // Models of texts and images keep the part for texts under a name of its own.
    let prefixes = ["model.language_model.", "language_model.model.", "language_model."];
    let stripped = prefixes.iter().find_map(|prefix| module.strip_prefix(prefix));
    let inner = stripped.or_else(|| module.strip_prefix("model.")).unwrap_or(module);
    let find = |names: &[(&str, &'static str)], name: &str| {
        names.iter().find(|(theirs, _)| *theirs == name).map(|&(_, ours)| ours)
    };
    let Some(rest) = inner.strip_prefix("layers.") else {
        let part = find(&OUTSIDE, inner).or_else(|| find(&OUTSIDE, &format!("model.{inner}")))?;
        return Some(Place { layer: None, part, expert: None });
    };
    let (layer, within) = rest.split_once('.')?;
    let layer = Some(layer.parse().ok()?);
    let at = |part| Some(Place { layer, part, expert: None });
    if let Some(part) = find(norms(family.norms), within).or_else(|| find(&WITHIN, within)) {
        return at(part);
    }
    let (block, rest) = within.split_once(".experts.")?;
    let (expert, matrix) = rest.split_once('.')?;
    let part = match block {
        "block_sparse_moe" => find(&MIXTRAL, matrix),
        "mlp" => find(&WITHIN, &format!("mlp.experts.{matrix}")),
        _ => None,
    };
    Some(Place { layer, part: part?, expert: Some(expert.parse().ok()?) })
}
