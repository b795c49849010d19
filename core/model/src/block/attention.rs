//! Attention: norm, projections, rope, the cache, and the way back to the residual stream.

use realm_compute::{Attention, Backend, Batch, Norm, NormSpan};

use super::{BlockNorms, Linear, NormWeights, add, input};
use crate::adapter::Active;
use crate::load::Loader;
use crate::names::{LayerTensor, TensorId};
use crate::pass::Buffers;
use crate::spec::{AttentionSpec, LayerSpec, NormPlaces, QkNormWeights};
use crate::{Error, ModelConfig};

/// The weights of a layer's attention.
pub(crate) struct AttentionBlock<B: Backend> {
    pub(crate) spec: AttentionSpec,
    places: NormPlaces,
    norms: BlockNorms<B>,
    pub(crate) q: Linear<B>,
    pub(crate) k: Linear<B>,
    pub(crate) v: Linear<B>,
    /// Set if the file has queries, keys and values in one matrix.
    pub(crate) fused: bool,
    /// Weights of the norms of queries and of keys.
    qk_norms: [Option<NormWeights<B>>; 2],
    sinks: Option<B::Vector>,
    pub(crate) output: Linear<B>,
}

impl<B: Backend> AttentionBlock<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        layer: &LayerSpec,
    ) -> Result<Self, Error> {
        let (spec, places) = (&layer.attention, layer.norms);
        let id = |tensor| TensorId::Layer(index, tensor);
        let (q, kv) = (spec.queries(), spec.keys());
        let fused = loader.has(id(LayerTensor::Qkv));
        let [q, k, v] = if fused {
            loader.fused(id(LayerTensor::Qkv), c.hidden, [q, kv, kv])?
        } else {
            [
                loader.linear(id(LayerTensor::Q), c.hidden, q)?,
                loader.linear(id(LayerTensor::K), c.hidden, kv)?,
                loader.linear(id(LayerTensor::V), c.hidden, kv)?,
            ]
        };
        let mut qk_norms = [None, None];
        if let Some(norms) = &spec.qk_norms {
            let tensors = [(LayerTensor::QNorm, spec.heads), (LayerTensor::KNorm, spec.kv_heads)];
            for (weights, (tensor, heads)) in qk_norms.iter_mut().zip(tensors) {
                let wanted = match norms.weights {
                    QkNormWeights::Required => true,
                    QkNormWeights::Optional => loader.has(id(tensor)),
                    QkNormWeights::None => false,
                };
                let per_head = norms.span == NormSpan::Head && loader.len(id(tensor)) == Some(spec.head_dim);
                let len = if per_head { spec.head_dim } else { heads * spec.head_dim };
                *weights = wanted.then(|| loader.norm(id(tensor), len)).transpose()?;
            }
        }
        let before = places.before().then_some(LayerTensor::AttentionNorm);
        let after = places.after().then_some(LayerTensor::PostAttentionNorm);
        Ok(Self {
            norms: BlockNorms::load(loader, c, index, before, after)?,
            sinks: spec.sinks.then(|| loader.vector(id(LayerTensor::Sinks), spec.heads)).transpose()?,
            output: loader.linear(id(LayerTensor::AttentionOutput), spec.queries(), c.hidden)?,
            spec: spec.clone(),
            places,
            q,
            k,
            v,
            fused,
            qk_norms,
        })
    }

    /// Computes the heads' outputs, in `attended`, from the residual stream, and stores keys and values.
    pub(crate) fn attend(
        &self,
        b: &B,
        c: &ModelConfig,
        index: usize,
        batch: &Batch,
        cache: &mut B::Cache,
        buffers: &mut Buffers<B>,
        active: &Active<'_, B>,
    ) -> Result<(), Error> {
        let spec = &self.spec;
        let Buffers { x, normed, q, k, v, attended, rotations, .. } = buffers;
        let (q, attended) = (q.of(spec.queries())?, attended.of(spec.queries())?);
        let [lq, lk, lv] =
            [LayerTensor::Q, LayerTensor::K, LayerTensor::V].map(|tensor| active.layer(index, tensor));
        let input = input(b, c, self.places, &self.norms, x, normed)?;
        b.matmul(input, &mut [self.q.job(&lq, q), self.k.job(&lk, k), self.v.job(&lv, v)])?;
        let [q_norm, k_norm] = self.qk_norms(c);
        let attention = Attention {
            layer: index,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            q_norm,
            k_norm,
            norm_span: spec.qk_norms.map_or(NormSpan::Head, |norms| norms.span),
            norm_after_rope: spec.qk_norms.is_some_and(|norms| norms.after_rope),
            rotations: spec.rope.and_then(|rope| rotations.get(rope)),
            style: c.ropes[spec.rope.unwrap_or(0)].style,
            temperature: spec.temperature,
            sinks: self.sinks.as_ref(),
            scale: spec.scale,
            window: spec.window,
            soft_cap: spec.soft_cap,
        };
        b.rope_store(&attention, batch, q, k, v, cache)?;
        Ok(b.attention(&attention, batch, q, cache, attended)?)
    }

    /// The norms of queries and of keys.
    fn qk_norms(&self, c: &ModelConfig) -> [Option<Norm<'_, B>>; 2] {
        let Some(norms) = self.spec.qk_norms else { return [None, None] };
        self.qk_norms.each_ref().map(|weights| {
            let norm = |weight| Norm { kind: norms.kind, weight, bias: None, eps: c.norm_eps };
            match weights {
                Some(weights) => Some(Norm { bias: weights.bias.as_ref(), ..norm(Some(&weights.weight)) }),
                None => (norms.weights == QkNormWeights::None).then(|| norm(None)),
            }
        })
    }

    /// Adds attention's output to the residual stream.
    pub(crate) fn output(
        &self,
        b: &B,
        c: &ModelConfig,
        index: usize,
        buffers: &mut Buffers<B>,
        active: &Active<'_, B>,
    ) -> Result<(), Error> {
        let Buffers { x, attended, delta, .. } = buffers;
        let lora = active.layer(index, LayerTensor::AttentionOutput);
        add(b, c, &self.norms, &self.output, &lora, attended.of(self.spec.queries())?, delta, x)
    }
}
