//! An adapter fitted to a model and uploaded to its backend.

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, Weak};

use half::f16;
use realm_compute::{Backend, RopeStyle, quant};
use realm_gguf::{Tensor, TensorInfo, TensorType};

use super::{AdapterFile, Pair, invalid};
use crate::names::LayerTensor;
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
            adapter.add(model, file, pair)?;
        }
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

    fn add(&mut self, model: &Transformer<B>, file: &AdapterFile, pair: &Pair) -> Result<(), Error> {
        let fit = Fit::new(model, pair)?;
        let shape = |what: &str, found: &[u64], wanted: [usize; 2]| match found {
            [columns, rows] if *columns == wanted[0] as u64 && *rows == wanted[1] as u64 => Ok(()),
            _ => Err(invalid(format!("`{}` of `{}` has shape {found:?}, not {wanted:?}", what, pair.id))),
        };
        let outputs: usize = fit.tensors.iter().map(|(_, outputs)| outputs).sum();
        shape("a", &pair.a.info.shape, [fit.inputs, pair.rank()])?;
        shape("b", &pair.b.info.shape, [pair.rank(), outputs])?;
        let narrow = model.quantized;
        let (mut a_bytes, mut b_bytes) = (Vec::new(), Vec::new());
        let a = Numbers::read(&file.tensor(&pair.a, &mut a_bytes)?, narrow)?;
        let mut b = Numbers::read(&file.tensor(&pair.b, &mut b_bytes)?, narrow)?;
        if let Some(heads) = fit.permuted_heads.filter(|_| file.is_peft()) {
            b.interleave(heads);
        }
        let (all, mut first) = (b.tensor(), 0);
        for (id, outputs) in fit.tensors {
            let (mut info, data) = all
                .rows(first as u64..(first + outputs) as u64)
                .ok_or_else(|| invalid(format!("`{}` has too few rows", pair.id)))?;
            // A backend of several devices finds the weight's device by this name.
            info.name = id.weight();
            let low_rank = model.backend.low_rank(&a.tensor(), &Tensor { info: &info, data })?;
            let change = Change { pair: low_rank, scale: pair.scale * a.factor * b.factor };
            if !change.scale.is_finite() {
                return Err(invalid(format!("the change of `{}` is out of range", pair.id)));
            }
            self.bytes += a.data.len() + data.len();
            first += outputs;
            let place = match id {
                TensorId::Layer(layer, tensor) => &mut self.layers[layer][tensor as usize],
                _ => &mut self.output,
            };
            if place.replace(change).is_some() {
                return Err(invalid(format!("`{}` is changed twice", pair.id)));
            }
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
    fn new<B: Backend>(model: &Transformer<B>, pair: &Pair) -> Result<Self, Error> {
        use LayerTensor::{Gate, K, Q, Qkv, Up, V};
        let (c, id) = (&model.config, pair.id);
        let unknown = || invalid(format!("{} models have no `{id}`", c.architecture));
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
        let spec = &attention.spec;
        let interleaved = spec.rope.is_some_and(|rope| c.ropes[rope].style == RopeStyle::Interleaved);
        fit.permuted_heads = match tensor {
            Q if interleaved => Some(spec.heads),
            K if interleaved => Some(spec.kv_heads),
            _ => None,
        };
        Ok(fit)
    }
}

/// A matrix in a type that backends support: the numbers multiplied by `1 / factor`.
struct Numbers<'a> {
    info: TensorInfo,
    data: Cow<'a, [u8]>,
    factor: f32,
}

impl<'a> Numbers<'a> {
    /// Reads the numbers; `narrow` rounds F32 to 16 bits.
    fn read(tensor: &Tensor<'a>, narrow: bool) -> Result<Self, Error> {
        let name = || super::show(&tensor.info.name);
        let retyped = |ty| {
            TensorInfo::new(&*tensor.info.name, tensor.info.shape.clone(), ty)
                .ok_or_else(|| invalid(format!("`{}` is too large", name())))
        };
        let infinite = || invalid(format!("`{}` holds a number that is not finite", name()));
        let (ty, keep) = (tensor.info.ty, Cow::Borrowed(tensor.data));
        let exponents = match ty {
            TensorType::F16 => 0x7c00,
            TensorType::BF16 => 0x7f80,
            _ => {
                let mut values = vec![0.0; tensor.info.len()];
                quant::dequantize(ty, tensor.data, &mut values)?;
                if values.iter().any(|v| !v.is_finite()) {
                    return Err(infinite());
                }
                if narrow {
                    let (data, factor) = halves(&values);
                    return Ok(Self { info: retyped(TensorType::F16)?, data: data.into(), factor });
                }
                let data = match ty {
                    TensorType::F32 => keep,
                    _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                };
                return Ok(Self { info: retyped(TensorType::F32)?, data, factor: 1.0 });
            }
        };
        let finite = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & exponents != exponents;
        if !tensor.data.chunks_exact(2).all(finite) {
            return Err(infinite());
        }
        Ok(Self { info: tensor.info.clone(), data: keep, factor: 1.0 })
    }

    fn tensor(&self) -> Tensor<'_> {
        Tensor { info: &self.info, data: &self.data }
    }

    /// Puts the rows of every head in the order of llama's GGUF files: rows `i` and `i + dim / 2`, which rope
    /// rotates together, become neighbors.
    fn interleave(&mut self, heads: usize) {
        let rows = self.info.shape.get(1).map_or(0, |&r| r as usize);
        let (row_bytes, dim) = (self.data.len() / rows.max(1), rows / heads);
        let mut out = Vec::with_capacity(self.data.len());
        for head in self.data.chunks_exact(dim * row_bytes) {
            let (pairs, last) = head.split_at(dim / 2 * 2 * row_bytes);
            let (first, second) = pairs.split_at(pairs.len() / 2);
            for (a, b) in first.chunks_exact(row_bytes).zip(second.chunks_exact(row_bytes)) {
                out.extend_from_slice(a);
                out.extend_from_slice(b);
            }
            out.extend_from_slice(last);
        }
        self.data = out.into();
    }
}

/// Rounds to half floats. The numbers are scaled by a power of two, so that the largest come near the end of
/// the range and none that matters near its beginning; returns the factor that undoes the scaling.
fn halves(values: &[f32]) -> (Vec<u8>, f32) {
    let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
    // The largest number comes to 2^14 to 2^15. Numbers below 2^-40 are as good as 0, so the scale is at most
    // 2^54.
    let exponent = if largest > 0.0 { 14 - largest.log2().floor().clamp(-40.0, 127.0) as i32 } else { 0 };
    let scale = 2f32.powi(exponent);
    let data = values.iter().flat_map(|v| f16::from_f32(v * scale).to_le_bytes()).collect();
    (data, 1.0 / scale)
}
