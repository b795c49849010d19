//! The forward pass in single operations, for programs that combine them.
//!
//! - [`Layerwise`]: tensors, caches and the operations on them.
//! - [`Slice`]: the rows that one call computes.
//! - [`LayerwiseRunner`]: the operations on a backend.

mod runner;
mod slice;
mod tensor;

use crate::Error;

pub use runner::LayerwiseRunner;
pub use slice::Slice;

/// The number of a tensor of activations, chosen by the caller.
pub type ActivationId = u64;

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
        to: ActivationId,
    ) -> Result<(), Error>;

    /// Appends a tensor's values to `out`, row by row.
    fn read(&self, slice: &mut Slice<'_>, x: ActivationId, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Makes a tensor of some of a tensor's rows.
    fn gather(
        &mut self,
        slice: &mut Slice<'_>,
        x: ActivationId,
        rows: &[u32],
        to: ActivationId,
    ) -> Result<(), Error>;

    /// Computes `x += other * scale`; an `other` of one row is added to every row.
    fn add(
        &mut self,
        slice: &mut Slice<'_>,
        x: ActivationId,
        other: ActivationId,
        scale: f32,
    ) -> Result<(), Error>;

    /// Makes the embeddings of tokens, `[tokens, hidden]`, the first layer's input.
    fn embed(&mut self, slice: &mut Slice<'_>, tokens: &[u32], to: ActivationId) -> Result<(), Error>;

    /// Computes a layer's attention with its norm, projections and residual connection, `[rows, hidden]`, for
    /// a tensor of `rows` rows. Their keys and values are appended to the cache of this layer.
    fn attention(
        &mut self,
        slice: &mut Slice<'_>,
        layer: usize,
        x: ActivationId,
        rows: usize,
        cache: CacheId,
        to: ActivationId,
    ) -> Result<(), Error>;

    /// Computes a layer's feed-forward network with its norm and residual connection, `[rows, hidden]`, for a
    /// tensor of `rows` rows.
    fn feed_forward(
        &mut self,
        slice: &mut Slice<'_>,
        layer: usize,
        x: ActivationId,
        rows: usize,
        to: ActivationId,
    ) -> Result<(), Error>;

    /// Computes the product of a tensor of `rows` rows with a weight matrix, named as in a GGUF file, without
    /// its bias.
    fn matmul(
        &mut self,
        slice: &mut Slice<'_>,
        weight: &str,
        x: ActivationId,
        rows: usize,
        to: ActivationId,
    ) -> Result<(), Error>;

    /// Computes output norm and output matrix for a tensor of `rows` rows, `[rows, vocab]`, and appends the
    /// logits to `out`, row by row.
    fn logits(
        &mut self,
        slice: &mut Slice<'_>,
        x: ActivationId,
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
    fn free(&mut self, slice: &mut Slice<'_>, x: ActivationId) -> Result<(), Error>;

    /// Drops the rows of a tensor of which an operation failed.
    fn discard(&mut self, x: ActivationId);
}
