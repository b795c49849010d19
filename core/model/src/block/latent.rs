//! The projections of attention with a latent state; see [`LatentSpec`].

use realm_compute::{Backend, Columns, Lora};

use super::{Linear, NormWeights};
use crate::adapter::Active;
use crate::load::Loader;
use crate::names::{LayerTensor, TensorId};
use crate::pass::LatentBuffers;
use crate::spec::{AttentionSpec, LatentSpec};
use crate::{Error, ModelConfig};

/// The weights of the projections to queries and latent state, and of the matrices of each head.
pub(crate) struct LatentBlock<B: Backend> {
    heads: usize,
    spec: LatentSpec,
    /// Queries' way down to their latent state and its norm, if they have one.
    query_down: Option<(Linear<B>, NormWeights<B>)>,
    /// Queries, from their latent state or from hidden states.
    query: Linear<B>,
    down: Linear<B>,
    down_norm: NormWeights<B>,
    key_up: B::Experts,
    value_up: B::Experts,
}

impl<B: Backend> LatentBlock<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        attention: &AttentionSpec,
        spec: LatentSpec,
    ) -> Result<Self, Error> {
        let id = |tensor| TensorId::Layer(index, tensor);
        let (heads, queries) = (attention.heads, attention.projected_queries());
        let (query_down, query) = match spec.query_rank {
            Some(rank) => {
                let down = loader.linear(id(LayerTensor::QueryDown), c.hidden, rank)?;
                let norm = loader.norm(id(LayerTensor::QueryDownNorm), rank)?;
                (Some((down, norm)), loader.linear(id(LayerTensor::QueryUp), rank, queries)?)
            }
            None => (None, loader.linear(id(LayerTensor::Q), c.hidden, queries)?),
        };
        let down = loader.linear(id(LayerTensor::KeyValueDown), c.hidden, spec.rank + spec.rotated)?;
        let down_norm = loader.norm(id(LayerTensor::KeyValueDownNorm), spec.rank)?;
        let (key_up, value_up) = if loader.has(id(LayerTensor::KeyValueUp)) {
            loader.heads_of_one_matrix(
                id(LayerTensor::KeyValueUp),
                heads,
                spec.rank,
                spec.plain,
                spec.value,
            )?
        } else {
            let key_up = loader.experts(id(LayerTensor::KeyUp), spec.plain, spec.rank, heads)?;
            let value_up = loader.experts(id(LayerTensor::ValueUp), spec.rank, spec.value, heads)?;
            (key_up.weight, value_up.weight)
        };
        Ok(Self { heads, spec, query_down, query, down, down_norm, key_up, value_up })
    }

    /// Returns the projection that an adapter may change, if `tensor` is one.
    pub(super) fn linear(&self, tensor: LayerTensor) -> Option<&Linear<B>> {
        match tensor {
            LayerTensor::Q if self.query_down.is_none() => Some(&self.query),
            LayerTensor::QueryUp if self.query_down.is_some() => Some(&self.query),
            LayerTensor::QueryDown => self.query_down.as_ref().map(|(down, _)| down),
            LayerTensor::KeyValueDown => Some(&self.down),
            _ => None,
        }
    }

    /// Computes queries, keys and values for the cache's one head: first what is rotated, then the latent
    /// state. The first part of a value is not used.
    #[allow(clippy::too_many_arguments, reason = "the buffers of a step of the pass")]
    pub(super) fn project(
        &self,
        b: &B,
        c: &ModelConfig,
        index: usize,
        input: &B::Buffer,
        buffers: &mut LatentBuffers<B>,
        active: &Active<'_, B>,
        [q, k, v]: [&mut B::Buffer; 3],
    ) -> Result<(), Error> {
        let LatentBuffers { query, query_normed, queries, plain, down, state, state_normed, states, .. } =
            buffers;
        let lora = |tensor| active.layer(index, tensor);
        let multiply = |linear: &Linear<B>, lora: &[Lora<'_, B>], input: &B::Buffer, out: &mut B::Buffer| {
            b.matmul(input, &mut [linear.job(lora, out)])
        };
        match &self.query_down {
            Some((query_down, norm)) => {
                multiply(query_down, &lora(LayerTensor::QueryDown), input, query)?;
                b.norm(query, &norm.norm(c), query_normed)?;
                multiply(&self.query, &lora(LayerTensor::QueryUp), query_normed, queries)?;
            }
            None => multiply(&self.query, &lora(LayerTensor::Q), input, queries)?,
        }
        multiply(&self.down, &lora(LayerTensor::KeyValueDown), input, down)?;

        let LatentSpec { rank, rotated, plain: unrotated, .. } = self.spec;
        let (key, head) = (unrotated + rotated, rotated + rank);
        let one = |width, from, to| Columns { count: 1, width, from, from_step: 0, to, to_step: 0 };
        b.copy_columns(down, &one(rank, 0, 0), state)?;
        b.norm(state, &self.down_norm.norm(c), state_normed)?;
        for out in [k, v] {
            b.copy_columns(down, &one(rotated, rank, 0), out)?;
            b.copy_columns(state_normed, &one(rank, 0, rotated), out)?;
        }
        let each = |width, [from, from_step]: [usize; 2], [to, to_step]: [usize; 2]| Columns {
            count: self.heads,
            width,
            from,
            from_step,
            to,
            to_step,
        };
        b.copy_columns(queries, &each(unrotated, [0, key], [0, unrotated]), plain)?;
        b.each_head(plain, &self.key_up, states)?;
        b.copy_columns(queries, &each(rotated, [unrotated, key], [0, head]), q)?;
        b.copy_columns(states, &each(rank, [0, rank], [rotated, head]), q)?;
        Ok(())
    }

    /// Computes the heads' values from what attention found in the cache.
    pub(super) fn values<'a>(
        &self,
        b: &B,
        attended: &B::Buffer,
        buffers: &'a mut LatentBuffers<B>,
    ) -> Result<&'a B::Buffer, Error> {
        let LatentBuffers { states, values, .. } = buffers;
        let LatentSpec { rank, rotated, .. } = self.spec;
        let latent = Columns {
            count: self.heads,
            width: rank,
            from: rotated,
            from_step: rotated + rank,
            to: 0,
            to_step: rank,
        };
        b.copy_columns(attended, &latent, states)?;
        b.each_head(states, &self.value_up, values)?;
        Ok(values)
    }
}
