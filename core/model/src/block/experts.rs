//! Experts: a router, the networks among which it chooses, and the network that every row passes.

use realm_compute::{Backend, Lora, MatMul, Mixture};

use super::feed_forward::{DenseBlock, Tensors};
use crate::load::Loader;
use crate::names::{LayerTensor, TensorId};
use crate::pass::ByWidth;
use crate::spec::ExpertsSpec;
use crate::{Error, ModelConfig};

/// The weights of a layer's experts.
pub(crate) struct ExpertsBlock<B: Backend> {
    spec: ExpertsSpec,
    router: B::Matrix,
    router_bias: Option<B::Vector>,
    selection_bias: Option<B::Vector>,
    gate: Option<Expert<B>>,
    up: Expert<B>,
    down: Expert<B>,
    shared: Option<DenseBlock<B>>,
    /// `[1, hidden]`: decides how much the shared network counts.
    shared_router: Option<B::Matrix>,
}

/// The matrices of all experts, and their biases one after the other.
pub(crate) struct Expert<B: Backend> {
    pub(crate) weight: B::Experts,
    pub(crate) bias: Option<B::Vector>,
}

/// The tensors of the experts.
pub(super) const EXPERTS: Tensors =
    [LayerTensor::ExpertGates, LayerTensor::ExpertUps, LayerTensor::ExpertDowns];

/// The tensors of the network beside the experts.
pub(super) const SHARED: Tensors = [LayerTensor::SharedGate, LayerTensor::SharedUp, LayerTensor::SharedDown];

impl<B: Backend> ExpertsBlock<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, B>,
        c: &ModelConfig,
        index: usize,
        spec: &ExpertsSpec,
    ) -> Result<Self, Error> {
        use LayerTensor::{ExpertDowns, ExpertGateUps, ExpertGates, ExpertUps, SharedRouter};
        let id = |tensor| TensorId::Layer(index, tensor);
        let (count, width) = (spec.count, spec.expert.width);
        let (gate, up) = if loader.has(id(ExpertGateUps)) {
            let [gate, up] = loader.fused_experts(id(ExpertGateUps), c.hidden, width, count)?;
            (Some(gate), up)
        } else {
            let gated = spec.expert.gated;
            let gate = gated.then(|| loader.experts(id(ExpertGates), c.hidden, width, count)).transpose()?;
            (gate, loader.experts(id(ExpertUps), c.hidden, width, count)?)
        };
        let shared = match spec.shared {
            Some(shared) => Some(DenseBlock::load(loader, c, index, shared, SHARED)?),
            None => None,
        };
        let shared_router = (shared.is_some() && loader.has(id(SharedRouter)))
            .then(|| loader.row(id(SharedRouter), c.hidden))
            .transpose()?;
        let router = loader.linear(id(LayerTensor::Router), c.hidden, count)?;
        Ok(Self {
            spec: *spec,
            router: router.weight,
            router_bias: router.bias,
            selection_bias: loader.optional_bias(id(LayerTensor::SelectionBias), count)?,
            gate,
            up,
            down: loader.experts(id(ExpertDowns), width, c.hidden, count)?,
            shared,
            shared_router,
        })
    }

    /// Returns the network that every row passes, if there is one.
    pub(super) fn shared(&self) -> Option<&DenseBlock<B>> {
        self.shared.as_ref()
    }

    /// Computes the experts' output, and that of the network beside them.
    pub(super) fn run(
        &self,
        b: &B,
        input: &B::Buffer,
        [gate, up]: [&mut ByWidth<B>; 2],
        shared_gate: &mut B::Buffer,
        [shared_lora, expert_lora]: &[[Vec<Lora<'_, B>>; 3]; 2],
        out: &mut B::Buffer,
    ) -> Result<(), Error> {
        if let Some(network) = &self.shared {
            let [gate_lora, up_lora, down_lora] = shared_lora;
            let (gate, up) = (gate.of(network.width())?, up.of(network.width())?);
            let hidden = network.hidden(b, input, gate, up, gate_lora, up_lora)?;
            b.matmul(hidden, &mut [network.down.job(down_lora, out)])?;
        }
        if let Some(weight) = &self.shared_router {
            let job = MatMul { weight, bias: None, out: shared_gate, accumulate: false, lora: &[] };
            b.matmul(input, &mut [job])?;
            b.scale_rows(shared_gate, out)?;
        }
        let [gate_lora, up_lora, down_lora] = expert_lora;
        let mixture = Mixture {
            router: &self.router,
            router_bias: self.router_bias.as_ref(),
            routing: self.spec.routing,
            selection_bias: self.selection_bias.as_ref(),
            gate: self.gate.as_ref().map(|gate| &gate.weight),
            up: &self.up.weight,
            down: &self.down.weight,
            gate_bias: self.gate.as_ref().and_then(|gate| gate.bias.as_ref()),
            up_bias: self.up.bias.as_ref(),
            down_bias: self.down.bias.as_ref(),
            activation: self.spec.expert.activation,
            gate_lora,
            up_lora,
            down_lora,
            accumulate: self.shared.is_some(),
        };
        Ok(b.mixture(input, &mixture, out)?)
    }
}
