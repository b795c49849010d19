//! Tensors that hold several of GGUF's: gates and ways up of all experts, keys and values of all heads.

use realm_model::names::{LayerTensor, TensorId};

use super::config::Config;
use super::families::Family;
use super::part::Part;
use super::safetensors::{Files, Stored};
use super::tensors::{Quantized, Target};
use super::weights::{Every, Weight};
use crate::Error;

/// Finds the weights of the tensor `name` if it holds several; `None` for any other tensor.
pub(super) fn weights_of(
    name: &str,
    family: &Family,
    quantized: &Quantized,
    config: &Config,
    files: &Files,
) -> Result<Option<Vec<(Target, Weight)>>, Error> {
    let Some((layer, part)) = name.split_once("layers.").and_then(|(_, rest)| rest.split_once('.')) else {
        return Ok(None);
    };
    let Ok(layer) = layer.parse() else { return Ok(None) };
    let stored = &files.tensors[name];
    let target = |tensor, suffix| (TensorId::Layer(layer, tensor), suffix, None);
    let part = part.strip_prefix("mlp.").or_else(|| part.strip_prefix("feed_forward.")).unwrap_or(part);
    let made = match part {
        // gpt-oss: gates and ways up alternate.
        "experts.gate_up_proj_blocks" => vec![
            (target(LayerTensor::ExpertGates, "weight"), fours(name, files, Every::SecondFrom(0))?),
            (target(LayerTensor::ExpertUps, "weight"), fours(name, files, Every::SecondFrom(1))?),
        ],
        "experts.down_proj_blocks" => {
            vec![(target(LayerTensor::ExpertDowns, "weight"), fours(name, files, Every::One)?)]
        }
        "experts.gate_up_proj_scales" | "experts.down_proj_scales"
            if files.tensors.contains_key(&name.replace("_scales", "_blocks")) =>
        {
            Vec::new()
        }
        "experts.gate_up_proj_bias" => {
            let all = last(stored);
            let half = |first| {
                let rows = Part { first, count: all / 2, step: 2, ..Part::all(1, 0) };
                let part = Part { swapped: true, swapped_after: true, ..rows };
                part_of(Weight::Plain(stored.clone()), part)
            };
            vec![
                (target(LayerTensor::ExpertGates, "bias"), half(0)),
                (target(LayerTensor::ExpertUps, "bias"), half(1)),
            ]
        }
        "experts.down_proj_bias" => {
            vec![(target(LayerTensor::ExpertDowns, "bias"), Weight::Plain(stored.clone()))]
        }
        // `[experts, inputs, outputs]`: alternating as above in gpt-oss, one half after the other in others.
        "experts.gate_up_proj" => {
            let (experts, half) = (first(stored), last(stored) / 2);
            let alternating = family.name == "gpt-oss";
            let part = |second: usize| {
                let (first, step) = if alternating { (second, 2) } else { (second * half, 1) };
                let part = Part { swapped: true, first, count: half, step, ..Part::all(experts, 0) };
                part_of(Weight::Plain(stored.clone()), part)
            };
            vec![
                (target(LayerTensor::ExpertGates, "weight"), part(0)),
                (target(LayerTensor::ExpertUps, "weight"), part(1)),
            ]
        }
        "experts.down_proj" => {
            let part = Part { swapped: true, ..Part::all(first(stored), last(stored)) };
            vec![(target(LayerTensor::ExpertDowns, "weight"), part_of(Weight::Plain(stored.clone()), part))]
        }
        // Granite: `[experts, outputs, inputs]`, gates before ways up.
        "block_sparse_moe.input_linear.weight" | "shared_mlp.input_linear.weight" => {
            let shared = part.starts_with("shared");
            let matrices = if shared { 1 } else { first(stored) };
            let rows = stored.shape.iter().rev().nth(1).copied().unwrap_or(0);
            let part = |second: usize| {
                let part = Part { first: second * (rows / 2), ..Part::all(matrices, rows / 2) };
                part_of(Weight::Plain(stored.clone()), part)
            };
            let [gates, ups] = if shared {
                [LayerTensor::SharedGate, LayerTensor::SharedUp]
            } else {
                [LayerTensor::ExpertGates, LayerTensor::ExpertUps]
            };
            vec![(target(gates, "weight"), part(0)), (target(ups, "weight"), part(1))]
        }
        // Latent attention: of each head the rows of keys, which are multiplied with queries, then those of
        // values.
        "self_attn.kv_b_proj.weight" | "self_attn.kv_b_proj.qweight" => {
            let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
            let all = quantized.weight(module, files)?;
            let all = all.ok_or_else(|| Error::in_tensor(module, "has parts without a weight"))?;
            let heads = config.heads()? as usize;
            let keys = config.require_size(&["qk_nope_head_dim"])? as usize;
            let values = config.require_size(&["v_head_dim"])? as usize;
            let rows = all.shape()[0];
            if rows != heads * (keys + values) {
                let why = format!("has {rows} rows for {heads} heads of {keys} and {values} numbers");
                return Err(Error::in_tensor(name, why));
            }
            let keys_of = Part { swapped_after: true, ..Part::all(heads, keys) };
            let values_of = Part { first: keys, ..Part::all(heads, values) };
            vec![
                (target(LayerTensor::KeyUp, "weight"), part_of(all.clone(), keys_of)),
                (target(LayerTensor::ValueUp, "weight"), part_of(all, values_of)),
            ]
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

fn part_of(weight: Weight, part: Part) -> Weight {
    Weight::Part { of: Box::new(weight), part }
}

fn first(stored: &Stored) -> usize {
    stored.shape.first().copied().unwrap_or(0)
}

fn last(stored: &Stored) -> usize {
    stored.shape.last().copied().unwrap_or(0)
}

/// Blocks of MXFP4, whose exponents stand in a tensor of their own.
fn fours(name: &str, files: &Files, rows: Every) -> Result<Weight, Error> {
    let scales = files.tensors.get(&name.replace("_blocks", "_scales")).cloned();
    let scales = scales.ok_or_else(|| Error::in_tensor(name, "has blocks without scales"))?;
    Ok(Weight::Fours { blocks: files.tensors[name].clone(), scales, rows })
}
