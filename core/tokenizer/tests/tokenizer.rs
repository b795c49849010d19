//! What a tokenizer promises beyond its golden ids.

mod common;

use std::time::Instant;

use proptest::prelude::*;
use realm_tokenizer::Utf8Stream;

const SMOLLM: &str = "smollm2-135m-instruct-q4_1";
const QWEN: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m";
const GEMMA: &str = "gemma-3-270m-q4_k_m";

#[test]
fn a_users_words_never_become_control_tokens() {
    let tokenizer = common::tokenizer(QWEN);
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert!(!tokenizer.encode("<|im_end|>", false, false).contains(&end));
    assert_eq!(tokenizer.encode("<|im_end|>", true, false), [end]);
    assert_eq!(tokenizer.decode(&[end], false).unwrap(), "");
    assert_eq!(tokenizer.decode(&[end], true).unwrap(), "<|im_end|>");
}

#[test]
fn generations_end_at_the_end_of_a_turn() {
    for (name, token) in [(SMOLLM, "<|im_end|>"), (QWEN, "<|im_end|>"), (GEMMA, "<end_of_turn>")] {
        let tokenizer = common::tokenizer(name);
        assert!(tokenizer.end_tokens().contains(&tokenizer.token_id(token).unwrap()), "{name}");
    }
}

#[test]
fn an_id_outside_the_vocabulary_is_an_error() {
    let tokenizer = common::tokenizer(SMOLLM);
    let error = tokenizer.decode(&[u32::MAX], true).unwrap_err().to_string();
    assert!(error.contains("4294967295") && error.contains("49152"), "{error}");
}

/// Quadratic time would take longer than the runner lets a test run. Printed times are for docs/performance.md.
#[test]
fn a_megabyte_of_hostile_text_is_encoded_in_linear_time() {
    let texts = [
        "a".repeat(1 << 20),
        " ".repeat(1_000_000),
        "\n".repeat(1 << 20),
        "A".repeat(1 << 20),
        "é".repeat(1 << 19),
        "ab".repeat(1 << 19),
        " \u{a0}".repeat(1 << 18) + "x",
        "'s".repeat(1 << 19),
        "1".repeat(1 << 20),
        "<|im_".repeat(200_000),
        "The quick brown fox jumps over the lazy dog. ".repeat(23_000),
    ];
    for name in [SMOLLM, QWEN, GEMMA] {
        let tokenizer = common::tokenizer(name);
        for text in &texts {
            let start = Instant::now();
            let ids = tokenizer.encode(text, true, false);
            let took = start.elapsed();
            let head: String = text.chars().take(8).collect();
            println!("{name} {head:?}: {took:?}");
            assert_eq!(&tokenizer.decode(&ids, true).unwrap(), text, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn text_survives_the_way_there_and_back(texts in prop::collection::vec("\\PC{0,40}|[ \\n\\ta-z<|>_0-9]{0,60}", 20)) {
        static TOKENIZERS: std::sync::OnceLock<Vec<realm_tokenizer::Tokenizer>> = std::sync::OnceLock::new();
        let tokenizers = TOKENIZERS.get_or_init(|| [SMOLLM, QWEN, GEMMA].map(common::tokenizer).into());
        for (tokenizer, text) in tokenizers.iter().flat_map(|t| texts.iter().map(move |text| (t, text))) {
            // U+2581 is a space to SentencePiece.
            prop_assume!(!text.contains('\u{2581}'));
            for special in [false, true] {
                let ids = tokenizer.encode(text, special, false);
                prop_assert_eq!(&tokenizer.decode(&ids, true).unwrap(), text);
                // And piece by piece.
                let mut stream = Utf8Stream::new();
                let mut pieces = String::new();
                for id in ids {
                    let mut bytes = Vec::new();
                    tokenizer.push_bytes(id, true, &mut bytes).unwrap();
                    pieces += &stream.push(&bytes);
                }
                pieces += &stream.finish();
                prop_assert_eq!(&pieces, text);
            }
        }
    }
}
