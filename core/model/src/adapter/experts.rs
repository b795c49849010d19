//! Changes of experts: from a pair for each expert, from pairs for all, and from PEFT's parameters.

use std::collections::BTreeMap;

use realm_compute::Backend;
use realm_gguf::{Tensor, TensorInfo};

use super::numbers::Numbers;
use super::weights::Adapter;
use super::{AdapterFile, Pair, invalid, name};
use crate::names::{Adapted, LayerTensor};
use crate::weights::Transformer;
use crate::{Error, TensorId};

/// The matrices of all experts, one after the other.
struct Stack {
    id: TensorId,
    scale: f32,
    /// `[inputs, rank, experts]`
    a: (TensorInfo, Vec<u8>),
    /// `[rank, outputs, experts]`
    b: (TensorInfo, Vec<u8>),
    /// Gates and ways up alternate in `b`'s rows.
    alternating: bool,
}

/// Uploads all changes of experts that `file` has.
pub(super) fn add<B: Backend>(
    adapter: &mut Adapter<B>,
    model: &Transformer<B>,
    file: &AdapterFile,
) -> Result<(), Error> {
    let mut single: BTreeMap<TensorId, BTreeMap<u32, &Pair>> = BTreeMap::new();
    for pair in &file.pairs {
        match pair.of {
            Adapted::Matrix(id @ TensorId::Layer(_, tensor)) if tensor.is_of_experts() => {
                let [a, b] = bytes(file, pair)?;
                let (a, b) = ((pair.a.info.clone(), a), (pair.b.info.clone(), b));
                upload(adapter, model, Stack { id, scale: pair.scale, a, b, alternating: false })?;
            }
            Adapted::Expert(id, expert) => {
                single.entry(id).or_default().insert(expert, pair);
            }
            Adapted::Experts(layer) => {
                upload(adapter, model, parameter(model, file, pair, layer)?)?;
            }
            Adapted::Matrix(_) => {}
        }
    }
    single.into_iter().try_for_each(|(id, pairs)| upload(adapter, model, stack(model, file, id, &pairs)?))
}

/// Returns number, outputs and inputs of the matrices `id`.
fn shape<B: Backend>(model: &Transformer<B>, id: TensorId) -> Result<[usize; 3], Error> {
    let architecture = model.config.architecture;
    let unknown = || invalid(format!("adapters of {architecture} models do not change `{id}`"));
    model.config.experts_of(id).ok_or_else(unknown)
}

/// Reads both matrices of a pair.
fn bytes(file: &AdapterFile, pair: &Pair) -> Result<[Vec<u8>; 2], Error> {
    let mut buffer = Vec::new();
    let a = file.tensor(&pair.a, &mut buffer)?.data.to_vec();
    let b = file.tensor(&pair.b, &mut buffer)?.data.to_vec();
    Ok([a, b])
}

fn too_large(id: TensorId) -> Error {
    invalid(format!("the change of `{id}` is too large"))
}

/// Puts the pairs of single experts one after the other. Experts without a pair get zeros.
fn stack<B: Backend>(
    model: &Transformer<B>,
    file: &AdapterFile,
    id: TensorId,
    pairs: &BTreeMap<u32, &Pair>,
) -> Result<Stack, Error> {
    let [count, ..] = shape(model, id)?;
    let (Some((_, first)), Some((&last, _))) = (pairs.first_key_value(), pairs.last_key_value()) else {
        return Err(invalid(format!("no expert of `{id}` is changed")));
    };
    if last as usize >= count {
        return Err(invalid(format!(
            "{} is changed; the model has {count}",
            name(Adapted::Expert(id, last))
        )));
    }
    let same = |a: &TensorInfo, b: &TensorInfo| a.shape == b.shape && a.ty == b.ty;
    let all = |info: &TensorInfo| {
        let shape = [&info.shape[..], &[count as u64]].concat();
        let all = TensorInfo::new(&*info.name, shape, info.ty).ok_or_else(|| too_large(id))?;
        let zeros = vec![0; all.bytes()];
        Ok::<_, Error>((all, zeros))
    };
    let (mut a, mut b) = (all(&first.a.info)?, all(&first.b.info)?);
    for (&expert, pair) in pairs {
        if !same(&pair.a.info, &first.a.info)
            || !same(&pair.b.info, &first.b.info)
            || pair.scale != first.scale
        {
            return Err(Error::Unsupported(format!(
                "adapters whose ranks, types or scales differ between the experts of `{id}` are not supported"
            )));
        }
        for (all, one) in [&mut a.1, &mut b.1].into_iter().zip(bytes(file, pair)?) {
            all[expert as usize * one.len()..][..one.len()].copy_from_slice(&one);
        }
    }
    Ok(Stack { id, scale: first.scale, a, b, alternating: false })
}

/// Reads the change of a parameter that holds the matrices of all experts of a layer, as PEFT's
/// `ParamWrapper` writes it: rows `e * rank ..` of `a` are expert `e`'s; of `b` it has every column `r *
/// experts + e`.
fn parameter<B: Backend>(
    model: &Transformer<B>,
    file: &AdapterFile,
    pair: &Pair,
    layer: usize,
) -> Result<Stack, Error> {
    let (&[inputs, rows], &[_, outputs]) = (&pair.a.info.shape[..], &pair.b.info.shape[..]) else {
        return Err(invalid(format!("{} is changed by no matrices", name(pair.of))));
    };
    let found = |tensor: LayerTensor| {
        let id = TensorId::Layer(layer, tensor);
        let [count, of, from] = model.config.experts_of(id)?;
        ([of as u64, from as u64] == [outputs, inputs]).then_some((id, count))
    };
    let parts = [LayerTensor::ExpertGateUps, LayerTensor::ExpertUps, LayerTensor::ExpertDowns];
    let (id, count) = parts.into_iter().find_map(found).ok_or_else(|| {
        invalid(format!("{} of {inputs} inputs and {outputs} outputs is changed; it has none", name(pair.of)))
    })?;
    if rows != (count * pair.rank) as u64 {
        let rank = pair.rank;
        return Err(invalid(format!(
            "the change of `{id}` has rank {rows}, not {rank} for each of {count} experts"
        )));
    }
    let [a, b] = bytes(file, pair)?;
    let size = pair.b.info.ty.block_bytes();
    let (rank, outputs) = (pair.rank, outputs as usize);
    let mut by_expert = Vec::with_capacity(b.len());
    for expert in 0..count {
        for row in b.chunks_exact(rank * count * size) {
            for r in 0..rank {
                by_expert.extend_from_slice(&row[(r * count + expert) * size..][..size]);
            }
        }
    }
    let shaped = |info: &TensorInfo, shape: [usize; 3]| {
        TensorInfo::new(&*info.name, shape.map(|n| n as u64).to_vec(), info.ty).ok_or_else(|| too_large(id))
    };
    let a = (shaped(&pair.a.info, [inputs as usize, rank, count])?, a);
    let b = (shaped(&pair.b.info, [rank, outputs, count])?, by_expert);
    let alternating = model.config.architecture.alternates_gates();
    Ok(Stack { id, scale: pair.scale, a, b, alternating })
}

/// Uploads the change of the matrices of all experts.
fn upload<B: Backend>(adapter: &mut Adapter<B>, model: &Transformer<B>, stack: Stack) -> Result<(), Error> {
    let Stack { id, scale, a, b, alternating } = stack;
    let TensorId::Layer(layer, tensor) = id else { return Err(too_large(id)) };
    let [count, outputs, inputs] = shape(model, id)?.map(|n| n as u64);
    let fits = match (&a.0.shape[..], &b.0.shape[..]) {
        (&[columns, rank, experts], &[of, rows, also]) => {
            [columns, experts, of, rows, also] == [inputs, count, rank, outputs, count]
        }
        _ => false,
    };
    if !fits {
        return Err(invalid(format!(
            "`{id}` is changed by matrices of shapes {:?} and {:?}, not for {outputs} outputs and {inputs} inputs \
             of {count} experts",
            a.0.shape, b.0.shape
        )));
    }
    let read = |(info, data): &(TensorInfo, Vec<u8>)| -> Result<Numbers<'static>, Error> {
        let Numbers { info, data, factor } = Numbers::read(&Tensor { info, data }, model.quantized)?;
        Ok(Numbers { info, data: data.into_owned().into(), factor })
    };
    let (a, b) = (read(&a)?, read(&b)?);
    if tensor != LayerTensor::ExpertGateUps {
        return adapter.upload(model, id, scale, &a, &b.tensor(), b.factor);
    }
    let half = outputs / 2;
    for (part, second) in [(LayerTensor::ExpertGates, 0), (LayerTensor::ExpertUps, 1)] {
        let (first, step) = if alternating { (second, 2) } else { (second * half, 1) };
        let (info, data) = rows(&b, first, step, half).ok_or_else(|| too_large(id))?;
        let id = TensorId::Layer(layer, part);
        adapter.upload(model, id, scale, &a, &Tensor { info: &info, data: &data }, b.factor)?;
    }
    Ok(())
}

/// Returns `count` rows of each expert's matrix, from row `first` on, `step` apart.
fn rows(of: &Numbers<'_>, first: u64, step: u64, count: u64) -> Option<(TensorInfo, Vec<u8>)> {
    let &[columns, rows, experts] = &of.info.shape[..] else { return None };
    let row_bytes = of.info.bytes() / (rows * experts) as usize;
    let row = |index: u64| &of.data[index as usize * row_bytes..][..row_bytes];
    let of_expert = |expert: u64| (0..count).flat_map(move |i| row(expert * rows + first + i * step));
    let data = (0..experts).flat_map(of_expert).copied().collect();
    Some((TensorInfo::new(&*of.info.name, vec![columns, count, experts], of.info.ty)?, data))
}
