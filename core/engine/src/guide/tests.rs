//! The guarantees of guides, with the vocabularies of real models: byte-level BPE, and SentencePiece.

use std::collections::HashSet;

use realm_gguf::Gguf;
use realm_hub::{Hub, Reference};
use realm_tokenizer::TokenKind;
use serde_json::{Value, json};

use super::*;
use crate::sampling::TokenMask;

const MODELS: [&str; 3] = ["smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m"];

fn guides(model: &str) -> Guides {
    let path = Hub::new().unwrap().resolve(&Reference::parse(model).unwrap(), &mut ()).unwrap();
    let gguf = Gguf::open(path).unwrap();
    Guides::new(Arc::new(Tokenizer::from_metadata(gguf.metadata()).unwrap()), Arc::default())
}

/// Returns an account without a limit.
pub(super) fn plenty() -> MemoryLedger {
    MemoryLedger::new("tests", usize::MAX)
}

fn allowed(mask: &TokenMask) -> Vec<u32> {
    (0..mask.len() as u32).filter(|&token| mask.allows(token)).collect()
}

fn bytes(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.push_bytes(token, false, &mut bytes).unwrap();
    bytes
}

/// Returns arbitrary numbers that are the same every time.
fn next(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

#[test]
fn masks_allow_every_token_that_goes_on_and_no_other() {
    let words: HashSet<_> =
        (0..2000).map(|i| format!("{}{}", ["ab", "cd e"][i % 2], i / 2).into_bytes()).collect();
    let beginnings: HashSet<_> = words.iter().flat_map(|w| (1..=w.len()).map(|end| &w[..end])).collect();
    for model in MODELS {
        let guides = guides(model);
        let tokenizer = &guides.tokenizer;
        let spelled: Vec<_> = (0..tokenizer.vocabulary_len() as u32).map(|t| bytes(tokenizer, t)).collect();
        let grammar = Grammar::Regex("(ab|cd e)(0|[1-9][0-9]{0,2})".into());
        for round in 0..12 {
            let mut guide = guides.guide(0, &plenty(), &grammar).unwrap();
            let (mut text, mut seed) = (Vec::new(), round);
            while !guide.is_finished() {
                // Compute half of the masks on another thread.
                if round % 2 == 0 {
                    guide.start_mask();
                    guide.start_mask();
                }
                let mask = guide.mask().unwrap().clone();
                let goes_on = |token: u32| match spelled[token as usize].as_slice() {
                    _ if tokenizer.end_tokens().contains(&token) => words.contains(&text),
                    [] => false,
                    bytes => beginnings.contains(&[&text, bytes].concat()[..]),
                };
                let wanted: Vec<u32> = (0..mask.len() as u32).filter(|&token| goes_on(token)).collect();
                let found = allowed(&mask);
                // Where bytes are forced, one of the spellings is taken.
                let forced = found.len() == 1 && wanted.contains(&found[0]);
                assert!(found == wanted || forced, "{model} {:?}", String::from_utf8_lossy(&text));
                let token = found[next(&mut seed) % found.len()];
                text.extend(bytes(tokenizer, token));
                guide.accept(token).unwrap();
            }
            assert!(words.contains(&text));
        }
    }
}

#[test]
fn forced_tokens_are_what_the_masks_allow_and_what_the_tokenizer_writes() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["temperature", "unité", "kind"],
        "properties": {"temperature": {"const": 21}, "unité": {"const": "°C ☀"}, "kind": {"enum": ["aa", "ab"]}},
        "x-guidance": {"whitespace_flexible": false},
    });
    for model in MODELS {
        let guides = guides(model);
        // Asked before any mask, and found with one.
        let mut guide = guides.guide(0, &plenty(), &Grammar::JsonSchema(schema.clone())).unwrap();
        let forced: Vec<u32> = guide.forced_tokens().unwrap();
        let mut other = guides.guide(0, &plenty(), &Grammar::JsonSchema(schema.clone())).unwrap();
        other.start_mask();
        assert!(other.mask().is_ok());
        assert_eq!(other.forced_tokens().unwrap(), forced);
        let mut text = Vec::new();
        for &token in &forced {
            assert_eq!(guide.mask().unwrap().only(), Some(token), "{model}");
            guide.accept(token).unwrap();
            text.extend(bytes(&guides.tokenizer, token));
        }
        let text = String::from_utf8(text).unwrap();
        // Up to the free value, without a token or two that the value might change.
        let whole = r#"{"temperature":21,"unité":"°C ☀","kind":"a"#;
        assert!(whole.starts_with(&text) && text.len() > whole.len() - 12, "{model}: {text}");
        assert!(guides.tokenizer.encode_after(whole).starts_with(&forced), "{model}");
    }
}

#[test]
fn characters_that_a_tokenizer_writes_otherwise_can_be_forced() {
    for model in MODELS {
        let guides = guides(model);
        let text = "a▁bc";
        let mut guide = guides.guide(0, &plenty(), &Grammar::Regex(text.into())).unwrap();
        let mut written = Vec::new();
        while written.len() < text.len() {
            let mask = guide.mask().unwrap_or_else(|error| panic!("{model}, after {written:?}: {error}"));
            let token = *allowed(mask).last().unwrap();
            guide.accept(token).unwrap();
            written.extend(bytes(&guides.tokenizer, token));
        }
        assert_eq!(written, text.as_bytes(), "{model}");
    }
}

#[test]
fn what_ends_or_structures_a_text_is_never_part_of_it() {
    for model in MODELS {
        let guides = guides(model);
        let mut guide = guides.guide(0, &plenty(), &Grammar::Regex("(.|\n)*".into())).unwrap();
        let mask = guide.mask().unwrap();
        for token in allowed(mask) {
            let control = guides.tokenizer.kind(token) == Some(TokenKind::Control);
            assert_eq!(control, guides.tokenizer.end_tokens().contains(&token), "{model} {token}");
        }
        assert!(guides.tokenizer.end_tokens().iter().all(|&end| mask.allows(end)));
        guide.accept(guides.tokenizer.encode_after("\"")[0]).unwrap();
        let mut inside = guides.guide(0, &plenty(), &Grammar::JsonSchema(json!({"type": "string"}))).unwrap();
        inside.accept(guides.tokenizer.encode_after("\"")[0]).unwrap();
        assert!(!guides.tokenizer.end_tokens().iter().any(|&end| inside.mask().unwrap().allows(end)));
        assert!(inside.mask().unwrap().count() > guides.tokenizer.vocabulary_len() / 2);
    }
}

#[test]
fn a_control_token_that_a_grammar_names_is_allowed() {
    let guides = guides("smollm2-135m");
    let token = guides.tokenizer.token_id("<|im_start|>").unwrap();
    let mut guide = guides.guide(0, &plenty(), &Grammar::Lark("start: <|im_start|> /a+/".into())).unwrap();
    assert_eq!(guide.mask().unwrap().only(), Some(token));
    guide.accept(token).unwrap();
    assert!(guide.mask().unwrap().allows(guides.tokenizer.token_id("a").unwrap()));
}

fn nested(levels: usize, open: &str, inner: &str, close: &str) -> String {
    open.repeat(levels) + inner + &close.repeat(levels)
}

fn schema(text: &str) -> Grammar {
    Grammar::JsonSchema(serde_json::from_str(text).unwrap())
}

/// Runs a guide at random for some tokens; returns the error that ends it.
fn wander(guides: &Guides, grammar: &Grammar) -> Option<Error> {
    let mut guide = guides.guide(0, &plenty(), grammar).ok()?;
    let mut seed = 1;
    for _ in 0..60 {
        if guide.is_finished() {
            break;
        }
        let mask = match guide.mask() {
            Ok(mask) => allowed(mask),
            Err(error) => return Some(error),
        };
        if let Err(error) = guide.accept(mask[next(&mut seed) % mask.len()]) {
            return Some(error);
        }
    }
    None
}

#[test]
fn what_cannot_be_followed_is_refused_with_a_reason() {
    let guides = guides("smollm2-135m");
    let regex = |text: &str| Grammar::Regex(text.into());
    let lark = |text: &str| Grammar::Lark(text.into());
    let one_of = r#"{"oneOf": [{"type": "integer"}, {"type": "number"}]}"#;
    let twice = |names: &str, last: &str| {
        (0..40).map(|i| format!("{names}{i}: {names}{j} {names}{j}\n", j = i + 1)).collect::<String>() + last
    };
    let any_of = |key: char| {
        let options: Vec<_> = (0..10)
            .map(|i| json!({"type": "object", "required": [format!("{key}{i}")], "properties": {format!("{key}{i}"): {"type": "null"}}}))
            .collect();
        json!({"anyOf": options})
    };
    let product = json!({"allOf": "abcdef".chars().map(any_of).collect::<Vec<_>>()});
    let properties: serde_json::Map<_, _> = (0..5000).map(|i| (format!("p{i}"), json!({}))).collect();
    for (grammar, word) in [
        (schema(r#"{"type": "array", "uniqueItems": true}"#), "uniqueItems"),
        (schema(r#"{"not": {}}"#), "excluded"),
        (schema(r#"{"not": {"type": "array", "items": {"type": "string"}}}"#), "#/not"),
        (schema(r#"{"if": {"multipleOf": 2}, "then": {"maximum": 1}}"#), "#/if"),
        (schema(one_of), "oneOf"),
        (schema(r#"{"type": "text"}"#), "text"),
        (schema(r#"{"type": "string", "pattern": "("}"#), "unclosed"),
        (schema(r#"{"type": "integer", "minimum": 3, "maximum": 2}"#), "minimum"),
        (schema(r#"{"enum": []}"#), "nsatisfiable"),
        (schema("false"), "false"),
        (schema("3"), "object or boolean"),
        (schema(r#"{"type": {"é": "éééééééééééééééééééééééééééééééééééééééééééééééééééé"}}"#), "type"),
        (schema(r##"{"$ref": "#/$defs/nothing"}"##), "nothing"),
        (schema(r##"{"$ref": "#"}"##), "no text"),
        (schema(r#"{"$ref": "https://example.com/schema.json"}"#), "does not fetch"),
        (schema(r#"{"$ref": "file:///etc/passwd"}"#), "does not fetch"),
        (schema(r#"{"$id": "https://example.com/", "$ref": "other.json"}"#), "does not fetch"),
        (Grammar::JsonSchema(product), "too large"),
        (Grammar::JsonSchema(json!({"type": "object", "properties": properties})), "Too many"),
        (Grammar::JsonSchema(json!({"enum": (0..60_000).collect::<Vec<_>>()})), "262144"),
        (Grammar::JsonSchema(json!({"const": "x".repeat(1 << 20)})), "262144"),
        (Grammar::JsonSchema((0..200).fold(json!({}), |inner, _| Value::Array(vec![inner]))), "128 levels"),
        (regex("a(b"), "unclosed"),
        (regex("(?=a)b"), "look-ahead"),
        (regex(&nested(20_000, "(", "a", ")")), "nest"),
        (regex(&"ab".repeat(40_000)), "65536"),
        (regex("a{4000000000}"), "too many"),
        (regex("(a?){3000}a{3000}"), "too many"),
        (lark("start: %%%"), "lexer error"),
        (lark(""), "no start"),
        (lark("start: start"), "no text"),
        (lark("start: missing"), "missing"),
        (lark(&nested(1000, "start: (", "\"a\"", ")")), "start"),
        (lark(&format!("start: {}\"a\"", "~".repeat(10_000))), "2000"),
        (lark(&format!("start: A0\n{}", twice("A", "A40: \"x\"\n"))), "too big"),
        (lark(&format!("start: a0\n{}", twice("a", "a40: \"x\"\n"))), "Too many"),
        (lark("start: (\"a\"~1000000)~1000000"), "Too many"),
        (lark(&(0..3000).map(|i| format!("a{i}: \"x\"\n")).collect::<String>()), "2000"),
    ] {
        let error = guides.guide(0, &plenty(), &grammar).err().unwrap_or_else(|| panic!("{word}: accepted"));
        let text = error.to_string();
        assert!(text.contains(word) && text.len() < 2000, "{word}: {text}");
        assert!(!text.contains("backtrace") && !text.contains("verbose"), "{text}");
    }
}

#[test]
fn what_grows_without_bound_ends_in_its_own_error() {
    let guides = guides("smollm2-135m");
    for grammar in
        [Grammar::Regex(r"[xy]a{4000000000}".into()), Grammar::Regex(r"\p{L}{1,50}[^x]*".repeat(300))]
    {
        let error = wander(&guides, &grammar).expect("an error");
        assert!(matches!(&error, Error::LimitExceeded(why) if why.contains("too much")), "{error}");
        // An error that stays in a lexer does not stay in the cache.
        assert!(guides.guide(0, &plenty(), &grammar).unwrap().mask().is_ok());
    }
}

/// References and rules are followed by recursion. The deepest that fit the limits fit the stack.
#[test]
fn the_deepest_grammars_do_not_overflow_the_stack() {
    let guides = guides("smollm2-135m");
    let references = |levels: usize, open: &str, close: &str, bytes: usize| {
        let count = (250 << 10) / bytes;
        let next = |i: usize| nested(levels, open, &format!(r##"{{"$ref":"#/$defs/{}"}}"##, i + 1), close);
        let defs: String = (0..count).map(|i| format!(r#""{i}":{},"#, next(i))).collect();
        let last = format!(r#""{count}":{{"type":"null"}}"#);
        schema(&format!(r##"{{"$ref":"#/$defs/0","$defs":{{{defs}{last}}}}}"##))
    };
    let rules = |name: char, groups: usize| {
        let count = 1900 / (groups + 1);
        let next = |i: usize| nested(groups, "(", &format!("{name}{} \"x\"", i + 1), "|\"y\")");
        let rules: String = (0..count).map(|i| format!("{name}{i}: {}\n", next(i))).collect();
        Grammar::Lark(format!("start: /[ab]/ {name}0\n{rules}{name}{count}: \"z\"\n"))
    };
    for grammar in [
        references(0, "", "", 32),
        references(100, r#"{"items":"#, "}", 1150),
        references(50, r#"{"anyOf":["#, "]}", 650),
        references(50, r#"{"properties":{"a":"#, "}}", 1200),
        rules('a', 0),
        rules('a', 24),
        rules('A', 0),
        rules('A', 24),
        Grammar::Lark(format!("start: A\nA: {}\"a\"", "~".repeat(1900))),
    ] {
        // Refused or followed, without an overflow.
        wander(&guides, &grammar);
    }
}

#[test]
fn a_grammar_is_compiled_once_for_each_owner_and_old_ones_go() {
    let guides = guides("smollm2-135m");
    let entry = |owner, grammar: &Grammar| {
        guides.cache.lock().unwrap().entry(owner, &plenty(), grammar.source().unwrap(), 1.0).unwrap()
    };
    let numbered = |i: usize| Grammar::Regex(format!("a{i}"));
    let first = entry(1, &numbered(0));
    assert!(Arc::ptr_eq(&first, &entry(1, &numbered(0))));
    assert!(!Arc::ptr_eq(&first, &entry(2, &numbered(0))));
    // The order of properties is part of a schema.
    let ab: Value = serde_json::from_str(r#"{"properties": {"a": {}, "b": {}}}"#).unwrap();
    let ba: Value = serde_json::from_str(r#"{"properties": {"b": {}, "a": {}}}"#).unwrap();
    assert!(!Arc::ptr_eq(&entry(1, &Grammar::JsonSchema(ab)), &entry(1, &Grammar::JsonSchema(ba))));
    for i in 0..100 {
        guides.guide(1, &plenty(), &numbered(i)).unwrap();
    }
    assert!(!Arc::ptr_eq(&first, &entry(1, &numbered(0))));
}
