//! The names of a model's tensors: [`TensorId`] and its spelling in GGUF files, in Hugging Face's files and
//! in PEFT's adapters.

mod hugging_face;

pub use hugging_face::{Adapted, NormNames};

use std::fmt;

use realm_compute::parts::Place;

/// A tensor of a model by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorId {
    /// The token embeddings, `[vocab, hidden]`.
    Embeddings,
    /// The norm before the output matrix.
    OutputNorm,
    /// The output matrix, `[vocab, hidden]`.
    Output,
    /// A tensor of a layer.
    Layer(usize, LayerTensor),
}

macro_rules! layer_tensors {
    ($($(#[$doc:meta])* $id:ident $name:literal,)*) => {
        /// A tensor of a layer by its role.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum LayerTensor {
            $($(#[$doc])* $id,)*
        }

        impl LayerTensor {
            /// All tensors of a layer.
            pub const ALL: &[Self] = &[$(Self::$id),*];

            /// The name in a GGUF file, without layer, `.weight` and `.bias`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }
        }
    };
}

layer_tensors! {
    /// The norm before attention.
    AttentionNorm "attn_norm",
    /// Queries.
    Q "attn_q",
    /// Keys.
    K "attn_k",
    /// Values.
    V "attn_v",
    /// Queries, keys and values in one matrix.
    Qkv "attn_qkv",
    /// The norm of queries.
    QNorm "attn_q_norm",
    /// The norm of keys.
    KNorm "attn_k_norm",
    /// A score without a value for every head.
    Sinks "attn_sinks",
    /// Queries' way down to a latent state.
    QueryDown "attn_q_a",
    /// The norm of queries' latent state.
    QueryDownNorm "attn_q_a_norm",
    /// Queries from their latent state.
    QueryUp "attn_q_b",
    /// Keys' and values' way down to a latent state, and the rotated part of keys.
    KeyValueDown "attn_kv_a_mqa",
    /// The norm of keys' and values' latent state.
    KeyValueDownNorm "attn_kv_a_norm",
    /// Keys from the latent state, a matrix for each head.
    KeyUp "attn_k_b",
    /// Values from the latent state, a matrix for each head.
    ValueUp "attn_v_b",
    /// Keys and values from the latent state in one matrix, in older files.
    KeyValueUp "attn_kv_b",
    /// Attention's output matrix.
    AttentionOutput "attn_output",
    /// The norm after attention; in some families the norm before the feed-forward network has this name.
    PostAttentionNorm "post_attention_norm",
    /// The norm before the feed-forward network.
    FeedForwardNorm "ffn_norm",
    /// The gate of the feed-forward network.
    Gate "ffn_gate",
    /// The way up. Files that have gate and up in one matrix give it this name, too.
    Up "ffn_up",
    /// The way down.
    Down "ffn_down",
    /// The norm after the feed-forward network.
    PostFeedForwardNorm "post_ffw_norm",
    /// The router, `[experts, hidden]`.
    Router "ffn_gate_inp",
    /// The term that is added to an expert's probability only for the choice.
    SelectionBias "exp_probs_b",
    /// The gates of all experts, `[experts, width, hidden]`.
    ExpertGates "ffn_gate_exps",
    /// The ways up of all experts.
    ExpertUps "ffn_up_exps",
    /// Gates and ways up of all experts in one tensor, `[experts, 2 * width, hidden]`.
    ExpertGateUps "ffn_gate_up_exps",
    /// The ways down of all experts, `[experts, hidden, width]`.
    ExpertDowns "ffn_down_exps",
    /// The row that decides how much the shared expert counts, `[hidden]`.
    SharedRouter "ffn_gate_inp_shexp",
    /// The shared expert's gate.
    SharedGate "ffn_gate_shexp",
    /// The shared expert's way up.
    SharedUp "ffn_up_shexp",
    /// The shared expert's way down.
    SharedDown "ffn_down_shexp",
}

/// The tensors of factors that divide the frequencies of rope: one for every context, or one for long and one
/// for short contexts.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// See [`ROPE_FACTORS`].
pub(crate) const ROPE_FACTORS_LONG: &str = "rope_factors_long.weight";
/// See [`ROPE_FACTORS`].
pub(crate) const ROPE_FACTORS_SHORT: &str = "rope_factors_short.weight";

impl LayerTensor {
    /// Returns whether the tensor holds a matrix for each expert.
    pub fn is_of_experts(self) -> bool {
        use LayerTensor::{ExpertDowns, ExpertGateUps, ExpertGates, ExpertUps};
        matches!(self, ExpertGates | ExpertUps | ExpertGateUps | ExpertDowns)
    }

    /// Returns whether a mixture of experts has the tensor: its router, or the experts that it chooses.
    fn is_routed(self) -> bool {
        self.is_of_experts() || matches!(self, Self::Router | Self::SelectionBias)
    }
}

impl TensorId {
    /// Returns the role of a tensor, named as in a GGUF file with or without `.weight` or `.bias`; `None` if
    /// no role has that name.
    pub fn from_gguf(name: &str) -> Option<Self> {
        let name = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias")).unwrap_or(name);
        if let Some(rest) = name.strip_prefix("blk.") {
            let (layer, part) = rest.split_once('.')?;
            let part = LayerTensor::ALL.iter().find(|tensor| tensor.name() == part)?;
            return Some(Self::Layer(layer.parse().ok()?, *part));
        }
        [Self::Embeddings, Self::OutputNorm, Self::Output].into_iter().find(|id| id.to_string() == name)
    }

    /// Returns the layer that a tensor belongs to, by its name in a GGUF file; `None` for tensors outside
    /// layers.
    pub(crate) fn layer_of(name: &str) -> Option<usize> {
        name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
    }

    /// The place of a tensor among a model's parts, named as in a GGUF file; `None` for tensors outside
    /// layers that every part needs.
    pub fn place(name: &str) -> Option<Place> {
        if let Some(id) = Self::from_gguf(name) {
            return Some(match id {
                Self::Embeddings => Place::Embeddings,
                Self::OutputNorm | Self::Output => Place::Output,
                Self::Layer(layer, tensor) if tensor.is_routed() => Place::Experts(layer),
                Self::Layer(layer, _) => Place::Layer(layer),
            });
        }
        Self::layer_of(name).map(Place::Layer)
    }

    /// The name of the weights in a GGUF file.
    pub fn weight(self) -> String {
        format!("{self}.weight")
    }

    /// The name of the bias in a GGUF file.
    pub fn bias(self) -> String {
        format!("{self}.bias")
    }
}

impl fmt::Display for TensorId {
    /// The name in a GGUF file, without `.weight` and `.bias`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embeddings => f.write_str("token_embd"),
            Self::OutputNorm => f.write_str("output_norm"),
            Self::Output => f.write_str("output"),
            Self::Layer(layer, tensor) => write!(f, "blk.{layer}.{}", tensor.name()),
        }
    }
}
