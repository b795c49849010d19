//! The name of a pre-tokenizer, from the structure in tokenizer.json.

use serde_json::Value;

use crate::Error;
use crate::error::short;

/// One step of a pre-tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Splits at what an expression matches.
    Split(String),
    /// GPT-2's expression.
    Gpt2,
    /// Digits one by one, or runs of them.
    Digits { each: bool },
    /// Runs of punctuation.
    Punctuation,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const BLOOM: &str = r" ?[^(\s|[.,!?…。，、।۔،])]+";

/// The expressions that name a family by themselves, and their names.
const SINGLE: [(&str, &str); 9] = [
    (GPT2, "gpt-2"),
    (LLAMA3, "llama-bpe"),
    (QWEN2, "qwen2"),
    (QWEN35, "qwen35"),
    (LING, "bailingmoe2"),
    (SEED, "seed-coder"),
    (GPT4O, "gpt-4o"),
    (TEKKEN, "tekken"),
    (BLOOM, "bloom"),
];

/// Returns the name in `tokenizer.ggml.pre` of a byte-level pre-tokenizer.
pub(super) fn name(pre_tokenizer: &Value) -> Result<&'static str, Error> {
    let mut steps = Vec::new();
    collect(pre_tokenizer, &mut steps)?;
    let split = |at: usize| match steps.get(at) {
        Some(Step::Split(expression)) => expression.as_str(),
        _ => "",
    };
    let found = match &steps[..] {
        [Step::Gpt2] => Some("gpt-2"),
        [Step::Digits { each: true }, Step::Gpt2] => Some("smollm"),
        [Step::Punctuation, Step::Gpt2, Step::Split(digits)] if digits == "[0-9][0-9][0-9]" => Some("falcon"),
        [Step::Punctuation, Step::Gpt2, Step::Digits { each: false }, Step::Split(digits)]
            if digits == "[0-9][0-9][0-9]" =>
        {
            Some("falcon")
        }
        [Step::Split(expression)] => {
            SINGLE.iter().find(|(known, _)| known == expression).map(|(_, name)| *name)
        }
        [Step::Split(bloom), Step::Digits { each: true }] if bloom == BLOOM => Some("viking"),
        [Step::Split(a), Step::Split(_), Step::Split(c)] if a == r"\p{N}{1,3}" && c == DEEPSEEK3 => {
            Some("deepseek-v3")
        }
        [Step::Split(_), .., Step::Digits { each: true }]
            if split(0) == "[\r\n]" || split(0) == r"[\r\n]" =>
        {
            match split(1) {
                r"\s?\p{L}+" if split(2) == r"\s?\p{P}+" => Some("deepseek-coder"),
                letters if letters.starts_with(r"\s?[A-Za-z") && split(3) == r"\s+$" => Some("deepseek-llm"),
                _ => None,
            }
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let steps: Vec<_> = steps.iter().map(describe).collect();
        Error::Unsupported(format!(
            "tokenizer.json: the pre-tokenizer {} is unknown. A wrong split of words would silently make the model \
             worse; convert the model with llama.cpp's converter if that knows it",
            if steps.is_empty() { "without any step".into() } else { steps.join(", then ") }
        ))
    })
}

fn describe(step: &Step) -> String {
    match step {
        Step::Split(expression) => format!("`{}`", short(expression)),
        Step::Gpt2 => "GPT-2's expression".into(),
        Step::Digits { each } => format!("digits{}", if *each { " one by one" } else { "" }),
        Step::Punctuation => "punctuation".into(),
    }
}

fn collect(value: &Value, steps: &mut Vec<Step>) -> Result<(), Error> {
    let flag = |key: &str, default: bool| value.get(key).and_then(Value::as_bool).unwrap_or(default);
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "Sequence" => {
            let all = value.get("pretokenizers").and_then(Value::as_array);
            for each in all.into_iter().flatten() {
                collect(each, steps)?;
            }
        }
        "Split" => {
            let pattern = value.get("pattern");
            let text = |key: &str| pattern.and_then(|p| p.get(key)).and_then(Value::as_str);
            let isolated =
                matches!(value.get("behavior").and_then(Value::as_str), Some("Isolated" | "isolated"));
            // Everything that an expression does not match is removed: the same as isolating what it does.
            let kept =
                value.get("behavior").and_then(Value::as_str) == Some("Removed") && flag("invert", false);
            match text("Regex").or_else(|| text("String")) {
                Some(expression) if (isolated && !flag("invert", false)) || kept => {
                    steps.push(Step::Split(expression.to_owned()));
                }
                _ => return Err(unknown(&short(&value.to_string()))),
            }
        }
        "ByteLevel" => {
            if flag("add_prefix_space", false) {
                return Err(unknown("ByteLevel with a space before the text"));
            }
            if flag("use_regex", true) {
                steps.push(Step::Gpt2);
            }
        }
        "Digits" => steps.push(Step::Digits { each: flag("individual_digits", false) }),
        "Punctuation" => steps.push(Step::Punctuation),
        _ => return Err(unknown(&short(kind))),
    }
    Ok(())
}

fn unknown(step: &str) -> Error {
    Error::Unsupported(format!("tokenizer.json: a pre-tokenizer's step {step} is not converted"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn structures_have_the_names_that_the_tokenizer_knows() {
        let split = |expression: &str| json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
        for (expression, expected) in SINGLE {
            assert_eq!(name(&sequence(vec![split(expression), bytes(false)])).unwrap(), expected);
        }
        assert_eq!(name(&bytes(true)).unwrap(), "gpt-2");
        let digits = json!({"type": "Digits", "individual_digits": true});
        assert_eq!(name(&sequence(vec![digits, bytes(true)])).unwrap(), "smollm");
        let error = name(&sequence(vec![split(r"\w+"), bytes(false)])).unwrap_err().to_string();
        assert!(error.contains(r"\\w+"), "{error}");
        let error = name(&json!({"type": "Whitespace"})).unwrap_err().to_string();
        assert!(error.contains("Whitespace"), "{error}");
    }
}
