//! The abilities in which backends differ.

use std::fmt;

use realm_gguf::TensorType;

use crate::Activation;

/// An ability that some models need and not every backend has; see
/// [`Backend::supports`](crate::Backend::supports).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Feature {
    /// [`Backend::experts`](crate::Backend::experts) and [`Backend::mixture`](crate::Backend::mixture).
    Experts,
    /// [`Backend::each_head`](crate::Backend::each_head).
    HeadMatrices,
    /// Norms that subtract the mean, and norms with a bias.
    LayerNorm,
    /// Norms without a weight.
    PlainNorm,
    /// Norms over a whole row of queries or keys.
    RowNorms,
    /// Norms of queries and keys with a weight for each head.
    HeadNorms,
    /// Norms of queries and keys after their rotation.
    NormAfterRope,
    /// Attention without rotation.
    NoRope,
    /// Attention with sinks.
    Sinks,
    /// Queries multiplied by a factor that depends on their position.
    Temperature,
    /// Attention within chunks.
    ChunkedWindow,
    /// Heads of a number of columns.
    HeadDim(usize),
    /// An activation with a gate.
    Gated(Activation),
    /// Feed-forward networks without a gate.
    Ungated,
    /// [`Backend::add`](crate::Backend::add), [`Backend::scale`](crate::Backend::scale) and
    /// [`Backend::scale_rows`](crate::Backend::scale_rows).
    Multipliers,
    /// [`Backend::copy_columns`](crate::Backend::copy_columns).
    Columns,
    /// Layers that differ in their number of key/value heads.
    UnequalHeads,
    /// Matrices of a type of numbers.
    Weights(TensorType),
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Experts => f.write_str("mixtures of experts"),
            Self::HeadMatrices => f.write_str("a matrix for each head"),
            Self::LayerNorm => f.write_str("layer norms"),
            Self::PlainNorm => f.write_str("norms without weights"),
            Self::RowNorms => f.write_str("norms over whole rows of queries and keys"),
            Self::HeadNorms => f.write_str("norms with weights for each head"),
            Self::NormAfterRope => f.write_str("norms after the rotation"),
            Self::NoRope => f.write_str("attention without rotation"),
            Self::Sinks => f.write_str("attention sinks"),
            Self::Temperature => f.write_str("the temperature of attention by position"),
            Self::ChunkedWindow => f.write_str("attention within chunks"),
            Self::HeadDim(dim) => write!(f, "heads of {dim} numbers"),
            Self::Gated(activation) => write!(f, "feed-forward networks with {activation:?}"),
            Self::Ungated => f.write_str("feed-forward networks without a gate"),
            Self::Multipliers => f.write_str("multipliers of the residual stream"),
            Self::Columns => f.write_str("parts of rows"),
            Self::UnequalHeads => f.write_str("layers of different numbers of key/value heads"),
            Self::Weights(ty) => write!(f, "weights of type {ty}"),
        }
    }
}
