//! Token ids and prompts equal llama.cpp's for three real models.

mod common;

use realm_gguf::{Array, Metadata, Value as RawValue};
use realm_tokenizer::{Conversation, Tokenizer};
use serde_json::Value;

const MODELS: [&str; 3] =
    ["smollm2-135m-instruct-q4_1", "qwen2.5-coder-0.5b-instruct-q4_k_m", "gemma-3-270m-q4_k_m"];

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn token_ids_equal_llama_cpp() {
    for name in MODELS {
        let golden = common::golden(name);
        let tokenizer = common::tokenizer(name);
        for case in golden["tokenize"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ours = tokenizer.encode(text, false, false);
            assert_eq!(ours, ids(&case["tokens"]), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ours, true).unwrap(), text, "{name}");
        }
        for case in golden["cases"].as_array().unwrap() {
            let (text, bos) = match case["raw"].as_str() {
                Some(text) => (text, true),
                None => (case["prompt"].as_str().unwrap(), false),
            };
            assert_eq!(tokenizer.encode(text, true, bos), ids(&case["tokens"]), "{name}: {text:?}");
            let greedy = tokenizer.decode(&ids(&case["greedy"]), true).unwrap();
            assert_eq!(greedy, case["greedy_text"].as_str().unwrap(), "{name}");
        }
    }
}

/// llama.cpp's own vectors, with vocabularies cut down to what their texts can use
/// (`tests/reference/tokenizer_vectors.py`). Each pre-tokenizer splits them in its own way.
#[test]
fn llama_cpps_vectors_of_byte_level_tokenizers_are_met() {
    let all = common::golden("vocabularies");
    let all = all.as_array().unwrap();
    assert!(all.len() >= 10, "{}", all.len());
    for vocabulary in all {
        let strings = |key: &str| -> RawValue {
            let list =
                vocabulary[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().as_bytes());
            RawValue::Array(Array::Strings(list.collect()))
        };
        let name = vocabulary["name"].as_str().unwrap();
        let pre = vocabulary["pre"].as_str().unwrap();
        let len = vocabulary["vocabulary"].as_array().unwrap().len();
        let entries = [
            ("tokenizer.ggml.model", RawValue::String("gpt2".into())),
            ("tokenizer.ggml.pre", RawValue::String(pre.into())),
            ("tokenizer.ggml.tokens", strings("vocabulary")),
            ("tokenizer.ggml.token_type", RawValue::Array(Array::I32(vec![1; len]))),
            ("tokenizer.ggml.merges", strings("merges")),
        ];
        let metadata = Metadata::from_entries(entries.map(|(key, value)| (key.into(), value)));
        let tokenizer = Tokenizer::from_metadata(&metadata).unwrap_or_else(|why| panic!("{name}: {why}"));
        let cases = vocabulary["cases"].as_array().unwrap();
        assert!(cases.len() > 30, "{name}");
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(
                tokenizer.encode(text, false, false),
                ids(&case["tokens"]),
                "{name} ({pre}): {text:?}"
            );
        }
    }
}

#[test]
fn prompts_equal_llama_cpp() {
    let mut rendered = 0;
    for name in MODELS {
        let golden = common::golden(name);
        let Some(template) = common::template(name) else { continue };
        for case in golden["cases"].as_array().unwrap() {
            let Some(messages) = case["chat"].as_array() else { continue };
            let conversation = Conversation { messages: messages.clone(), ..Conversation::default() };
            assert_eq!(
                template.render(&conversation).unwrap().text,
                case["prompt"].as_str().unwrap(),
                "{name}"
            );
            rendered += 1;
        }
    }
    assert_eq!(rendered, 6);
}

/// For every limit, either the tokens are those of the whole text, or there are more than the limit.
#[test]
fn a_text_of_too_many_tokens_is_known_before_all_of_it_is_encoded() {
    for name in MODELS {
        let golden = common::golden(name);
        let tokenizer = common::tokenizer(name);
        for case in golden["tokenize"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let all = tokenizer.encode(text, false, false);
            for most in [0, 1, all.len() / 2, all.len().saturating_sub(1), all.len(), all.len() + 1] {
                let some = tokenizer.encode_at_most(text, false, false, most);
                assert_eq!(some.as_ref(), (all.len() <= most).then_some(&all), "{name}: {most} of {text:?}");
            }
        }
        // Even the longest tokens would be too many: nothing is encoded.
        let longest = (0..tokenizer.vocabulary_len() as u32).map(|id| {
            let mut bytes = Vec::new();
            tokenizer.push_bytes(id, true, &mut bytes).unwrap();
            bytes.len()
        });
        let bytes = 3 * 100 * longest.max().unwrap();
        assert_eq!(tokenizer.encode_at_most(&" ".repeat(bytes), false, false, 99), None, "{name}");
    }
}
