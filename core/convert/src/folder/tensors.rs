//! The tensors of a folder as those of a GGUF file, made one at a time when they are read.

use std::collections::{BTreeMap, BTreeSet};

use realm_gguf::{TensorInfo, TensorType, Tensors};
use realm_model::names::{LayerTensor, TensorId};

use super::config::Config;
use super::families::Family;
use super::fused;
use super::safetensors::{Files, Stored};
use super::weights::{Failure, Groups, Packing, Weight};
use crate::Error;
use crate::error::short;

/// Modules that are no part of a decoder of text, and buffers that can be computed.
const LEFT_OUT: [&str; 13] = [
    // ERNIE's layers that predict further tokens.
    "model.mtp_",
    "rotary_emb.",
    "visual.",
    "vision_tower.",
    "vision_model.",
    "vision_embed",
    "multi_modal_projector.",
    ".input_scale",
    ".k_scale",
    ".v_scale",
    ".q_scale",
    ".activation_scale",
    ".masked_bias",
];

/// A tensor that can be made.
pub(super) struct Made {
    pub(super) info: TensorInfo,
    from: From,
}

enum From {
    /// Weights, one after the other.
    Stored {
        weights: Vec<Weight>,
        /// The number of heads whose rows are reordered.
        heads: Option<usize>,
        /// Added to each number.
        shift: f32,
    },
    Floats(Vec<f32>),
}

/// A folder's tensors.
pub(super) struct Folder {
    pub(super) files: Files,
    pub(super) made: Vec<Made>,
}

impl Tensors for Folder {
    fn read(&self, index: usize, buffer: &mut Vec<u8>) -> Result<(), realm_gguf::Error> {
        let Made { info, from } = &self.made[index];
        let (weights, heads, shift) = match from {
            From::Stored { weights, heads, shift } => (weights, *heads, *shift),
            From::Floats(floats) => {
                buffer.clear();
                floats.iter().for_each(|x| buffer.extend(x.to_le_bytes()));
                return Ok(());
            }
        };
        let failed = |failure| match failure {
            Failure::Gguf(error) => error,
            Failure::Reason(reason) => realm_gguf::Error::Tensor { name: info.name.clone(), reason },
        };
        if let [weight] = &weights[..] {
            weight.read(&self.files, info.ty, buffer).map_err(failed)?;
        } else {
            let (mut all, mut one) = (Vec::with_capacity(info.bytes()), Vec::new());
            for weight in weights {
                weight.read(&self.files, info.ty, &mut one).map_err(failed)?;
                all.extend_from_slice(&one);
            }
            *buffer = all;
        }
        if shift != 0.0 {
            for bytes in buffer.as_chunks_mut().0 {
                *bytes = (f32::from_le_bytes(*bytes) + shift).to_le_bytes();
            }
        }
        if let Some(heads) = heads {
            let rows = *info.shape.last().unwrap_or(&1) as usize;
            *buffer = reordered(buffer, rows, heads);
        }
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        self.files.bytes()
    }
}

/// Brings the rows that rope turns together, which lie half a head apart, side by side.
fn reordered(data: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row, half) = (data.len() / rows, rows / heads / 2);
    let mut out = Vec::with_capacity(data.len());
    for head in 0..heads {
        for i in 0..half {
            for part in 0..2 {
                let from = (head * 2 + part) * half + i;
                out.extend_from_slice(&data[from * row..][..row]);
            }
        }
    }
    out
}

/// The 8-bit or 4-bit format of a folder, from `quantization_config`.
pub(super) struct Quantized {
    method: String,
    group: Option<usize>,
    block: Option<[usize; 2]>,
    zeros_less_one: bool,
}

impl Quantized {
    fn of(config: &Config) -> Result<Self, Error> {
        let settings = config.get(&["quantization_config"]);
        let setting = |key: &str| settings.and_then(|settings| settings.get(key));
        let method = setting("quant_method").and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let known = ["", "fp8", "awq", "gptq", "compressed-tensors"];
        let bits = setting("bits").and_then(serde_json::Value::as_u64).unwrap_or(4);
        if !known.contains(&&*method) || bits != 4 {
            let method = short(&method);
            return Err(Error::Unsupported(format!(
                "config.json: weights of {bits} bits by `{method}` are not read; FP8, and AWQ and GPTQ of 4 bits, are. \
                 Convert the model that was not quantized"
            )));
        }
        let number = |value: &serde_json::Value| value.as_u64().map(|n| n.min(1 << 24) as usize);
        let block = setting("weight_block_size").and_then(|block| {
            let block: Vec<_> = block.as_array()?.iter().filter_map(number).collect();
            block.try_into().ok()
        });
        let v2 = setting("checkpoint_format").and_then(|v| v.as_str()) == Some("gptq_v2");
        // -1 is one group for all inputs.
        Ok(Self { method, group: setting("group_size").and_then(number), block, zeros_less_one: !v2 })
    }

    /// Makes a weight of the tensors that belong to a module.
    pub(super) fn weight(&self, module: &str, files: &Files) -> Result<Option<Weight>, Error> {
        let part = |suffix: &str| files.tensors.get(&format!("{module}.{suffix}")).cloned();
        if let Some(codes) = part("qweight") {
            let missing = || Error::in_tensor(module, "has codes without scales or zeros");
            let (zeros, scales) = (part("qzeros").ok_or_else(missing)?, part("scales").ok_or_else(missing)?);
            let awq = self.method == "awq";
            let packing =
                if awq { Packing::Outputs } else { Packing::Inputs { zeros_less_one: self.zeros_less_one } };
            let inputs = codes.shape.first().map_or(0, |n| if awq { *n } else { n * 8 });
            let run = self.group.unwrap_or(inputs).max(1);
            let groups = match part("g_idx") {
                Some(list) if !in_runs(&list, files, run)? => Groups::Listed(list),
                _ => Groups::Runs(run),
            };
            return Ok(Some(Weight::Coded { codes, zeros, scales, groups, packing }));
        }
        let Some(weight) = part("weight") else { return Ok(None) };
        let Some(scale) = part("weight_scale_inv").or_else(|| part("weight_scale")) else {
            return Ok(Some(Weight::Plain(weight)));
        };
        // Without a size, there are as many blocks as scales.
        let blocks = |axis: usize| {
            let scales = scale.shape.get(axis).copied().unwrap_or(1).max(1);
            weight.shape.get(axis).map_or(1, |n| n.div_ceil(scales))
        };
        let block = self.block.filter(|_| scale.shape.len() == 2).unwrap_or([blocks(0), blocks(1)]);
        Ok(Some(Weight::Scaled { weight, scale, block }))
    }
}

/// Returns whether each run of `run` inputs is a group.
fn in_runs(list: &Stored, files: &Files, run: usize) -> Result<bool, Error> {
    let mut bytes = Vec::new();
    files.read(list, &mut bytes)?;
    let mut groups = bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).enumerate();
    Ok(groups.all(|(i, group)| group as usize == i / run))
}

/// One tensor of a GGUF file, and the number of an expert whose part of it stands alone.
pub(super) type Target = (TensorId, &'static str, Option<u32>);

/// Suffixes of the tensors that make up a matrix.
const PARTS: [&str; 7] =
    ["weight", "qweight", "qzeros", "scales", "g_idx", "weight_scale", "weight_scale_inv"];

/// Finds the weights of a folder's tensor `name`: several, one, or none for a tensor that belongs to another
/// one.
fn weights_of(
    name: &str,
    family: &Family,
    quantized: &Quantized,
    config: &Config,
    files: &Files,
) -> Result<Vec<(Target, Weight)>, Error> {
    let unknown = || {
        Error::Unsupported(format!(
            "tensor `{}` is no part of a plain {} model; this variant is not converted",
            short(name),
            family.name
        ))
    };
    let stored = &files.tensors[name];
    if let Some(made) = fused::weights_of(name, family, quantized, config, files)? {
        return Ok(made);
    }
    let find = |module: &str| TensorId::of_module(module, family.norms);
    // Sinks and selection biases have no suffix.
    if let Some((id @ TensorId::Layer(_, tensor), None)) = find(name) {
        let suffix = if tensor == LayerTensor::SelectionBias { "bias" } else { "weight" };
        return Ok(vec![((id, suffix, None), Weight::Plain(stored.clone()))]);
    }
    let (module, suffix) = name.rsplit_once('.').ok_or_else(unknown)?;
    let (id, expert) = find(module).ok_or_else(unknown)?;
    match suffix {
        "bias" => Ok(vec![((id, "bias", expert), Weight::Plain(stored.clone()))]),
        "weight" | "qweight" => {
            let weight = quantized.weight(module, files)?;
            let weight = weight.ok_or_else(|| Error::in_tensor(module, "has parts without a weight"))?;
            Ok(vec![((id, "weight", expert), weight)])
        }
        _ if PARTS.contains(&suffix) => {
            let whole =
                ["weight", "qweight"].iter().any(|s| files.tensors.contains_key(&format!("{module}.{s}")));
            if whole { Ok(Vec::new()) } else { Err(Error::in_tensor(module, "has parts without a weight")) }
        }
        _ => Err(unknown()),
    }
}

/// Plans the tensors of a folder. `extra` are tensors of floats that the configuration gives.
pub(super) fn plan(
    family: &Family,
    config: &Config,
    files: &Files,
    extra: Vec<(String, Vec<f32>)>,
) -> Result<Vec<Made>, Error> {
    let quantized = Quantized::of(config)?;
    let tied = config.flag(&["tie_word_embeddings"]).unwrap_or(family.shifted_norms);
    let layers = config.layers()? as usize;
    let mut groups: BTreeMap<(TensorId, &str), BTreeMap<u32, Weight>> = BTreeMap::new();
    let mut each_alone = BTreeSet::new();
    let mut names: Vec<_> = files.tensors.keys().collect();
    names.sort_unstable();
    for name in names {
        // Layers behind the last one predict further tokens, which no forward pass needs.
        let layer = name.split_once("layers.").and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        if LEFT_OUT.iter().any(|part| name.contains(part))
            || layer.is_some_and(|layer: usize| layer >= layers)
        {
            continue;
        }
        for ((id, suffix, expert), weight) in weights_of(name, family, &quantized, config, files)? {
            if id == TensorId::Output && tied {
                continue;
            }
            weight.check().map_err(|why| Error::in_tensor(name, why))?;
            if expert.is_some() {
                each_alone.insert((id, suffix));
            }
            if groups.entry((id, suffix)).or_default().insert(expert.unwrap_or(0), weight).is_some() {
                return Err(Error::in_tensor(name, "is there twice, under two names"));
            }
        }
    }
    let mut made = Vec::with_capacity(groups.len() + extra.len());
    for ((id, suffix), weights) in groups {
        let stacked = each_alone.contains(&(id, suffix));
        made.push(one(family, config, (id, suffix, stacked), weights)?);
    }
    for (name, floats) in extra {
        let info = TensorInfo::new(&*name, vec![floats.len() as u64], TensorType::F32);
        let info = info.ok_or_else(|| Error::in_tensor(&name, "has no numbers"))?;
        made.push(Made { info, from: From::Floats(floats) });
    }
    Ok(made)
}

/// Plans one tensor, of the matrices of all experts if `stacked`.
fn one(
    family: &Family,
    config: &Config,
    (id, suffix, stacked): (TensorId, &str, bool),
    weights: BTreeMap<u32, Weight>,
) -> Result<Made, Error> {
    let name = if suffix == "bias" { id.bias() } else { id.weight() };
    let wrong = |why: String| Error::in_tensor(&name, why);
    if !weights.keys().copied().eq(0..weights.len() as u32) {
        return Err(wrong(format!("has {} of more experts; the files are not complete", weights.len())));
    }
    let weights: Vec<_> = weights.into_values().collect();
    let (mut shape, mut ty) = (weights[0].shape(), weights[0].ty());
    if weights.iter().any(|weight| weight.shape() != shape || weight.ty() != ty) {
        return Err(wrong("has experts of different shapes or types".into()));
    }
    if stacked {
        shape.insert(0, weights.len());
    }
    let part = match id {
        TensorId::Layer(_, tensor) => Some(tensor),
        _ => None,
    };
    // The row that weighs the shared expert, and ERNIE's selection bias, are stored as a matrix of one row.
    let row = matches!(part, Some(LayerTensor::SharedRouter | LayerTensor::SelectionBias));
    if row && shape.len() == 2 && shape[0] == 1 {
        shape.remove(0);
    }
    // Vectors, norms of heads and the small matrix that chooses experts are F32 in GGUF files.
    let norm = id.to_string().ends_with("_norm");
    if shape.len() < 2 || norm || suffix == "bias" || part == Some(LayerTensor::Router) {
        ty = TensorType::F32;
    }
    let shift = if family.shifted_norms && norm { 1.0 } else { 0.0 };
    let heads = match part {
        Some(LayerTensor::Q) if family.permuted => Some(config.heads()? as usize),
        Some(LayerTensor::K) if family.permuted => Some(config.kv_heads()? as usize),
        _ => None,
    };
    if heads.is_some_and(|heads| !shape[0].is_multiple_of(2 * heads)) {
        return Err(wrong(format!("has {} rows for {heads:?} heads", shape[0])));
    }
    let info = TensorInfo::new(&*name, shape.iter().rev().map(|&n| n as u64).collect(), ty);
    let info = info.ok_or_else(|| wrong(format!("has the shape {shape:?}, which GGUF files cannot have")))?;
    Ok(Made { info, from: From::Stored { weights, heads, shift } })
}
