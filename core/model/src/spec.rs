//! The shape of a model's layers, as data: what `arch` reads from a file's metadata, and what loading and the
//! forward pass follow.

use realm_compute::{Activation, NormKind, NormSpan, RopeStyle, Routing, Temperature, Window};

use crate::rope::RopeScaling;

/// The shape of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// The layer's attention.
    pub attention: AttentionSpec,
    /// The layer's feed-forward network.
    pub feed_forward: FeedForwardSpec,
    /// The places of the layer's norms.
    pub norms: NormPlaces,
}

/// The places of a layer's norms on the way of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlaces {
    /// Before attention and before the feed-forward network: `x += f(norm(x))`.
    Before,
    /// After both: `x += norm(f(x))`.
    After,
    /// Before and after both: `x += norm(f(norm(x)))`.
    Around,
    /// One norm whose result both attention and the feed-forward network read:
    /// `x += attention(norm(x)) + feed_forward(norm(x))`.
    Shared,
}

/// The attention of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Index of the layer's rope in [`ModelConfig::ropes`](crate::ModelConfig::ropes); `None` if queries and
    /// keys are not rotated.
    pub rope: Option<usize>,
    /// The tokens that a row sees; `None` for all before it.
    pub window: Option<Window>,
    /// Factor on attention scores.
    pub scale: f32,
    /// Soft cap on attention scores.
    pub soft_cap: Option<f32>,
    /// Norms of queries and keys.
    pub qk_norms: Option<QkNorms>,
    /// Set if every head has a sink: a score without a value.
    pub sinks: bool,
    /// The factor on queries that grows with their position.
    pub temperature: Option<Temperature>,
    /// Keys and values are kept as a latent state, of which `head_dim` is the width.
    pub latent: Option<LatentSpec>,
}

/// The latent state of keys and values (multi-head latent attention; DeepSeek-AI, arXiv:2405.04434).
///
/// The cache has one head for each token: the rotated part of its key, which all heads share, and the latent
/// state, from which every head makes the rest of its key and its value. The matrices that make them are
/// applied to queries and to attention's result instead, so that the cache is read as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentSpec {
    /// Numbers in the latent state of queries; `None` if queries come from hidden states.
    pub query_rank: Option<usize>,
    /// Numbers in the latent state of keys and values.
    pub rank: usize,
    /// Numbers of a head's key that are rotated.
    pub rotated: usize,
    /// Numbers of a head's key that are not rotated.
    pub plain: usize,
    /// Numbers of a head's value.
    pub value: usize,
}

/// The norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QkNorms {
    /// The formula.
    pub kind: NormKind,
    /// The numbers that one norm is over.
    pub span: NormSpan,
    /// Set if the norms come after the rotation.
    pub after_rope: bool,
    /// The weights in the file.
    pub weights: QkNormWeights,
}

impl QkNorms {
    /// RMS norms of each head before the rotation, with weights in every layer.
    pub(crate) const OF_HEADS: Self = Self {
        kind: NormKind::Rms,
        span: NormSpan::Head,
        after_rope: false,
        weights: QkNormWeights::Required,
    };
}

/// The weights of the norms of queries and keys in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNormWeights {
    /// Every layer has them.
    Required,
    /// A layer without them has no such norms.
    Optional,
    /// The norms have no weights.
    None,
}

/// The feed-forward network of one layer.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedForwardSpec {
    /// One network for every row.
    Dense(DenseSpec),
    /// Networks of which a router chooses some for each row.
    Experts(ExpertsSpec),
}

/// A feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseSpec {
    /// Numbers per hidden state of the network.
    pub width: usize,
    /// Set for `down(activation(gate(x)) * up(x))`, not set for `down(activation(up(x)))`.
    pub gated: bool,
    /// The activation.
    pub activation: Activation,
}

/// Experts and their router.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsSpec {
    /// Number of experts.
    pub count: usize,
    /// The rules by which experts are chosen and weighted.
    pub routing: Routing,
    /// The network of one expert.
    pub expert: DenseSpec,
    /// The network that every row passes as well, if there is one.
    pub shared: Option<DenseSpec>,
}

/// A way to rotate queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Rotated numbers per head.
    pub dim: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// The scaling beyond the context of the original training.
    pub scaling: RopeScaling,
    /// The two numbers of a head that form a rotated pair.
    pub style: RopeStyle,
    /// Set if the file's tensor of factors, where there is one, divides the frequencies.
    pub factors: bool,
}

impl AttentionSpec {
    /// Numbers in a row of queries.
    pub fn queries(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers in a row of keys, and in a row of values.
    pub fn keys(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Numbers in a row of the projection to queries, which is wider or narrower than
    /// [`queries`](Self::queries) only with a latent state.
    pub fn projected_queries(&self) -> usize {
        self.latent.map_or(self.queries(), |latent| self.heads * (latent.plain + latent.rotated))
    }

    /// Numbers in a row of all heads' values: the input of attention's output matrix.
    pub fn values(&self) -> usize {
        self.latent.map_or(self.queries(), |latent| self.heads * latent.value)
    }

    /// The most tokens that a row sees, its own included; `None` for all before it.
    pub fn seen(&self) -> Option<usize> {
        self.window.map(Window::tokens)
    }
}

impl FeedForwardSpec {
    /// Returns the network that every row passes: a dense one, or the shared one beside experts.
    pub fn every_row(&self) -> Option<&DenseSpec> {
        match self {
            Self::Dense(dense) => Some(dense),
            Self::Experts(experts) => experts.shared.as_ref(),
        }
    }
}

impl NormPlaces {
    /// Returns whether attention reads a norm of the residual stream.
    pub(crate) fn before(self) -> bool {
        self != Self::After
    }

    /// Returns whether results pass a norm before they are added to the residual stream.
    pub(crate) fn after(self) -> bool {
        matches!(self, Self::After | Self::Around)
    }
}
