//! Files that are not adapters, or not ones that Realm can apply, are refused with a reason.

use std::sync::OnceLock;

use proptest::prelude::*;
use realm_gguf::{Gguf, TensorType, Value};
use realm_model::{AdapterFile, Error, Weights};
use serde_json::json;

use super::files::{Change, changes, gguf, peft};
use super::writer::Writer;
use super::{load, tiny};

/// Opens the adapter and fits it to a tiny model, in the same way as loading.
fn peft_error(config: &str, tensors: Vec<u8>) -> Result<(), Error> {
    let model = MODEL.get_or_init(|| load(&tiny("qwen2-f32")));
    model.adapter(&AdapterFile::from_peft(config, tensors)?).map(drop)
}

fn gguf_error(bytes: Vec<u8>) -> Result<(), Error> {
    let model = MODEL.get_or_init(|| load(&tiny("qwen2-f32")));
    model.adapter(&AdapterFile::from_gguf(Gguf::from_bytes(bytes)?)?).map(drop)
}

static MODEL: OnceLock<std::sync::Arc<realm_model::Transformer<realm_compute::cpu::CpuBackend>>> =
    OnceLock::new();

fn some() -> Vec<Change> {
    let model = MODEL.get_or_init(|| load(&tiny("qwen2-f32")));
    changes(model.config(), false, 4, 1)
}

fn refused(result: Result<(), Error>, why: &str) {
    let error = result.expect_err(why).to_string();
    assert!(error.contains(why), "{why}: {error}");
}

#[test]
fn kinds_of_adapters_that_are_not_plain_lora_are_named() {
    let (config, tensors) = peft(&some(), 8.0, TensorType::F32);
    peft_error(&config, tensors.clone()).expect("an adapter");
    for (key, value, why) in [
        ("peft_type", json!("IA3"), "IA3"),
        ("use_dora", json!(true), "use_dora"),
        ("bias", json!("lora_only"), "lora_only"),
        ("modules_to_save", json!(["lm_head"]), "modules_to_save"),
        ("fan_in_fan_out", json!(true), "fan_in_fan_out"),
        ("lora_bias", json!(true), "lora_bias"),
        ("layer_replication", json!([[0, 4]]), "layer_replication"),
        ("init_lora_weights", json!("pissa_niter_4"), "pissa"),
        ("r", json!(0), "`r`"),
        ("r", json!(8), "rank 4"),
        ("lora_alpha", json!("many"), "`lora_alpha`"),
        ("rank_pattern", json!({"q_proj": 5}), "rank 4"),
        ("alpha_pattern", json!({"q.*": 5}), "regular expression"),
        ("alpha_pattern", json!({"q_proj": -5}), "-5"),
        ("alpha_pattern", json!(3), "alpha_pattern"),
    ] {
        let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
        config[key] = value;
        refused(peft_error(&config.to_string(), tensors.clone()), why);
    }
    refused(peft_error("{}", tensors.clone()), "peft_type");
    refused(peft_error("[", tensors), "adapter_config.json");
}

#[test]
fn tensors_that_have_no_place_are_named() {
    for (name, why) in [
        ("model.embed_tokens", "model.embed_tokens"),
        ("model.layers.0.self_attn.z_proj", "z_proj"),
        ("model.layers.0.self_attn.qkv_proj", "attn_qkv"),
        ("model.layers.99.self_attn.q_proj", "blk.99"),
        ("model.layers.x.self_attn.q_proj", "layers.x"),
        ("model.layers.0.self_attn.k_proj", "shape"),
    ] {
        let mut changes = some();
        changes.truncate(1);
        changes[0].peft = name.into();
        let (config, tensors) = peft(&changes, 8.0, TensorType::F32);
        refused(peft_error(&config, tensors), why);
    }
    // The same module again, under its name in the bare model.
    let mut twice = some();
    let mut again = some().swap_remove(0);
    again.peft = again.peft.replace("model.", "");
    twice.push(again);
    let (config, tensors) = peft(&twice, 8.0, TensorType::F32);
    refused(peft_error(&config, tensors), "twice");
    // Half a pair, other suffixes, another type.
    let (config, tensors) = peft(&some(), 8.0, TensorType::F32);
    for (from, to, why) in [
        ("self_attn.q_proj.lora_A.weight", "self_attn.q_proj.lora_C.weight", "no part of a plain"),
        ("self_attn.q_proj.lora_A.weight", "self_attn.q_proj.lora_magnitud", "no part of a plain"),
        ("self_attn.q_proj.lora_B.weight", "self_attn.w_proj.lora_B.weight", "missing"),
        ("\"F32\"", "\"I32\"", "I32"),
    ] {
        let mut tensors = tensors.clone();
        let at = tensors.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        tensors[at..at + to.len()].copy_from_slice(to.as_bytes());
        let error = peft_error(&config, tensors).expect_err(why).to_string();
        assert!(error.contains(why) || error.contains("no part of a plain"), "{why}: {error}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for ty in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let mut changes = some();
            changes[1].b[3] = bad;
            let (config, tensors) = peft(&changes, 8.0, ty);
            refused(peft_error(&config, tensors), "not finite");
        }
    }
}

#[test]
fn gguf_files_that_are_no_adapter_for_the_model_are_named() {
    let good = |architecture: &str| gguf(&some(), 8.0, architecture, TensorType::F32);
    gguf_error(good("qwen2")).expect("an adapter");
    refused(gguf_error(good("llama")), "llama");
    let string = |s: &str| Value::String(s.into());
    let adapter = |kind: &str| {
        Writer::new().value("general.type", string("adapter")).value("adapter.type", string(kind))
    };
    let alpha = || adapter("lora").value("adapter.lora.alpha", Value::F32(8.0));
    let pair = |writer: Writer, name: &str| {
        writer.tensor(&format!("{name}.lora_a"), &[32, 4], TensorType::F32).tensor(
            &format!("{name}.lora_b"),
            &[4, 32],
            TensorType::F32,
        )
    };
    for (writer, why) in [
        (Writer::new(), "no adapter"),
        (adapter("control_vector"), "control_vector"),
        (adapter("lora"), "adapter.lora.alpha"),
        (alpha(), "changes no weight"),
        (alpha().value("adapter.alora.invocation_tokens", Value::U32(1)), "aLoRA"),
        (pair(alpha(), "token_embd.weight"), "token_embd"),
        (pair(alpha(), "blk.0.attn_norm.weight"), "attn_norm"),
        (alpha().tensor("blk.0.attn_q.weight.lora_a", &[32, 4], TensorType::F32), "lora_b"),
        (alpha().tensor("blk.0.attn_q.weight.lora_b", &[32, 4], TensorType::F32), "no part of a LoRA pair"),
        (alpha().tensor("blk.0.attn_q.weight", &[32, 4], TensorType::F32), "no part of a LoRA pair"),
        (pair(alpha(), "blk.0.attn_q.weight"), "shape"),
        (
            alpha().tensor("blk.0.attn_q.weight.lora_a", &[32, 4], TensorType::F32).tensor(
                "blk.0.attn_q.weight.lora_b",
                &[8, 32],
                TensorType::F32,
            ),
            "matrices of shapes",
        ),
        (
            alpha().tensor("blk.0.attn_q.weight.lora_a", &[32], TensorType::F32).tensor(
                "blk.0.attn_q.weight.lora_b",
                &[8],
                TensorType::F32,
            ),
            "matrices of shapes",
        ),
    ] {
        refused(gguf_error(writer.bytes()), why);
    }
    // A model is not an adapter.
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tiny/qwen2-f32.gguf");
    refused(AdapterFile::open(folder).map(drop), "no adapter");
}

#[test]
fn a_folder_and_the_files_in_it_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (config, tensors) = peft(&some(), 8.0, TensorType::BF16);
    refused(AdapterFile::open(folder.path()).map(drop), "adapter_config.json");
    std::fs::write(path("adapter_model.bin"), "pickle").expect("a file");
    refused(AdapterFile::open(folder.path()).map(drop), "pickle");
    std::fs::write(path("adapter_config.json"), config).expect("a file");
    std::fs::write(path("adapter_model.safetensors"), tensors).expect("a file");
    std::fs::write(path("adapter.gguf"), gguf(&some(), 8.0, "qwen2", TensorType::F16)).expect("a file");
    for open in [folder.path().to_owned(), path("adapter_model.safetensors"), path("adapter.gguf")] {
        let adapter = AdapterFile::open(&open).expect("an adapter");
        assert_eq!((adapter.modules(), adapter.rank()), (some().len(), 4), "{}", open.display());
    }
    refused(AdapterFile::open(path("nothing.gguf")).map(drop), "nothing.gguf");
}

#[test]
fn every_truncation_is_refused() {
    let (config, tensors) = peft(&some(), 8.0, TensorType::F16);
    let header = 8 + u64::from_le_bytes(*tensors.first_chunk().expect("a length")) as usize;
    let lengths = (0..header).step_by(17).chain([header, tensors.len() - 1, tensors.len() / 2]);
    for len in lengths {
        assert!(peft_error(&config, tensors[..len].to_vec()).is_err(), "{len} bytes");
    }
    for claimed in [u64::MAX, 1 << 40, 17 << 20, tensors.len() as u64] {
        let mut tensors = tensors.clone();
        tensors[..8].copy_from_slice(&claimed.to_le_bytes());
        assert!(peft_error(&config, tensors).is_err(), "a header of {claimed} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// For any change of the headers' bytes, the file loads or is refused, without a crash.
    #[test]
    fn damage_is_refused_or_harmless(
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![b'0'..=b'9', any::<u8>()]), 1..6),
        which in 0..3,
    ) {
        static FILES: OnceLock<(String, Vec<u8>, Vec<u8>)> = OnceLock::new();
        let (config, tensors, gguf) = FILES.get_or_init(|| {
            let (config, tensors) = peft(&some()[..3], 8.0, TensorType::F16);
            (config, tensors, gguf(&some()[..3], 8.0, "qwen2", TensorType::F16))
        });
        let damage = |bytes: &[u8], header: usize| {
            let mut bytes = bytes.to_vec();
            for (at, to) in &edits {
                let at = at.index(header);
                bytes[at] = *to;
            }
            bytes
        };
        let _ = match which {
            0 => peft_error(&String::from_utf8_lossy(&damage(config.as_bytes(), config.len())), tensors.clone()),
            1 => {
                let header = 8 + u64::from_le_bytes(*tensors.first_chunk().expect("a length")) as usize;
                peft_error(config, damage(tensors, header))
            }
            _ => gguf_error(damage(gguf, gguf.len().min(700))),
        };
    }
}
