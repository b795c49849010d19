//! Tokenizers of folders: those of real GGUF files, written as tokenizer.json.

use std::collections::HashMap;
use std::path::Path;

use realm_convert::open_folder;
use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use crate::common::{safetensors, write};

fn model(name: &str) -> Gguf {
    let entry = realm_hub::catalog().iter().find(|entry| entry.name == name).unwrap();
    Gguf::open(Hub::new().and_then(|hub| hub.resolve(&Reference::Catalog(entry.clone()), &mut ())).unwrap())
        .unwrap()
}

fn golden(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/golden/{file}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A model without layers, whose tokenizer has `tokens` tokens.
fn folder(tokens: usize, tokenizer: &Value, tokenizer_config: &Value) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 1, "num_attention_heads": 1,
        "head_dim": 2, "eos_token_id": [1, 2], "tie_word_embeddings": true, "vocab_size": tokens,
    });
    write(folder.path(), "config.json", &config);
    write(folder.path(), "tokenizer.json", tokenizer);
    write(folder.path(), "tokenizer_config.json", tokenizer_config);
    let embeddings = ("model.embed_tokens.weight".into(), "F16", vec![tokens, 1], vec![0; 2 * tokens]);
    std::fs::write(folder.path().join("model.safetensors"), safetensors(&[embeddings])).unwrap();
    open_folder(folder.path()).unwrap()
}

/// The tokens of a file, as text, and their types.
fn tokens(gguf: &Gguf) -> Vec<(String, i32)> {
    let tokens = gguf.metadata().require_strings("tokenizer.ggml.tokens").unwrap();
    let types = gguf.metadata().i32s("tokenizer.ggml.token_type").unwrap().unwrap();
    tokens.iter().map(|token| String::from_utf8(token.to_vec()).unwrap()).zip(types).collect()
}

fn added(tokens: &[(String, i32)]) -> Vec<Value> {
    let added = tokens.iter().enumerate().filter(|(_, (_, ty))| matches!(ty, 3 | 4));
    added
        .map(|(id, (text, ty))| json!({"id": id, "content": text, "special": *ty == 3, "normalized": false}))
        .collect()
}

fn vocab(tokens: &[(String, i32)]) -> Map<String, Value> {
    let plain = tokens.iter().enumerate().filter(|(_, (_, ty))| !matches!(ty, 3..=5));
    plain.map(|(id, (text, _))| (text.clone(), id.into())).collect()
}

/// The prompts of a golden file become the ids that llama.cpp gives them, and other texts those that the
/// GGUF file's tokenizer gives them.
fn same(theirs: &Gguf, ours: &Gguf, file: &str) {
    let read = |gguf: &Gguf| Tokenizer::from_metadata(gguf.metadata()).unwrap();
    let (theirs, ours) = (read(theirs), read(ours));
    for text in ["Hello,  world!\n\n12345 naïve 東京 🦀\t  x", " leading", "", "<|im_start|>user", "a<0x0A>b"]
    {
        for special in [true, false] {
            assert_eq!(
                ours.encode(text, special, true),
                theirs.encode(text, special, true),
                "{file}: {text:?}"
            );
        }
    }
    for case in golden(file)["cases"].as_array().unwrap() {
        let ids: Vec<u32> =
            case["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let text = ours.decode(&ids, true).unwrap();
        assert_eq!(text, theirs.decode(&ids, true).unwrap());
        assert_eq!(ours.encode(&text, true, false), theirs.encode(&text, true, false), "{file}: {text:?}");
    }
}

fn byte_level(name: &str, file: &str, pre: &Value, expected: &str) {
    let gguf = model(name);
    let tokens = tokens(&gguf);
    let merges = gguf.metadata().require_strings("tokenizer.ggml.merges").unwrap();
    let merges: Vec<_> = merges.iter().map(|merge| String::from_utf8(merge.to_vec()).unwrap()).collect();
    let tokenizer = json!({
        "added_tokens": added(&tokens),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": pre,
        "post_processor": {"type": "ByteLevel"},
        "model": {"type": "BPE", "byte_fallback": false, "vocab": vocab(&tokens), "merges": merges},
    });
    let settings =
        json!({"chat_template": "{{ 1 }}", "eos_token": {"content": tokens[2].0}, "add_bos_token": false});
    let read = folder(tokens.len(), &tokenizer, &settings);
    let metadata = read.metadata();
    assert_eq!(metadata.require_str("tokenizer.ggml.pre").unwrap(), expected);
    assert_eq!(metadata.require_str("tokenizer.chat_template").unwrap(), "{{ 1 }}");
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    // The name wins over the numbers of config.json, of which another one ends a turn.
    assert_eq!(metadata.u32("tokenizer.ggml.eos_token_id").unwrap(), Some(2));
    assert_eq!(metadata.u32("tokenizer.ggml.eot_token_id").unwrap(), Some(1));
    same(&gguf, &read, file);
}

#[test]
fn byte_level_tokenizers_encode_as_their_gguf_files() {
    let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let smollm = json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]});
    byte_level("smollm2-135m", "smollm2-135m-instruct-q4_1", &smollm, "smollm");
    let expression = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split =
        json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
    let qwen = json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]});
    byte_level("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-instruct-q4_k_m", &qwen, "qwen2");
}

/// The merges that transformers makes of SentencePiece's scores: every pair of tokens that makes a token, in
/// the order of the scores of what they make.
fn merges(tokens: &[(String, i32)], scores: &[f32]) -> Vec<[String; 2]> {
    let plain = || tokens.iter().enumerate().filter(|(_, (_, ty))| matches!(ty, 1 | 4));
    let ids: HashMap<&str, usize> = plain().map(|(id, (text, _))| (text.as_str(), id)).collect();
    let mut order: Vec<_> = plain().filter(|(_, (_, ty))| *ty == 1).collect();
    order.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]));
    let mut all = Vec::new();
    for (_, (text, _)) in order {
        for (at, _) in text.char_indices().skip(1) {
            let (a, b) = text.split_at(at);
            if ids.contains_key(a) && ids.contains_key(b) {
                all.push([a.to_owned(), b.to_owned()]);
            }
        }
    }
    all
}

#[test]
fn a_sentencepiece_tokenizer_encodes_as_its_gguf_file() {
    let gguf = model("gemma3-270m");
    let tokens = tokens(&gguf);
    let scores = gguf.metadata().f32s("tokenizer.ggml.scores").unwrap().unwrap();
    let tokenizer = json!({
        "added_tokens": added(&tokens),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
        "model": {
            "type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": vocab(&tokens),
            "merges": merges(&tokens, &scores),
        },
    });
    let read = folder(tokens.len(), &tokenizer, &json!({"bos_token": "<bos>", "eos_token": "<eos>"}));
    let metadata = read.metadata();
    assert_eq!(metadata.require_str("tokenizer.ggml.model").unwrap(), "llama");
    assert_eq!(metadata.bool("tokenizer.ggml.add_space_prefix").unwrap(), Some(false));
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    let kinds = |gguf: &Gguf| gguf.metadata().i32s("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(kinds(&read).len(), kinds(&gguf).len());
    same(&gguf, &read, "gemma-3-270m-q4_k_m");
}
