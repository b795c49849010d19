//! The blocks of a layer: their weights and their part of the forward pass.

mod attention;
mod experts;
mod feed_forward;
mod latent;

use realm_compute::{Backend, Lora, MatMul, Norm};

use crate::load::Loader;
use crate::names::{LayerTensor, TensorId};
use crate::pass::Buffers;
use crate::spec::{LayerSpec, NormPlaces};
use crate::{Error, ModelConfig};

pub(crate) use attention::AttentionBlock;
pub(crate) use experts::Expert;
pub(crate) use feed_forward::FeedForwardBlock;

/// A matrix and its bias.
pub(crate) struct Linear<B: Backend> {
    pub(crate) weight: B::Matrix,
    pub(crate) bias: Option<B::Vector>,
}

impl<B: Backend> Linear<B> {
    /// Returns the product with the matrix, written to `out`.
    pub(crate) fn job<'a>(&'a self, lora: &'a [Lora<'a, B>], out: &'a mut B::Buffer) -> MatMul<'a, B> {
        MatMul { weight: &self.weight, bias: self.bias.as_ref(), out, accumulate: false, lora }
    }
}

/// The weights of a norm.
pub(crate) struct NormWeights<B: Backend> {
    pub(crate) weight: B::Vector,
    pub(crate) bias: Option<B::Vector>,
}

impl<B: Backend> NormWeights<B> {
    /// Returns the norm with these weights.
    pub(crate) fn norm(&self, c: &ModelConfig) -> Norm<'_, B> {
        Norm { kind: c.norm, weight: Some(&self.weight), bias: self.bias.as_ref(), eps: c.norm_eps }
    }
}

/// The weights of a layer.
pub(crate) struct Layer<B: Backend> {
    pub(crate) attention: AttentionBlock<B>,
    pub(crate) feed_forward: FeedForwardBlock<B>,
}

impl<B: Backend> Layer<B> {
    /// Loads layer `index`.
    pub(crate) fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        spec: &LayerSpec,
    ) -> Result<Self, Error> {
        Ok(Self {
            attention: AttentionBlock::load(loader, c, index, spec)?,
            feed_forward: FeedForwardBlock::load(loader, c, index, spec)?,
        })
    }
}

/// The norms before and after a block.
pub(crate) struct BlockNorms<B: Backend> {
    before: Option<NormWeights<B>>,
    after: Option<NormWeights<B>>,
}

impl<B: Backend> BlockNorms<B> {
    fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        before: Option<LayerTensor>,
        after: Option<LayerTensor>,
    ) -> Result<Self, Error> {
        let mut load = |tensor: Option<LayerTensor>| {
            tensor.map(|tensor| loader.norm(TensorId::Layer(index, tensor), c.hidden)).transpose()
        };
        Ok(Self { before: load(before)?, after: load(after)? })
    }
}

/// Adds `linear(input)` to the residual stream, through the norm behind the block if it has one.
#[allow(clippy::too_many_arguments, reason = "a step of the pass, not an interface")]
fn add<B: Backend>(
    b: &B,
    c: &ModelConfig,
    norms: &BlockNorms<B>,
    linear: &Linear<B>,
    lora: &[Lora<'_, B>],
    input: &B::Buffer,
    delta: &mut B::Buffer,
    x: &mut B::Buffer,
) -> Result<(), Error> {
    if norms.after.is_none() && c.residual_scale == 1.0 {
        return Ok(b.matmul(input, &mut [MatMul { accumulate: true, ..linear.job(lora, x) }])?);
    }
    b.matmul(input, &mut [linear.job(lora, delta)])?;
    add_delta(b, c, norms, delta, x)
}

/// Adds a block's result to the residual stream, through the norm behind the block if it has one.
fn add_delta<B: Backend>(
    b: &B,
    c: &ModelConfig,
    norms: &BlockNorms<B>,
    delta: &mut B::Buffer,
    x: &mut B::Buffer,
) -> Result<(), Error> {
    match &norms.after {
        Some(after) if c.residual_scale == 1.0 => b.add_norm(x, delta, &after.norm(c))?,
        Some(_) => return Err(Error::Unsupported("norms behind blocks with a residual scale".into())),
        None => b.add(x, delta, c.residual_scale)?,
    }
    Ok(())
}

/// Writes the norm before a block. Returns the block's input.
fn input<'a, B: Backend>(
    b: &B,
    c: &ModelConfig,
    places: NormPlaces,
    norms: &BlockNorms<B>,
    x: &'a B::Buffer,
    normed: &'a mut B::Buffer,
) -> Result<&'a B::Buffer, Error> {
    if let Some(before) = &norms.before {
        b.norm(x, &before.norm(c), normed)?;
    }
    // Of a norm that attention and feed-forward network share, attention has written the result.
    Ok(if norms.before.is_some() || places == NormPlaces::Shared { normed } else { x })
}

/// Keeps only the rows `rows` of everything that the rest of the last layer reads.
pub(crate) fn gather<B: Backend>(
    b: &B,
    layer: &LayerSpec,
    rows: &[u32],
    buffers: &mut Buffers<B>,
) -> Result<(), Error> {
    let width = layer.attention.queries();
    let Buffers { x, x_out, attended, attended_out, normed, normed_out, .. } = buffers;
    let (attended, attended_out) = (attended.of(width)?, attended_out.of(width)?);
    b.gather(x, rows, x_out)?;
    b.gather(attended, rows, attended_out)?;
    std::mem::swap(x, x_out);
    std::mem::swap(attended, attended_out);
    if layer.norms == NormPlaces::Shared {
        b.gather(normed, rows, normed_out)?;
        std::mem::swap(normed, normed_out);
    }
    Ok(())
}
