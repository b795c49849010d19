//! Attention: norm, projections, rope, the cache, and the way back to the residual stream.

use realm_compute::{Attention, Backend, Batch, Norm, NormSpan};

use super::latent::LatentBlock;
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
    projections: Projections<B>,
    /// Weights of the norms of queries and of keys.
    qk_norms: [Option<NormWeights<B>>; 2],
    sinks: Option<B::Vector>,
    output: Linear<B>,
}

/// The weights that make queries, keys and values.
enum Projections<B: Backend> {
    Plain {
        /// Queries, keys and values.
        qkv: [Linear<B>; 3],
        /// Set if the file has them in one matrix.
        fused: bool,
    },
    Latent(LatentBlock<B>),
}

/// The tensors of queries, keys and values.
const QKV: [LayerTensor; 3] = [LayerTensor::Q, LayerTensor::K, LayerTensor::V];

impl<B: Backend> Projections<B> {
    fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        spec: &AttentionSpec,
    ) -> Result<Self, Error> {
        let id = |tensor| TensorId::Layer(index, tensor);
        let (q, kv) = (spec.queries(), spec.keys());
        if loader.has(id(LayerTensor::Qkv)) {
            let qkv = loader.fused(id(LayerTensor::Qkv), c.hidden, [q, kv, kv])?;
            return Ok(Self::Plain { qkv, fused: true });
        }
        let qkv = [
            loader.linear(id(LayerTensor::Q), c.hidden, q)?,
            loader.linear(id(LayerTensor::K), c.hidden, kv)?,
            loader.linear(id(LayerTensor::V), c.hidden, kv)?,
        ];
        Ok(Self::Plain { qkv, fused: false })
    }
}

fn no_buffers() -> Error {
    Error::InvalidBatch("no buffers for a latent state".into())
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
        let projections = match spec.latent {
            Some(latent) => Projections::Latent(LatentBlock::load(loader, c, index, spec, latent)?),
            None => Projections::load(loader, c, index, spec)?,
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
            output: loader.linear(id(LayerTensor::AttentionOutput), spec.values(), c.hidden)?,
            spec: spec.clone(),
            places,
            projections,
            qk_norms,
        })
    }

    /// Computes the heads' outputs, in `attended`, from the residual stream, and stores keys and values.
    #[allow(clippy::too_many_arguments, reason = "a step of the pass, not an interface")]
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
        let Buffers { x, normed, q, k, v, attended, rotations, latent, .. } = buffers;
        let (q, attended) = (q.of(spec.queries())?, attended.of(spec.queries())?);
        let (k, v) = (k.of(spec.keys())?, v.of(spec.keys())?);
        let input = input(b, c, self.places, &self.norms, x, normed)?;
        match (&self.projections, latent) {
            (Projections::Plain { qkv: [wq, wk, wv], .. }, _) => {
                let [lq, lk, lv] = QKV.map(|tensor| active.layer(index, tensor));
                b.matmul(input, &mut [wq.job(&lq, q), wk.job(&lk, k), wv.job(&lv, v)])?;
            }
            (Projections::Latent(block), Some(latent)) => {
                block.project(b, c, index, input, latent, active, [&mut *q, &mut *k, &mut *v])?;
            }
            (Projections::Latent(_), None) => return Err(no_buffers()),
        }
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

    /// Returns whether the file has queries, keys and values in one matrix.
    pub(crate) fn is_fused(&self) -> bool {
        matches!(self.projections, Projections::Plain { fused: true, .. })
    }

    /// Returns a matrix of this block, if it has it.
    pub(crate) fn linear(&self, tensor: LayerTensor) -> Option<&Linear<B>> {
        match (&self.projections, tensor) {
            (_, LayerTensor::AttentionOutput) => Some(&self.output),
            (Projections::Plain { qkv, .. }, _) => {
                QKV.iter().position(|own| *own == tensor).map(|at| &qkv[at])
            }
            (Projections::Latent(latent), _) => latent.linear(tensor),
        }
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
        let Buffers { x, attended, delta, latent, .. } = buffers;
        let lora = active.layer(index, LayerTensor::AttentionOutput);
        let attended = attended.of(self.spec.queries())?;
        let values = match (&self.projections, latent) {
            (Projections::Plain { .. }, _) => attended,
            (Projections::Latent(block), Some(latent)) => block.values(b, attended, latent)?,
            (Projections::Latent(_), None) => return Err(no_buffers()),
        };
        add(b, c, &self.norms, &self.output, &lora, values, delta, x)
    }
}
