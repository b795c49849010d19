//! The parameters of [`Backend`]'s operations.

use crate::Backend;

/// One matrix product of [`Backend::matmul`].
pub struct MatMul<'a, B: Backend> {
    /// `[outputs, inputs]`.
    pub weight: &'a B::Matrix,
    /// `[outputs]`, added to every row.
    pub bias: Option<&'a B::Vector>,
    /// The result, `[rows, outputs]`.
    pub out: &'a mut B::Buffer,
    /// Adds to the contents of `out` (a residual connection) instead of replacing them.
    pub accumulate: bool,
    /// Adapters that change this weight, each for some of the rows; empty without adapters.
    pub lora: &'a [Lora<'a, B>],
}

/// An adapter's change of a weight, for some rows of a product:
/// `out[row] += scale * row's scale * b · a · x[row]` (Hu et al., arXiv:2106.09685). The changes of several
/// adapters on one row add up.
pub struct Lora<'a, B: Backend> {
    /// The matrices `a` and `b`.
    pub pair: &'a B::LowRank,
    /// The adapter's own factor: alpha / rank.
    pub scale: f32,
    /// Rows of the batch in any order, each once.
    pub rows: &'a [LoraRow],
}

/// A row that uses an adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraRow {
    /// The row's number in the input.
    pub row: u32,
    /// The request's own factor.
    pub scale: f32,
}

/// A norm of rows: `normalized(x) * weight + bias`.
pub struct Norm<'a, B: Backend> {
    /// The statistics that a row is normalized with.
    pub kind: NormKind,
    /// `[columns]`; `None` for ones.
    pub weight: Option<&'a B::Vector>,
    /// `[columns]`; `None` for zeros.
    pub bias: Option<&'a B::Vector>,
    /// Added to the mean square or the variance.
    pub eps: f32,
}

impl<B: Backend> Clone for Norm<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Norm<'_, B> {}

impl<'a, B: Backend> Norm<'a, B> {
    /// Returns an RMS norm with a weight.
    pub fn rms(weight: &'a B::Vector, eps: f32) -> Self {
        Self { kind: NormKind::Rms, weight: Some(weight), bias: None, eps }
    }
}

/// The statistics that a row is normalized with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps)` (Zhang and Sennrich, arXiv:1910.07467).
    Rms,
    /// `(x - mean(x)) / sqrt(variance(x) + eps)` (Ba et al., arXiv:1607.06450).
    Layer,
}

/// Rotary position embedding with all scaling folded into the frequencies (Su et al., arXiv:2104.09864).
pub struct Rope<B: Backend> {
    /// Radians per position, one for each rotated pair.
    pub frequencies: B::Vector,
    /// Factor on cosine and sine (YaRN's attention factor; otherwise 1).
    pub magnitude: f32,
}

/// The two numbers of a head that form a rotated pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Numbers `2i` and `2i + 1` (llama).
    Interleaved,
    /// Numbers `i` and `i + dim / 2` (GPT-NeoX; qwen, gemma, phi).
    Half,
}

/// The parameters of the attention operations of one layer.
///
/// Queries and keys are normalized, rotated, or rotated and then normalized; then queries are multiplied by
/// the temperature.
pub struct Attention<'a, B: Backend> {
    /// Index of the layer in the model.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers in one head.
    pub head_dim: usize,
    /// Norm of the queries; see [`NormSpan`] for the length of its weight.
    pub q_norm: Option<Norm<'a, B>>,
    /// Norm of the keys.
    pub k_norm: Option<Norm<'a, B>>,
    /// The numbers that both norms take together.
    pub norm_span: NormSpan,
    /// Normalizes after the rotation instead of before it.
    pub norm_after_rope: bool,
    /// The output of [`Backend::rotations`] for this layer's rope; `None` for a layer without.
    pub rotations: Option<&'a B::Buffer>,
    /// The way in which pairs are formed for rotation. Numbers beyond twice the count of frequencies are not
    /// rotated.
    pub style: RopeStyle,
    /// Factor on queries that grows with their position.
    pub temperature: Option<Temperature>,
    /// Factor on `q · k`.
    pub scale: f32,
    /// The earlier positions that a row sees; `None` for all.
    pub window: Option<Window>,
    /// Soft cap on the scaled scores: `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// One more score for each query head, `[heads]`, not scaled or capped: it takes its share of the softmax
    /// and has no value (gpt-oss).
    pub sinks: Option<&'a B::Vector>,
}

/// The numbers that a norm of queries or keys takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormSpan {
    /// Each head by itself. Weight and bias are `[head_dim]` for all heads alike, or `[heads * head_dim]`.
    #[default]
    Head,
    /// The whole row. Weight and bias are `[heads * head_dim]`.
    Row,
}

/// A factor on queries by their position: `ln(floor((position + offset) / period) + 1) * scale + 1`
/// (llama 4, ministral 3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// Added to the position.
    pub offset: f32,
    /// Positions after which the factor changes.
    pub period: f32,
    /// Strength of the change.
    pub scale: f32,
}

/// The positions that a row sees, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A row at position `p` sees `p - n + 1 ..= p`.
    Sliding(usize),
    /// A row at position `p` sees `floor(p / n) * n ..= p` (llama 4).
    Chunked(usize),
}

impl Window {
    /// The number of positions that a row sees at most: the window of [`CacheLayout`](crate::CacheLayout).
    pub fn tokens(self) -> usize {
        match self {
            Self::Sliding(n) | Self::Chunked(n) => n,
        }
    }

    /// The first position that a row at `position` sees.
    pub fn first(self, position: usize) -> usize {
        match self {
            Self::Sliding(n) => (position + 1).saturating_sub(n),
            Self::Chunked(n) => position - position % n.max(1),
        }
    }
}

/// The activation of a feed-forward network, on a gate `x` that multiplies `up`, or without a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`: SwiGLU.
    Silu,
    /// GELU in its tanh form: GeGLU.
    GeluTanh,
    /// GELU in its exact form: `x * (1 + erf(x / √2)) / 2`.
    Gelu,
    /// `max(x, 0)²`.
    ReluSquared,
    /// `sigmoid(x)`, as the gate of an output.
    Sigmoid,
    /// `g * sigmoid(alpha * g) * (u + 1)` with `g = min(x, limit)` and `u` the up clamped to `±limit`
    /// (gpt-oss). Needs a gate.
    ClampedSwiglu {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// The largest gate, and the largest magnitude of `up`.
        limit: f32,
    },
}

/// The parameters of [`Backend::mixture`]: a feed-forward network of experts, of which each row uses a few.
pub struct Mixture<'a, B: Backend> {
    /// Scores the experts, `[experts, hidden]`.
    pub router: &'a B::Matrix,
    /// Added to the scores, `[experts]`.
    pub router_bias: Option<&'a B::Vector>,
    /// The choice of experts by their scores.
    pub routing: Routing,
    /// Added to the experts' probabilities where experts are chosen, but not in their weights, `[experts]`.
    pub selection_bias: Option<&'a B::Vector>,
    /// Matrices `[inner, hidden]`; `None` for experts without a gate.
    pub gate: Option<&'a B::Experts>,
    /// Matrices `[inner, hidden]`.
    pub up: &'a B::Experts,
    /// Matrices `[hidden, inner]`.
    pub down: &'a B::Experts,
    /// Added to each expert's gate, `[experts * inner]`.
    pub gate_bias: Option<&'a B::Vector>,
    /// Added to each expert's `up`, `[experts * inner]`.
    pub up_bias: Option<&'a B::Vector>,
    /// Added to each expert's result before it is weighted, `[experts * hidden]`.
    pub down_bias: Option<&'a B::Vector>,
    /// The activation between the matrices.
    pub activation: Activation,
    /// Adapters that change the gates; empty without adapters. Their pairs have two matrices for each expert,
    /// of which a row gets those of its own experts.
    pub gate_lora: &'a [Lora<'a, B>],
    /// Adapters that change the ways up.
    pub up_lora: &'a [Lora<'a, B>],
    /// Adapters that change the ways down.
    pub down_lora: &'a [Lora<'a, B>],
    /// Adds to the contents of the output instead of replacing them.
    pub accumulate: bool,
}

/// The choice of a row's experts, and their weights.
///
/// The probabilities of experts come from the router's scores. Experts are chosen by probability plus
/// selection bias, among equals the first expert first. Their weights are their probabilities, without that
/// bias, then normalized and scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// Experts for a row.
    pub used: usize,
    /// The way in which scores become probabilities.
    pub gating: Gating,
    /// Experts are chosen from the best groups only.
    pub groups: Option<Groups>,
    /// Divides the weights by their sum.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
    /// Multiplies an expert's input by its weight, instead of its output (llama 4).
    pub weights_input: bool,
}

/// The way in which a router's scores become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// The softmax over all experts.
    Softmax,
    /// Each expert's sigmoid.
    Sigmoid,
    /// Experts are chosen by their scores; the softmax is over the chosen ones.
    SoftmaxOfChosen,
}

/// Groups of experts, from the best of which a row's experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups; divides the number of experts.
    pub count: usize,
    /// Groups from which experts are chosen.
    pub used: usize,
    /// The number that groups compete by.
    pub rank: GroupRank,
}

/// The number by which groups of experts compete, of their probabilities with the selection bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRank {
    /// The highest one (DeepSeek V2's `group_limited_greedy`; arXiv:2405.04434).
    Best,
    /// The sum of the two highest ones (DeepSeek V3; arXiv:2412.19437).
    BestTwo,
}

/// Pieces of rows, for [`Backend::copy_columns`]: piece `i` of `count` has `width` columns, from
/// `from + i * from_step` on in the input and from `to + i * to_step` on in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Number of pieces in a row.
    pub count: usize,
    /// Columns in a piece.
    pub width: usize,
    /// The first piece's first column in the input.
    pub from: usize,
    /// Columns from one piece to the next in the input.
    pub from_step: usize,
    /// The first piece's first column in the output.
    pub to: usize,
    /// Columns from one piece to the next in the output.
    pub to_step: usize,
}
