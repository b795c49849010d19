//! Tokenizers of files that were made to be costly: reading takes time linear in the file, whatever its
//! tables hold. Cases that take seconds here took minutes or hours before. The tests read no clock, so a
//! failing test is one that does not end.

use realm_gguf::{Array, Metadata, Value};
use realm_tokenizer::Tokenizer;

fn strings<S: AsRef<[u8]>>(all: impl IntoIterator<Item = S>) -> Value {
    let all: Vec<S> = all.into_iter().collect();
    Value::Array(Array::Strings(all.iter().map(AsRef::as_ref).collect()))
}

fn read(kind: &str, tokens: Value, types: Vec<i32>, more: Vec<(&str, Value)>) -> Tokenizer {
    let scores = Value::Array(Array::F32(vec![0.0; types.len()]));
    let fixed = [
        ("tokenizer.ggml.model", Value::String(kind.into())),
        ("tokenizer.ggml.tokens", tokens),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.scores", scores),
        ("tokenizer.ggml.merges", strings::<&str>([])),
    ];
    let entries = fixed.into_iter().chain(more).map(|(key, value)| (key.to_owned(), value));
    Tokenizer::from_metadata(&Metadata::from_entries(entries)).unwrap()
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

#[test]
fn control_tokens_of_repeated_bytes_are_read_and_found() {
    for kind in ["gpt2", "llama"] {
        for of in [CONTROL, USER_DEFINED] {
            let long = |c: &str, times: usize| c.repeat(times);
            let tokens = [long("a", 1 << 20), long("ab", 1 << 19), long("\u{e9}", 1 << 19), "x".to_owned()];
            let tokenizer = read(kind, strings(&tokens), vec![of; 4], Vec::new());
            // As a token, and one byte shorter than it.
            assert_eq!(tokenizer.encode(&tokens[0], true, false), [0]);
            assert_eq!(tokenizer.encode(&format!("{}x", tokens[1]), true, false), [1, 3]);
            let short = tokenizer.encode(&tokens[0][1..], true, false);
            assert!(!short.contains(&0));
        }
    }
}

#[test]
fn many_control_tokens_that_begin_alike_are_read() {
    // Each token is the beginning of the next.
    let tokens: Vec<String> = (1..3000).map(|len| "<".repeat(len)).collect();
    let tokenizer = read("gpt2", strings(&tokens), vec![CONTROL; tokens.len()], Vec::new());
    assert_eq!(tokenizer.encode(&"<".repeat(2500), true, false), [2499]);
    // Each token is the end of the next.
    let tokens: Vec<String> = (1..3000).map(|len| "<".repeat(len) + ">").collect();
    let tokenizer = read("gpt2", strings(&tokens), vec![CONTROL; tokens.len()], Vec::new());
    assert_eq!(tokenizer.encode(&tokens[2000], true, false), [2000]);
}

#[test]
fn tokens_that_share_a_place_in_an_unseeded_hash_are_read() {
    // rustc-hash multiplies the first eight of sixteen bytes, XORed with this number, with the others: here
    // the first factor is always zero.
    const SEED: u64 = 0x243f_6a88_85a3_08d3;
    let token = |i: u64| [SEED.to_le_bytes(), i.to_le_bytes()].concat();
    let tokens = strings((0..200_000).map(token));
    let tokenizer = read("gpt2", tokens, vec![CONTROL; 200_000], Vec::new());
    assert_eq!(tokenizer.vocabulary_len(), 200_000);
}

#[test]
fn tables_of_one_value_repeated_are_read() {
    for kind in ["gpt2", "llama"] {
        let spaces = strings(vec!["\u{2581}".repeat(40); 100_000]);
        let tokenizer = read(kind, spaces, vec![1; 100_000], Vec::new());
        let _ = tokenizer.encode(&" ".repeat(10_000), true, false);
        let tokenizer = read(kind, strings(vec![""; 300_000]), vec![USER_DEFINED; 300_000], Vec::new());
        assert!(tokenizer.encode("a", true, false).is_empty());
        let same = strings(vec!["<|same|>"; 200_000]);
        let tokenizer = read(kind, same, vec![CONTROL; 200_000], Vec::new());
        assert_eq!(tokenizer.encode("<|same|>", true, false).len(), 1);
        let one = strings(["\u{2581}a".repeat(4 << 20)]);
        let _ = read(kind, one, vec![1], Vec::new()).encode(&" a".repeat(100_000), true, false);
        let merges = strings(vec!["a b"; 300_000]);
        let tokens = strings(["a", "b", "ab"]);
        let tokenizer = read(kind, tokens, vec![1; 3], vec![("tokenizer.ggml.merges", merges)]);
        let _ = tokenizer.encode("ab", true, false);
    }
}
