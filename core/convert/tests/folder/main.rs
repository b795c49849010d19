//! Folders as transformers saves them are the models that their GGUF files are.

mod common;
mod quantized;
mod refuse;
mod tokenizers;

use std::sync::Arc;

use common::{bytes, config, safetensors, tensors, tiny, write};
use realm_compute::cpu::CpuBackend;
use realm_compute::{Batch, CacheType, Want, quant};
use realm_convert::{Importance, Recipe, open, open_folder};
use realm_gguf::{Gguf, TensorInfo, TensorType, Writer};
use realm_model::{ModelConfig, Transformer, Weights};
use serde_json::json;

/// Every family and every variant of rope.
const MODELS: [&str; 45] = [
    "llama-f32",
    "llama-linear-f16",
    "llama-yarn-f32",
    "mistral-window-f16",
    "qwen2-f32",
    "qwen2-yarn-f16",
    "qwen3-f16",
    "qwen3-bf16",
    "gemma2-f16",
    "gemma3-f16",
    "phi3-f32",
    "phi3-window-f16",
    "phi3-longrope-f16",
    "phi3-shortrope-f16",
    "mixtral-f32",
    "qwen2moe-f16",
    "qwen3moe-f16",
    "qwen3vl-f16",
    "olmo2-f16",
    "olmo3-f16",
    "olmoe-f16",
    "granite-f16",
    "smollm3-f16",
    "cohere2-f16",
    "command-r-f16",
    "starcoder2-f16",
    "glm4-f16",
    "glm4moe-air-f16",
    "exaone4-window-f16",
    "gpt-oss-mxfp4",
    "granitemoe-f16",
    "granitemoe-shared-f16",
    "deepseek2-lite-f16",
    "deepseek2-groups-f16",
    "deepseek3-f16",
    "ministral3-f16",
    "llama4-f16",
    "phimoe-f16",
    "hunyuan-f16",
    "seed-oss-f16",
    "dots1-f16",
    "ling2-f16",
    "ernie4.5-f16",
    "ernie4.5-moe-f16",
    "qwen3vlmoe-f16",
];

fn described(gguf: &Gguf) -> String {
    let config = ModelConfig { name: None, ..ModelConfig::from_gguf(gguf).unwrap() };
    format!("{config:?}")
}

/// The bits of the logits after each of a few tokens.
fn logits(gguf: &Gguf) -> Vec<u32> {
    let model =
        Arc::new(Transformer::load(Arc::new(CpuBackend::new(1).unwrap()), gguf, &mut |_, _| {}).unwrap());
    let groups = model.config().cache_layout().groups();
    let mut runner = model.runner(groups, CacheType::F32).unwrap();
    let tables: Vec<_> = (0..groups as u32).map(|group| vec![group]).collect();
    let mut batch = Batch::default();
    batch.push(&[1, 7, 42, 99, 3, 3, 60], 0, &tables, Want::Logits);
    runner.forward(&batch).unwrap();
    runner.outputs().host().iter().map(|logit| logit.to_bits()).collect()
}

/// The model with numbers that transformers can have: Gemma's norms are stored less 1, which leaves them the
/// precision of numbers near 1, and of gpt-oss' matrices only the experts' are MXFP4.
fn as_transformers_can_have_it(gguf: &Gguf) -> Gguf {
    let kept = |tensor: &TensorInfo| tensor.ty.block_len() == 1 || tensor.name.contains("_exps");
    let llama4 = gguf.metadata().require_str("general.architecture").unwrap() == "llama4";
    // Its factors are made from four numbers, which these are not.
    let all = || gguf.tensors().iter().filter(|tensor| !llama4 || tensor.name != "rope_freqs.weight");
    let index: Vec<_> = all()
        .map(|tensor| {
            let ty = if kept(tensor) { tensor.ty } else { TensorType::F32 };
            TensorInfo::new(tensor.name.clone(), tensor.shape.clone(), ty).unwrap()
        })
        .collect();
    let mut writer = Writer::new(Vec::new(), gguf.metadata(), &index).unwrap();
    for tensor in all() {
        let mut data = bytes(gguf, &tensor.name);
        if !kept(tensor) {
            let mut floats = vec![0.0; tensor.len()];
            quant::dequantize(tensor.ty, &data, &mut floats).unwrap();
            data = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
        }
        if tensor.name.contains("norm")
            && gguf.metadata().require_str("general.architecture").unwrap().starts_with("gemma")
        {
            for bytes in data.as_chunks_mut().0 {
                *bytes = (f32::from_le_bytes(*bytes) - 1.0 + 1.0).to_le_bytes();
            }
        }
        writer.tensor(&data).unwrap();
    }
    Gguf::from_bytes(writer.finish().unwrap()).unwrap()
}

#[test]
fn a_folder_is_the_model_that_its_gguf_file_is_bit_for_bit() {
    for name in MODELS {
        let file = as_transformers_can_have_it(&Gguf::open(tiny(name)).unwrap());
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "config.json", &config(&file));
        std::fs::write(folder.path().join("model.safetensors"), safetensors(&tensors(&file))).unwrap();
        let read = open(folder.path()).unwrap();
        assert_eq!(described(&read), described(&file), "{name}");
        for tensor in file.tensors() {
            let again = read.require_tensor(&tensor.name).unwrap();
            assert_eq!((&again.shape, again.ty), (&tensor.shape, tensor.ty), "{name}: {}", tensor.name);
            assert!(bytes(&read, &tensor.name) == bytes(&file, &tensor.name), "{name}: {}", tensor.name);
        }
        assert_eq!(read.tensors().len(), file.tensors().len(), "{name}");
        let path = folder.path().join("converted.gguf");
        let written = realm_convert::write(&read, &path, None, &Importance::new(), &mut |_, _| {}).unwrap();
        assert_eq!(written.other_types, 0);
        let converted = Gguf::open(&path).unwrap();
        let expected = logits(&file);
        assert!(logits(&read) == expected, "{name}: from the folder");
        assert!(logits(&converted) == expected, "{name}: from the converted file");
    }
}

#[test]
fn a_folder_and_its_gguf_file_quantize_to_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = Gguf::open(tiny("llama-f32")).unwrap();
    write(folder.path(), "config.json", &config(&file));
    std::fs::write(folder.path().join("model.safetensors"), safetensors(&tensors(&file))).unwrap();
    let read = open_folder(folder.path()).unwrap();
    let recipe = Recipe::named("q4_k_m").unwrap();
    let quantized = |model: &Gguf, name: &str| {
        let path = folder.path().join(name);
        realm_convert::write(model, &path, Some(recipe), &Importance::new(), &mut |_, _| {}).unwrap();
        logits(&Gguf::open(path).unwrap())
    };
    assert!(quantized(&read, "a.gguf") == quantized(&file, "b.gguf"));
}

#[test]
fn weights_in_several_files_are_found_by_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let file = Gguf::open(tiny("qwen2-f32")).unwrap();
    write(folder.path(), "config.json", &config(&file));
    let all = tensors(&file);
    let (first, second) = all.split_at(all.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in
        [("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second)]
    {
        std::fs::write(folder.path().join(name), safetensors(part)).unwrap();
        map.extend(part.iter().map(|(tensor, ..)| (tensor.clone(), name.into())));
    }
    write(folder.path(), "model.safetensors.index.json", &json!({"metadata": {}, "weight_map": map}));
    assert!(logits(&open_folder(folder.path()).unwrap()) == logits(&file));
}
