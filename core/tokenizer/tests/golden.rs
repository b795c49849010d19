//! Token ids and prompts equal llama.cpp's for three real models.

mod common;

use realm_tokenizer::Conversation;
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
