//! Adapters in GGUF files, in the form that llama.cpp's `convert_lora_to_gguf.py` writes.

use realm_gguf::{Gguf, TensorInfo};

use super::{AdapterFile, Data, Matrix, Pair, invalid, not_supported, show};
use crate::names::Adapted;
use crate::{Error, TensorId};

pub(super) fn read(gguf: Gguf) -> Result<AdapterFile, Error> {
    let metadata = gguf.metadata();
    let kind = metadata.str("general.type")?.unwrap_or("model");
    if kind != "adapter" {
        return Err(invalid(format!("`general.type` is `{}`: this file is no adapter", show(kind))));
    }
    let kind = metadata.require_str("adapter.type")?;
    if kind != "lora" {
        return Err(Error::Unsupported(format!(
            "adapters of type `{}` are not supported; lora is",
            show(kind)
        )));
    }
    if metadata.get("adapter.alora.invocation_tokens").is_some() {
        return Err(Error::Unsupported(
            "adapters that are invoked by tokens (aLoRA) are not supported".into(),
        ));
    }
    let alpha = metadata.require_f32("adapter.lora.alpha")?;
    let mut pairs = Vec::new();
    for a in gguf.tensors() {
        let Some(weight) = a.name.strip_suffix(".lora_a") else {
            let known =
                a.name.strip_suffix(".lora_b").is_some_and(|w| gguf.tensor(&format!("{w}.lora_a")).is_some());
            if known {
                continue;
            }
            return Err(invalid(format!("tensor `{}` is no part of a LoRA pair", show(&a.name))));
        };
        let b = gguf.require_tensor(&format!("{weight}.lora_b"))?;
        let rank = b.shape.first().map_or(1, |&rank| rank as usize);
        // llama.cpp treats an alpha of 0 as no scaling.
        let scale = if alpha == 0.0 { 1.0 } else { alpha / rank as f32 };
        let keep = |info: &TensorInfo| Matrix { info: info.clone(), bytes: 0..0 };
        let of = Adapted::Matrix(weight_of(weight)?);
        pairs.push(Pair { of, scale, rank, a: keep(a), b: keep(b) });
    }
    let architecture = metadata.str("general.architecture")?.map(str::to_owned);
    AdapterFile::new(Data::Gguf(gguf), architecture, pairs)
}

/// Returns the weight that the tensor `name` changes.
fn weight_of(name: &str) -> Result<TensorId, Error> {
    let id = name.strip_suffix(".weight").and_then(TensorId::from_gguf);
    id.ok_or_else(|| not_supported(name))
}
