//! The feed-forward network of a layer: one for all rows, or experts.

use realm_compute::{Backend, Lora};

use super::experts::{EXPERTS, ExpertsBlock, SHARED};
use super::{BlockNorms, Linear, add, add_delta, input};
use crate::adapter::Active;
use crate::load::Loader;
use crate::names::{LayerTensor, TensorId};
use crate::pass::Buffers;
use crate::spec::{DenseSpec, FeedForwardSpec, LayerSpec, NormPlaces};
use crate::{Error, ModelConfig};

/// The weights of a layer's feed-forward network, with its norms.
pub(crate) struct FeedForwardBlock<B: Backend> {
    places: NormPlaces,
    norms: BlockNorms<B>,
    network: Network<B>,
}

/// The weights of a feed-forward network.
enum Network<B: Backend> {
    Dense(DenseBlock<B>),
    Experts(ExpertsBlock<B>),
}

/// The weights of a network that every row passes.
pub(crate) struct DenseBlock<B: Backend> {
    pub(super) spec: DenseSpec,
    gate: Option<Linear<B>>,
    up: Linear<B>,
    pub(super) down: Linear<B>,
    /// Set if the file has gate and up in one matrix.
    pub(crate) fused: bool,
}

/// The tensors of a network: gate, up and down.
pub(super) type Tensors = [LayerTensor; 3];

/// The tensors of a layer's only network.
const DENSE: Tensors = [LayerTensor::Gate, LayerTensor::Up, LayerTensor::Down];

impl<B: Backend> FeedForwardBlock<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        layer: &LayerSpec,
    ) -> Result<Self, Error> {
        let places = layer.norms;
        let named = |tensor| loader.has(TensorId::Layer(index, tensor));
        let before = match places {
            NormPlaces::After | NormPlaces::Shared => None,
            // Families that have no norm behind attention may give its name to this one.
            NormPlaces::Before
                if !named(LayerTensor::FeedForwardNorm) && named(LayerTensor::PostAttentionNorm) =>
            {
                Some(LayerTensor::PostAttentionNorm)
            }
            NormPlaces::Before | NormPlaces::Around => Some(LayerTensor::FeedForwardNorm),
        };
        let after = places.after().then_some(LayerTensor::PostFeedForwardNorm);
        Ok(Self {
            places,
            norms: BlockNorms::load(loader, c, index, before, after)?,
            network: match &layer.feed_forward {
                FeedForwardSpec::Dense(spec) => {
                    Network::Dense(DenseBlock::load(loader, c, index, *spec, DENSE)?)
                }
                FeedForwardSpec::Experts(spec) => {
                    Network::Experts(ExpertsBlock::load(loader, c, index, spec)?)
                }
            },
        })
    }

    /// Adds the network's output to the residual stream.
    pub(crate) fn run(
        &self,
        b: &B,
        c: &ModelConfig,
        index: usize,
        buffers: &mut Buffers<B>,
        active: &Active<'_, B>,
    ) -> Result<(), Error> {
        match &self.network {
            Network::Dense(dense) => {
                let Buffers { x, normed, delta, gate, up, .. } = buffers;
                let input = input(b, c, self.places, &self.norms, x, normed)?;
                let (gate, up) = (gate.of(dense.spec.width)?, up.of(dense.spec.width)?);
                let [lg, lu, ld] = DENSE.map(|tensor| active.layer(index, tensor));
                let hidden = dense.hidden(b, input, gate, up, &lg, &lu)?;
                add(b, c, &self.norms, &dense.down, &ld, hidden, delta, x)
            }
            Network::Experts(experts) => {
                let Buffers { x, normed, delta, gate, up, shared_gate, .. } = buffers;
                let input = input(b, c, self.places, &self.norms, x, normed)?;
                let lora = [SHARED, EXPERTS].map(|of| of.map(|tensor| active.layer(index, tensor)));
                experts.run(b, input, [gate, up], shared_gate, &lora, delta)?;
                add_delta(b, c, &self.norms, delta, x)
            }
        }
    }

    /// Returns whether attention and this network read one norm, side by side.
    pub(crate) fn is_beside_attention(&self) -> bool {
        self.places == NormPlaces::Shared
    }

    /// Returns the only network, if the layer has no experts.
    pub(crate) fn dense(&self) -> Option<&DenseBlock<B>> {
        match &self.network {
            Network::Dense(dense) => Some(dense),
            Network::Experts(_) => None,
        }
    }

    /// Returns a matrix of the network that every row passes, if it has it.
    pub(crate) fn linear(&self, tensor: LayerTensor) -> Option<&Linear<B>> {
        let (dense, [gate, up, down]) = match &self.network {
            Network::Dense(dense) => (dense, DENSE),
            Network::Experts(experts) => (experts.shared()?, SHARED),
        };
        match tensor {
            _ if tensor == gate => dense.gate.as_ref(),
            _ if tensor == up => Some(&dense.up),
            _ if tensor == down => Some(&dense.down),
            _ => None,
        }
    }
}

impl<B: Backend> DenseBlock<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        spec: DenseSpec,
        [gate, up, down]: Tensors,
    ) -> Result<Self, Error> {
        let id = |tensor| TensorId::Layer(index, tensor);
        let fused = spec.gated && !loader.has(id(gate));
        let (gate, up) = if fused {
            let [gate, up] = loader.fused(id(up), c.hidden, [spec.width; 2])?;
            (Some(gate), up)
        } else {
            let gate = spec.gated.then(|| loader.linear(id(gate), c.hidden, spec.width)).transpose()?;
            (gate, loader.linear(id(up), c.hidden, spec.width)?)
        };
        Ok(Self { spec, gate, up, down: loader.linear(id(down), spec.width, c.hidden)?, fused })
    }

    /// Numbers per hidden state of the network.
    pub(crate) fn width(&self) -> usize {
        self.spec.width
    }

    /// Computes the network's hidden states, and returns the buffer that they are in.
    pub(super) fn hidden<'a>(
        &self,
        b: &B,
        input: &B::Buffer,
        gate: &'a mut B::Buffer,
        up: &'a mut B::Buffer,
        gate_lora: &[Lora<'_, B>],
        up_lora: &[Lora<'_, B>],
    ) -> Result<&'a B::Buffer, Error> {
        let Some(gate_weights) = &self.gate else {
            b.matmul(input, &mut [self.up.job(up_lora, up)])?;
            b.activation(self.spec.activation, up)?;
            return Ok(up);
        };
        b.matmul(input, &mut [gate_weights.job(gate_lora, gate), self.up.job(up_lora, up)])?;
        b.gated_activation(self.spec.activation, gate, up)?;
        Ok(gate)
    }
}
