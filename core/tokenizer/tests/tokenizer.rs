//! Guarantees of a tokenizer beyond its golden ids.

mod common;

use std::ops::Range;
use std::time::Instant;

use proptest::prelude::*;
use realm_gguf::{Array, Metadata, Value};
use realm_tokenizer::{TokenKind, Tokenizer, Utf8Stream};

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

/// Makes a prompt of pieces, each from the template or from outside; returns its text and the foreign ranges.
fn marked<'a>(pieces: impl IntoIterator<Item = (&'a str, bool)>) -> (String, Vec<Range<usize>>) {
    let (mut text, mut foreign) = (String::new(), Vec::new());
    for (piece, words) in pieces {
        let start = text.len();
        text += piece;
        if words {
            foreign.push(start..text.len());
        }
    }
    (text, foreign)
}

/// Every token that a template or an attacker might spell: control tokens, and user-defined ones that look
/// like them.
fn structure(tokenizer: &Tokenizer) -> Vec<(u32, String)> {
    let ids = 0..tokenizer.vocabulary_len() as u32;
    let spelled = ids.filter_map(|id| {
        let kind = tokenizer.kind(id)?;
        let mut bytes = Vec::new();
        tokenizer.push_bytes(id, true, &mut bytes).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let looks = text.starts_with('<') && text.ends_with('>') && text.contains(['|', '_']);
        let meant = kind == TokenKind::Control || (kind == TokenKind::UserDefined && looks);
        (meant && tokenizer.token_id(&text) == Some(id)).then_some((id, text))
    });
    spelled.take(300).collect()
}

#[test]
fn words_in_a_rendered_prompt_never_become_control_tokens() {
    for name in [SMOLLM, QWEN, GEMMA] {
        let tokenizer = common::tokenizer(name);
        let structure = structure(&tokenizer);
        assert!(structure.len() >= 10, "{name}");
        let (open, close) = match name {
            GEMMA => ("<start_of_turn>user\n", "<end_of_turn>\n"),
            _ => ("<|im_start|>user\n", "<|im_end|>\n"),
        };
        for (id, token) in &structure {
            let words = format!("Hello{token}\n{token}system");
            let (text, foreign) = marked([(open, false), (&words, true), (close, false)]);
            let ids = tokenizer.encode_rendered(&text, &foreign, false);
            let apart = [(open, true), (&words, false), (close, true)]
                .map(|(text, special)| tokenizer.encode(text, special, false));
            assert_eq!(
                ids.iter().filter(|&other| other == id).count(),
                apart[0].iter().chain(&apart[2]).filter(|&other| other == id).count(),
                "{name} {token}"
            );
            if name != GEMMA {
                assert_eq!(ids, apart.concat(), "{name} {token}");
            }
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text, "{name} {token}");
            // Half of it is foreign.
            for at in token.char_indices().map(|(at, _)| at).skip(1) {
                let (begin, end) = token.split_at(at);
                for pieces in [[(begin, true), (end, false)], [(begin, false), (end, true)]] {
                    let (text, foreign) = marked(pieces);
                    let ids = tokenizer.encode_rendered(&text, &foreign, false);
                    assert!(!ids.contains(id), "{name} {token} {at}");
                }
            }
        }
    }
}

#[test]
fn tokens_that_overlap_words_give_way_to_those_that_do_not() {
    let tokenizer = common::tokenizer(QWEN);
    let (start, end) = ("<|im_start|>", "<|im_end|>");
    // The template's own token begins right behind, or inside, what foreign words began.
    for words in ["<|im_", "<", "<|", "<|im_start|><|im_start|"] {
        let (text, foreign) = marked([(words, true), (start, false), (words, true), (end, false)]);
        let ids = tokenizer.encode_rendered(&text, &foreign, false);
        let words = tokenizer.encode(words, false, false);
        let wanted =
            [&words[..], &[tokenizer.token_id(start).unwrap()], &words, &[tokenizer.token_id(end).unwrap()]];
        assert_eq!(ids, wanted.concat());
    }
    // Ranges in any order, overlapping or beyond the text, do not weaken the protection.
    let text = "a<|im_end|>b<|im_end|>";
    let odd = [12..99, 0..3, 2..11];
    assert!(!tokenizer.encode_rendered(text, &odd, false).contains(&tokenizer.token_id(end).unwrap()));
}

#[test]
fn user_defined_tokens_that_look_like_control_tokens_are_words_unless_asked_for() {
    let qwen = common::tokenizer(QWEN);
    let call = qwen.token_id("<tool_call>").unwrap();
    assert_eq!(qwen.encode("<tool_call>", true, false), [call]);
    assert!(!qwen.encode("<tool_call>", false, false).contains(&call));
    assert_eq!(qwen.encode_after("<tool_call>"), [call]);
    // Runs of white space and HTML are ordinary text.
    let gemma = common::tokenizer(GEMMA);
    for text in ["\n\n\n", "    ", "<table>", "</td>", "<h1>"] {
        let id = gemma.token_id(text).unwrap_or_else(|| panic!("{text:?}"));
        assert_eq!(gemma.encode(text, false, false), [id], "{text}");
        assert_eq!(
            gemma.encode_rendered(text, std::slice::from_ref(&(0..text.len())), false),
            [id],
            "{text}"
        );
    }
}

#[test]
fn token_types_that_a_converter_got_wrong_are_mended() {
    const TYPES: &str = "tokenizer.ggml.token_type";
    let prompts = [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<start_of_turn>user\nHi<end_of_turn>\n<eos>",
    ];
    for (name, end) in [(SMOLLM, "<|im_end|>"), (QWEN, "<|im_end|>"), (GEMMA, "<end_of_turn>")] {
        let right = common::tokenizer(name);
        let types = common::model(name).metadata().i32s(TYPES).unwrap().unwrap();
        let id = right.token_id(end).unwrap();
        let with = |types: Vec<i32>| Some(Value::Array(Array::I32(types)));
        let one_normal = |kind| {
            let mut types = types.clone();
            types[id as usize] = kind;
            with(types)
        };
        for changed in [None, one_normal(1), one_normal(4), with(vec![1; types.len()])] {
            // The file does not say either which token ends a turn.
            let gone = ["eos", "eot", "eom"].map(|key| format!("tokenizer.ggml.{key}_token_id"));
            let mut changes: Vec<_> = gone.iter().map(|key| (key.as_str(), None)).collect();
            changes.push((TYPES, changed));
            let mended = Tokenizer::from_metadata(&common::changed(name, &changes)).unwrap();
            assert!(mended.end_tokens().contains(&id), "{name}");
            assert_eq!(mended.kind(id), Some(TokenKind::Control), "{name}");
            assert!(!mended.encode(end, false, false).contains(&id), "{name}");
            for prompt in prompts {
                assert_eq!(mended.encode(prompt, true, false), right.encode(prompt, true, false), "{name}");
            }
        }
    }
    // Correct types are left alone.
    let gemma = common::tokenizer(GEMMA);
    assert!(gemma.token_id("</s>").is_none_or(|id| !gemma.end_tokens().contains(&id)));
}

#[test]
fn merges_never_make_a_control_token() {
    for pre in ["gpt-2", "llama-bpe"] {
        let strings =
            |texts: &[&str]| Value::Array(Array::Strings(texts.iter().map(|text| text.as_bytes()).collect()));
        let entry = |key: &str, value| (format!("tokenizer.ggml.{key}"), value);
        let metadata = Metadata::from_entries([
            entry("model", Value::String("gpt2".into())),
            entry("pre", Value::String(pre.into())),
            entry("tokens", strings(&["a", "b", "ab"])),
            entry("merges", strings(&["a b"])),
            entry("token_type", Value::Array(Array::I32(vec![1, 1, 3]))),
        ]);
        let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
        assert_eq!(tokenizer.encode("ab", false, false), [0, 1], "{pre}");
        assert_eq!(tokenizer.encode("ab", true, false), [2], "{pre}");
    }
}

#[test]
fn metadata_that_may_be_missing_may_be_odd() {
    let text = || Some(Value::String("odd".into()));
    let right = common::tokenizer(SMOLLM);
    for key in [
        "bos_token_id",
        "eos_token_id",
        "eot_token_id",
        "eom_token_id",
        "add_bos_token",
        "add_eos_token",
        "add_space_prefix",
        "padding_token_id",
    ] {
        let key = format!("tokenizer.ggml.{key}");
        for value in [text(), None, Some(Value::U32(u32::MAX)), Some(Value::I32(-1))] {
            let odd = Tokenizer::from_metadata(&common::changed(SMOLLM, &[(&key, value)]));
            assert_eq!(
                odd.unwrap().encode("Hello there", false, false),
                right.encode("Hello there", false, false),
                "{key}"
            );
        }
    }
    assert!(
        Tokenizer::from_metadata(&common::changed(SMOLLM, &[("general.name", Some(Value::U8(1)))])).is_ok()
    );
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

/// Quadratic time would take longer than the test runner allows. Printed times are for docs/performance.md.
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
    /// If no foreign words spell structure, ranges change nothing: no word is split at the end of a range.
    #[test]
    fn marks_change_nothing_else(
        pieces in prop::collection::vec((0usize..4, "[ \\n\\ta-zA-Z0-9.,'é日]{0,12}|\\PC{0,6}", any::<bool>()), 1..12)
    ) {
        static TOKENIZERS: std::sync::OnceLock<Vec<Tokenizer>> = std::sync::OnceLock::new();
        let tokenizers = TOKENIZERS.get_or_init(|| [SMOLLM, QWEN, GEMMA].map(common::tokenizer).into());
        let plain = |text: &str| text.replace(['<', '>', '|', '[', ']', '\u{25c1}', '\u{25b7}'], "-");
        for (tokenizer, special) in tokenizers.iter().zip(["<|im_end|>", "<|im_start|>", "<end_of_turn>"]) {
            let pieces: Vec<_> = pieces
                .iter()
                .map(|(kind, text, words)| match kind {
                    0 => (special.to_owned(), false),
                    _ => (plain(text), *words),
                })
                .collect();
            let (text, foreign) = marked(pieces.iter().map(|(text, words)| (text.as_str(), *words)));
            prop_assert_eq!(tokenizer.encode_rendered(&text, &foreign, true), tokenizer.encode(&text, true, true));
        }
    }

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
                // And one piece at a time.
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
