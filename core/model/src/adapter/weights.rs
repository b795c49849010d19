//! An adapter fitted to a model and uploaded to its backend.

use std::any::Any;
use std::sync::{Arc, Weak};

use realm_compute::Backend;
use realm_gguf::Tensor;

use super::numbers::Numbers;
use super::{AdapterFile, Pair, invalid};
use crate::names::{Adapted, LayerTensor};
use crate::weights::Transformer;
use crate::{Error, TensorId};

/// An adapter on a model's backend, independent of the backend's type: made by
/// [`Weights::adapter`](crate::Weights::adapter), used by
/// [`Forward::set_adapter`](crate::Forward::set_adapter).
pub trait AdapterWeights: Any + Send + Sync {
    /// Bytes that the adapter's matrices take on the device.
    fn bytes(&self) -> usize;
}

/// The change of one matrix.
pub(crate) struct Change<B: Backend> {
    pub(crate) pair: B::LowRank,
    pub(crate) scale: f32,
}

/// An adapter of a [`Transformer`].
pub(crate) struct Adapter<B: Backend> {
    /// The model that the adapter was made for.
    model: Weak<Transformer<B>>,
    /// By layer and tensor.
    layers: Vec<[Option<Change<B>>; LayerTensor::ALL.len()]>,
    output: Option<Change<B>>,
    bytes: usize,
}

impl<B: Backend> AdapterWeights for Adapter<B> {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<B: Backend> Adapter<B> {
    /// Checks that `file` fits the model and uploads it.
    pub(crate) fn new(model: &Arc<Transformer<B>>, file: &AdapterFile) -> Result<Self, Error> {
        let c = &model.config;
        if let Some(other) = file.architecture.as_deref().filter(|&a| a != c.architecture.name()) {
            let other = super::show(other);
            return Err(invalid(format!(
                "the adapter is for `{other}` models; this one is `{}`",
                c.architecture
            )));
        }
        let layers = c.layers.iter().map(|_| [const { None }; LayerTensor::ALL.len()]).collect();
        let mut adapter = Self { model: Arc::downgrade(model), layers, output: None, bytes: 0 };
        for pair in &file.pairs {
            if let Adapted::Matrix(id) = pair.of
                && !matches!(id, TensorId::Layer(_, tensor) if tensor.is_of_experts())
            {
                adapter.add(model, file, pair, id)?;
            }
        }
        super::experts::add(&mut adapter, model, file)?;
        Ok(adapter)
    }

    /// Returns whether the adapter was made for `model`.
    pub(crate) fn is_of(&self, model: &Arc<Transformer<B>>) -> bool {
        std::ptr::eq(self.model.as_ptr(), Arc::as_ptr(model))
    }

    /// Returns the change of a layer's matrix.
    pub(crate) fn change(&self, layer: usize, tensor: LayerTensor) -> Option<&Change<B>> {
        self.layers.get(layer)?[tensor as usize].as_ref()
    }

    /// Returns the change of the output matrix.
    pub(crate) fn output(&self) -> Option<&Change<B>> {
        self.output.as_ref()
    }

    /// Uploads the change of a matrix, or of the matrices of all experts. `a` and `b` are in GGUF's shapes.
    pub(super) fn upload(
        &mut self,
        model: &Transformer<B>,
        id: TensorId,
        scale: f32,
        a: &Numbers<'_>,
        b: &Tensor<'_>,
        factor: f32,
    ) -> Result<(), Error> {
        // A backend of several devices finds the weight's device by this name.
        let mut info = b.info.clone();
        info.name = id.weight();
        let pair = model.backend.low_rank(&a.tensor(), &Tensor { info: &info, data: b.data })?;
        let change = Change { pair, scale: scale * a.factor * factor };
        if !change.scale.is_finite() {
            return Err(invalid(format!("the change of `{id}` is out of range")));
        }
        self.bytes += a.data.len() + b.data.len();
        let place = match id {
            TensorId::Layer(layer, tensor) => &mut self.layers[layer][tensor as usize],
            _ => &mut self.output,
        };
        match place.replace(change) {
            Some(_) => Err(invalid(format!("`{id}` is changed twice"))),
            None => Ok(()),
        }
    }

    fn add(
        &mut self,
        model: &Transformer<B>,
        file: &AdapterFile,
        pair: &Pair,
        id: TensorId,
    ) -> Result<(), Error> {
        let fit = Fit::new(model, pair, id)?;
        let shape = |what: &str, found: &[u64], wanted: [usize; 2]| match found {
            [columns, rows] if *columns == wanted[0] as u64 && *rows == wanted[1] as u64 => Ok(()),
            _ => Err(invalid(format!("`{what}` of `{id}` has shape {found:?}, not {wanted:?}"))),
        };
        let outputs: usize = fit.tensors.iter().map(|(_, outputs)| outputs).sum();
        shape("a", &pair.a.info.shape, [fit.inputs, pair.rank])?;
        shape("b", &pair.b.info.shape, [pair.rank, outputs])?;
        let narrow = model.quantized;
        let (mut a_bytes, mut b_bytes) = (Vec::new(), Vec::new());
        let a = Numbers::read(&file.tensor(&pair.a, &mut a_bytes)?, narrow)?;
        let mut b = Numbers::read(&file.tensor(&pair.b, &mut b_bytes)?, narrow)?;
        if let Some(heads) = fit.permuted_heads.filter(|_| file.is_peft()) {
            b.interleave(heads);
        }
        let (all, mut first) = (b.tensor(), 0);
        for (part, outputs) in fit.tensors {
            let (info, data) = all
                .rows(first as u64..(first + outputs) as u64)
                .ok_or_else(|| invalid(format!("`{id}` has too few rows")))?;
            self.upload(model, part, pair.scale, &a, &Tensor { info: &info, data }, b.factor)?;
            first += outputs;
        }
        Ok(())
    }
}

/// The place of a pair in a model.
struct Fit {
    inputs: usize,
    /// The matrices that `b`'s rows belong to, one after the other, with their numbers of rows.
    tensors: Vec<(TensorId, usize)>,
    /// Number of heads whose rows are in another order in GGUF files.
    permuted_heads: Option<usize>,
}

impl Fit {
    fn new<B: Backend>(model: &Transformer<B>, pair: &Pair, id: TensorId) -> Result<Self, Error> {
        use LayerTensor::{Gate, K, Q, Qkv, Up, V};
        let c = &model.config;
        let unknown = || invalid(format!("adapters of {} models do not change `{id}`", c.architecture));
        let TensorId::Layer(index, tensor) = id else {
            let [outputs, inputs] = c.shape_of(id).filter(|_| id == TensorId::Output).ok_or_else(unknown)?;
            return Ok(Self { inputs, tensors: vec![(id, outputs)], permuted_heads: None });
        };
        let Some(layer) = model.layers.get(index) else {
            return Err(invalid(format!("`{id}` is changed; the model has {} layers", c.layers.len())));
        };
        let (attention, dense) = (&layer.attention, layer.feed_forward.dense());
        // Files that have gate and up in one matrix use the name of one of the two for both.
        let both = tensor == Up
            && dense.is_some_and(|dense| {
                dense.fused && pair.b.info.shape.get(1) == Some(&(2 * dense.width() as u64))
            });
        let parts = match tensor {
            Qkv if attention.is_fused() => vec![Q, K, V],
            Qkv => return Err(invalid(format!("{} models have no fused `{id}`", c.architecture))),
            Up if both => vec![Gate, Up],
            tensor => vec![tensor],
        };
        let mut fit = Self { inputs: 0, tensors: Vec::with_capacity(parts.len()), permuted_heads: None };
        for part in parts {
            let id = TensorId::Layer(index, part);
            let [outputs, inputs] = c.shape_of(id).ok_or_else(unknown)?;
            fit.inputs = inputs;
            fit.tensors.push((id, outputs));
        }
        let reordered = c.architecture.reorders_heads();
        fit.permuted_heads = match tensor {
            Q if reordered => Some(attention.spec.heads),
            K if reordered => Some(attention.spec.kv_heads),
            _ => None,
        };
        Ok(fit)
    }
}
