//! An adapter fitted to a model and uploaded to its backend.

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, Weak};

use half::f16;
use realm_compute::{Backend, RopeStyle, quant};
use realm_gguf::{Tensor, TensorInfo, TensorType};

use super::{AdapterFile, Module, Pair, Part, invalid};
use crate::weights::Transformer;
use crate::{Error, ModelConfig};

/// An adapter on a model's backend, independent of the backend's type: made by
/// [`Weights::adapter`](crate::Weights::adapter), used by
/// [`Forward::set_adapter`](crate::Forward::set_adapter).
pub trait AdapterWeights: Any + Send + Sync {
    /// Bytes that the adapter's matrices take on the device.
    fn bytes(&self) -> usize;
}

/// The matrices of a layer that adapters can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Q,
    K,
    V,
    AttentionOutput,
    Gate,
    Up,
    Down,
}

const SLOTS: usize = Slot::Down as usize + 1;

/// The change of one matrix.
pub(crate) struct Change<B: Backend> {
    pub(crate) pair: B::LowRank,
    pub(crate) scale: f32,
}

/// An adapter of a [`Transformer`].
pub(crate) struct Adapter<B: Backend> {
    /// The model that the adapter was made for.
    model: Weak<Transformer<B>>,
    /// By layer and [`Slot`].
    layers: Vec<[Option<Change<B>>; SLOTS]>,
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
        let layers = (0..c.layers).map(|_| [const { None }; SLOTS]).collect();
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
    pub(crate) fn change(&self, layer: usize, slot: Slot) -> Option<&Change<B>> {
        self.layers.get(layer)?[slot as usize].as_ref()
    }

    /// Returns the change of the output matrix.
    pub(crate) fn output(&self) -> Option<&Change<B>> {
        self.output.as_ref()
    }

    fn add(&mut self, model: &Transformer<B>, file: &AdapterFile, pair: &Pair) -> Result<(), Error> {
        let c = &model.config;
        let fit = Fit::new(c, pair)?;
        let shape = |what: &str, found: &[u64], wanted: [usize; 2]| match found {
            [columns, rows] if *columns == wanted[0] as u64 && *rows == wanted[1] as u64 => Ok(()),
            _ => Err(invalid(format!("`{}` of `{}` has shape {found:?}, not {wanted:?}", what, pair.module))),
        };
        let outputs: usize = fit.slots.iter().map(|(_, outputs)| outputs).sum();
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
        for (slot, outputs) in fit.slots {
            let (mut info, data) = all
                .rows(first as u64..(first + outputs) as u64)
                .ok_or_else(|| invalid(format!("`{}` has too few rows", pair.module)))?;
            // A backend of several devices finds the weight's device by this name.
            info.name = match (slot, &pair.module) {
                (Some(_), Module::Layer(layer, _)) => format!("blk.{layer}.lora_b"),
                _ => "output.lora_b".into(),
            };
            let low_rank = model.backend.low_rank(&a.tensor(), &Tensor { info: &info, data })?;
            let change = Change { pair: low_rank, scale: pair.scale * a.factor * b.factor };
            if !change.scale.is_finite() {
                return Err(invalid(format!("the change of `{}` is out of range", pair.module)));
            }
            self.bytes += a.data.len() + data.len();
            first += outputs;
            let place = match (slot, pair.module) {
                (Some(slot), Module::Layer(layer, _)) => &mut self.layers[layer][slot as usize],
                _ => &mut self.output,
            };
            if place.replace(change).is_some() {
                return Err(invalid(format!("`{}` is changed twice", pair.module)));
            }
        }
        Ok(())
    }
}

/// The place of a pair in a model.
struct Fit {
    inputs: usize,
    /// The matrices that `b`'s rows belong to, one after the other, with their numbers of rows; no slot means
    /// the output matrix.
    slots: Vec<(Option<Slot>, usize)>,
    /// Number of heads whose rows are in another order in GGUF files.
    permuted_heads: Option<usize>,
}

impl Fit {
    fn new(c: &ModelConfig, pair: &Pair) -> Result<Self, Error> {
        let traits = c.architecture.traits();
        let (q, kv, hidden, ff) = (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.hidden, c.feed_forward);
        let Module::Layer(layer, mut part) = pair.module else {
            return Ok(Self { inputs: hidden, slots: vec![(None, c.vocab)], permuted_heads: None });
        };
        if layer >= c.layers {
            return Err(invalid(format!("`{}` is changed; the model has {} layers", pair.module, c.layers)));
        }
        // Fused files use the name of one of the two for both.
        if traits.fused && part == Part::Up && pair.b.info.shape.get(1) == Some(&(2 * ff as u64)) {
            part = Part::GateUp;
        }
        if matches!(part, Part::Qkv | Part::GateUp) && !traits.fused {
            return Err(invalid(format!("{} models have no fused `{}`", c.architecture, pair.module)));
        }
        let (inputs, slots) = match part {
            Part::Q => (hidden, vec![(Slot::Q, q)]),
            Part::K => (hidden, vec![(Slot::K, kv)]),
            Part::V => (hidden, vec![(Slot::V, kv)]),
            Part::Qkv => (hidden, vec![(Slot::Q, q), (Slot::K, kv), (Slot::V, kv)]),
            Part::AttentionOutput => (q, vec![(Slot::AttentionOutput, hidden)]),
            Part::Gate => (hidden, vec![(Slot::Gate, ff)]),
            Part::Up => (hidden, vec![(Slot::Up, ff)]),
            Part::GateUp => (hidden, vec![(Slot::Gate, ff), (Slot::Up, ff)]),
            Part::Down => (ff, vec![(Slot::Down, hidden)]),
        };
        let permuted_heads = match part {
            Part::Q => Some(c.heads),
            Part::K => Some(c.kv_heads),
            _ => None,
        };
        let permuted_heads = permuted_heads.filter(|_| traits.style == RopeStyle::Interleaved);
        let slots = slots.into_iter().map(|(slot, outputs)| (Some(slot), outputs)).collect();
        Ok(Self { inputs, slots, permuted_heads })
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
