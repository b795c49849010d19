//! The forward pass in single operations, for programs that combine them.
//!
//! - [`Layerwise`]: tensors, caches and the operations on them.
//! - [`Slice`]: the rows that one call computes.
//! - [`LayerwiseRunner`]: the operations on a backend.

mod runner;
mod slice;
mod tensor;

use crate::{Error, ModelConfig};

pub use runner::LayerwiseRunner;
pub use slice::Slice;

/// The number of a tensor, chosen by the caller.
pub type TensorId = u64;

/// The number of a cache of keys and values, chosen by the caller.
pub type CacheId = u64;

/// Tensors, caches of keys and values, and operations on them: the object-safe interface of a
/// [`LayerwiseRunner`]. Tensors are `[rows, width]`.
///
/// Every call computes a [`Slice`] of an operation, so that a long operation does not delay other requests,
/// and charges the slice for its work; the caller repeats the call until the slice is the
/// [last](Slice::is_last). The result is appended to the rows of the tensor `to`, which the first call
/// creates. A row's result does not depend on the number of rows computed at once.
pub trait Layerwise: Send {
    /// Makes a tensor of values, given row by row.
    fn upload(
        &mut self,
        slice: &mut Slice<'_>,
        width: usize,
        values: &[f32],
        to: TensorId,
    ) -> Result<(), Error>;

    /// Appends a tensor's values to `out`, row by row.
    fn read(&self, slice: &mut Slice<'_>, x: TensorId, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Makes a tensor of some of a tensor's rows.
    fn gather(&mut self, slice: &mut Slice<'_>, x: TensorId, rows: &[u32], to: TensorId)
    -> Result<(), Error>;

    /// Computes `x += other * scale`; an `other` of one row is added to every row.
    fn add(&mut self, slice: &mut Slice<'_>, x: TensorId, other: TensorId, scale: f32) -> Result<(), Error>;

    /// Makes the embeddings of tokens, `[tokens, hidden]`, the first layer's input.
    fn embed(&mut self, slice: &mut Slice<'_>, tokens: &[u32], to: TensorId) -> Result<(), Error>;

    /// Computes a layer's attention with its norm, projections and residual connection, `[rows, hidden]`, for
    /// a tensor of `rows` rows. Their keys and values are appended to the cache of this layer.
    fn attention(
        &mut self,
        slice: &mut Slice<'_>,
        layer: usize,
        x: TensorId,
        rows: usize,
        cache: CacheId,
        to: TensorId,
    ) -> Result<(), Error>;

    /// Computes a layer's feed-forward network with its norm and residual connection, `[rows, hidden]`, for a
    /// tensor of `rows` rows.
    fn feed_forward(
        &mut self,
        slice: &mut Slice<'_>,
        layer: usize,
        x: TensorId,
        rows: usize,
        to: TensorId,
    ) -> Result<(), Error>;

    /// Computes the product of a tensor of `rows` rows with a weight matrix, named as in a GGUF file, without
    /// its bias.
    fn matmul(
        &mut self,
        slice: &mut Slice<'_>,
        weight: &str,
        x: TensorId,
        rows: usize,
        to: TensorId,
    ) -> Result<(), Error>;

    /// Computes output norm and output matrix for a tensor of `rows` rows, `[rows, vocab]`, and appends the
    /// logits to `out`, row by row.
    fn logits(
        &mut self,
        slice: &mut Slice<'_>,
        x: TensorId,
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), Error>;

    /// Makes an empty cache for `tokens` tokens.
    fn open_cache(&mut self, slice: &mut Slice<'_>, tokens: usize, to: CacheId) -> Result<(), Error>;

    /// Drops a cache's tokens from the `len`th on, in all layers.
    fn truncate_cache(&mut self, slice: &mut Slice<'_>, cache: CacheId, len: usize) -> Result<(), Error>;

    /// Frees a cache.
    fn free_cache(&mut self, slice: &mut Slice<'_>, cache: CacheId) -> Result<(), Error>;

    /// Frees a tensor.
    fn free(&mut self, slice: &mut Slice<'_>, x: TensorId) -> Result<(), Error>;

    /// Drops the rows of a tensor of which an operation failed.
    fn discard(&mut self, x: TensorId);
}

/// Returns outputs and inputs of a weight matrix, named as in a GGUF file; `None` if a model of this shape
/// has no such matrix.
pub(crate) fn shape_of(config: &ModelConfig, weight: &str) -> Option<[usize; 2]> {
    let c = config;
    let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    if matches!(weight, "token_embd.weight" | "output.weight") {
        return Some([c.vocab, c.hidden]);
    }
    let (_, part) = split(weight).filter(|&(layer, _)| layer < c.layers)?;
    match part {
        "attn_q" => Some([q, c.hidden]),
        "attn_k" | "attn_v" => Some([kv, c.hidden]),
        "attn_output" => Some([c.hidden, q]),
        "ffn_gate" | "ffn_up" => Some([c.feed_forward, c.hidden]),
        "ffn_down" => Some([c.hidden, c.feed_forward]),
        _ => None,
    }
}

/// Splits a name such as `blk.0.attn_q.weight` into layer and part.
fn split(weight: &str) -> Option<(usize, &str)> {
    let (layer, part) = weight.strip_prefix("blk.")?.strip_suffix(".weight")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}
