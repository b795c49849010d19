//! Folders that cannot be read, and what their errors say.

use std::path::Path;

use proptest::prelude::*;
use realm_convert::open_folder;
use realm_gguf::Gguf;
use serde_json::{Value, json};

use crate::common::{Stored, config, safetensors, tensors, tiny, write};

fn folder_of(config: &Value, tensors: &[Stored]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "config.json", config);
    std::fs::write(folder.path().join("model.safetensors"), safetensors(tensors)).unwrap();
    folder
}

fn error(folder: &Path) -> String {
    open_folder(folder).err().expect("an error").to_string()
}

#[test]
fn an_error_says_what_to_do() {
    let file = Gguf::open(tiny("llama-f32")).unwrap();
    let (good, tensors) = (config(&file), tensors(&file));
    let changed = |key: &str, value: Value| {
        let mut config = good.clone();
        config[key] = value;
        error(folder_of(&config, &tensors).path())
    };
    let empty = tempfile::tempdir().unwrap();
    assert!(error(empty.path()).contains("without config.json"));
    write(empty.path(), "config.json", &good);
    assert!(error(empty.path()).contains("fetch the whole repository"));
    std::fs::write(empty.path().join("pytorch_model.bin"), "").unwrap();
    assert!(error(empty.path()).contains("safe_serialization=True"));
    let error_of_class = changed("architectures", json!(["RwkvForCausalLM"]));
    assert!(error_of_class.contains("`RwkvForCausalLM`") && error_of_class.contains("Qwen3ForCausalLM"));
    assert!(changed("num_hidden_layers", json!("two")).contains("`num_hidden_layers` is"));
    assert!(changed("hidden_size", Value::Null).contains("`hidden_size` is missing"));
    assert!(changed("rope_scaling", json!({"rope_type": "dynamic"})).contains("`dynamic`"));
    assert!(changed("num_attention_heads", json!(7)).contains("7"));
    assert!(changed("quantization_config", json!({"quant_method": "bitsandbytes"})).contains("bitsandbytes"));
    assert!(changed("architectures", json!(["DeepseekV2ForCausalLM"])).contains("`kv_lora_rank` is missing"));
    let more =
        [&tensors[..], &[("model.layers.0.mlp.mystery.weight".into(), "F32", vec![1], vec![0; 4])]].concat();
    assert!(error(folder_of(&good, &more).path()).contains("`model.layers.0.mlp.mystery.weight` is no part"));
    let mut integers = tensors.clone();
    integers[0].1 = "I32";
    assert!(error(folder_of(&good, &integers).path()).contains("is I32"));
    let folder = folder_of(&good, &tensors);
    std::fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    assert!(error(folder.path()).contains("AutoTokenizer"));
}

#[test]
fn parts_of_a_tensor_have_to_be_in_it() {
    let file = Gguf::open(tiny("deepseek2-lite-f16")).unwrap();
    let (good, tensors) = (config(&file), tensors(&file));
    let mut heads = good.clone();
    heads["v_head_dim"] = json!(17);
    assert!(error(folder_of(&heads, &tensors).path()).contains("heads of 16 and 17 numbers"));
    let file = Gguf::open(tiny("qwen3vlmoe-f16")).unwrap();
    let (good, mut tensors) = (config(&file), crate::common::tensors(&file));
    let fused = tensors.iter_mut().find(|tensor| tensor.0.ends_with("gate_up_proj")).unwrap();
    fused.2 = vec![fused.2.iter().product()];
    assert!(error(folder_of(&good, &tensors).path()).contains("are needed"));
}

#[test]
fn mistral_3_is_ministral_if_its_text_is() {
    let file = Gguf::open(tiny("ministral3-f16")).unwrap();
    let mut config = config(&file);
    config["architectures"] = json!(["Mistral3ForConditionalGeneration"]);
    let name = |config: &Value| {
        let folder = folder_of(config, &tensors(&file));
        let read = open_folder(folder.path()).unwrap();
        read.metadata().require_str("general.architecture").unwrap().to_owned()
    };
    config["text_config"] = json!({"model_type": "ministral3"});
    assert_eq!(name(&config), "mistral3");
    config["text_config"] = json!({"model_type": "mistral"});
    config["rope_scaling"] = Value::Null;
    assert_eq!(name(&config), "llama");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_read_or_refused(at in 0usize..6000, byte: u8, cut in 0usize..60_000) {
        let file = Gguf::open(tiny("llama-f32")).unwrap();
        let mut bytes = safetensors(&tensors(&file));
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "config.json", &config(&file));
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        if let Ok(gguf) = open_folder(folder.path()) {
            for tensor in gguf.tensors() {
                let _ = gguf.read(tensor, &mut Vec::new());
            }
        }
    }
}
