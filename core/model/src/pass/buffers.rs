//! The activations of a forward pass.

use realm_compute::Backend;

use super::TopK;
use crate::spec::{AttentionSpec, LatentSpec, LayerSpec};
use crate::{Error, ModelConfig};

/// The buffers of a pass, which grow with the largest batch.
pub(crate) struct Buffers<B: Backend> {
    /// The residual stream, and the rows of it that the end of the pass needs.
    pub(crate) x: B::Buffer,
    pub(crate) x_out: B::Buffer,
    pub(crate) normed: B::Buffer,
    /// Rows of `normed` that the end of the pass needs, if they are not all rows.
    pub(crate) normed_out: B::Buffer,
    pub(crate) hidden: B::Buffer,
    pub(crate) q: ByWidth<B>,
    pub(crate) k: ByWidth<B>,
    pub(crate) v: ByWidth<B>,
    pub(crate) attended: ByWidth<B>,
    pub(crate) attended_out: ByWidth<B>,
    pub(crate) delta: B::Buffer,
    pub(crate) gate: ByWidth<B>,
    pub(crate) up: ByWidth<B>,
    /// Decides how much a shared expert counts, `[rows, 1]`.
    pub(crate) shared_gate: B::Buffer,
    /// For layers that keep keys and values as a latent state.
    pub(crate) latent: Option<LatentBuffers<B>>,
    /// For each of the model's ropes.
    pub(crate) rotations: Vec<B::Buffer>,
    pub(crate) logits: B::Buffer,
    pub(crate) top_k: B::Buffer,
}

/// The activations of attention with a latent state.
pub(crate) struct LatentBuffers<B: Backend> {
    /// Queries' latent state, and its norm.
    pub(crate) query: B::Buffer,
    pub(crate) query_normed: B::Buffer,
    /// The projected queries, and the parts of them that are not rotated.
    pub(crate) queries: B::Buffer,
    pub(crate) plain: B::Buffer,
    /// The projection to latent state and rotated key, the latent state alone, and its norm.
    pub(crate) down: B::Buffer,
    pub(crate) state: B::Buffer,
    pub(crate) state_normed: B::Buffer,
    /// One latent state for each head.
    pub(crate) states: B::Buffer,
    pub(crate) values: B::Buffer,
}

impl<B: Backend> LatentBuffers<B> {
    fn new(b: &B, attention: &AttentionSpec, latent: &LatentSpec) -> Result<Self, Error> {
        let query_rank = latent.query_rank.unwrap_or(1);
        Ok(Self {
            query: b.buffer(0, query_rank)?,
            query_normed: b.buffer(0, query_rank)?,
            queries: b.buffer(0, attention.projected_queries())?,
            plain: b.buffer(0, attention.heads * latent.plain)?,
            down: b.buffer(0, latent.rank + latent.rotated)?,
            state: b.buffer(0, latent.rank)?,
            state_normed: b.buffer(0, latent.rank)?,
            states: b.buffer(0, attention.heads * latent.rank)?,
            values: b.buffer(0, attention.values())?,
        })
    }
}

/// Buffers of the same role for layers of several widths.
pub(crate) struct ByWidth<B: Backend>(Vec<(usize, B::Buffer)>);

impl<B: Backend> ByWidth<B> {
    fn new(b: &B, layers: &[LayerSpec], width: impl Fn(&LayerSpec) -> Option<usize>) -> Result<Self, Error> {
        let mut widths: Vec<usize> = layers.iter().filter_map(width).collect();
        widths.sort_unstable();
        widths.dedup();
        let buffers = widths.into_iter().map(|width| Ok((width, b.buffer(0, width)?)));
        buffers.collect::<Result<_, Error>>().map(Self)
    }

    /// Returns the buffer of rows of `width` numbers.
    ///
    /// # Errors
    /// `InvalidBatch` if no layer has that width.
    pub(crate) fn of(&mut self, width: usize) -> Result<&mut B::Buffer, Error> {
        let found = self.0.iter_mut().find(|(of, _)| *of == width);
        found
            .map(|(_, buffer)| buffer)
            .ok_or_else(|| Error::InvalidBatch(format!("no layer has rows of {width} numbers")))
    }
}

impl<B: Backend> Buffers<B> {
    pub(crate) fn new(b: &B, c: &ModelConfig) -> Result<Self, Error> {
        let latent = c.layers.first().map(|layer| &layer.attention);
        let latent = latent.and_then(|attention| Some((attention, attention.latent.as_ref()?)));
        let keys = |layer: &LayerSpec| Some(layer.attention.keys());
        let queries = |layer: &LayerSpec| Some(layer.attention.queries());
        let inner = |layer: &LayerSpec| layer.feed_forward.every_row().map(|dense| dense.width);
        Ok(Self {
            x: b.buffer(0, c.hidden)?,
            x_out: b.buffer(0, c.hidden)?,
            normed: b.buffer(0, c.hidden)?,
            normed_out: b.buffer(0, c.hidden)?,
            hidden: b.buffer(0, c.hidden)?,
            q: ByWidth::new(b, &c.layers, queries)?,
            k: ByWidth::new(b, &c.layers, keys)?,
            v: ByWidth::new(b, &c.layers, keys)?,
            attended: ByWidth::new(b, &c.layers, queries)?,
            attended_out: ByWidth::new(b, &c.layers, queries)?,
            delta: b.buffer(0, c.hidden)?,
            gate: ByWidth::new(b, &c.layers, inner)?,
            up: ByWidth::new(b, &c.layers, inner)?,
            shared_gate: b.buffer(0, 1)?,
            latent: latent.map(|(attention, latent)| LatentBuffers::new(b, attention, latent)).transpose()?,
            rotations: c.ropes.iter().map(|rope| b.buffer(0, rope.dim)).collect::<Result<_, _>>()?,
            logits: b.buffer(0, c.vocab)?,
            top_k: b.buffer(0, 2 * TopK::MOST)?,
        })
    }
}
