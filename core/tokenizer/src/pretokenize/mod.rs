//! Pre-tokenizers, which split text into words that byte-level BPE never joins. `tokenizer.ggml.pre` names a
//! family; the names come from llama.cpp's conversion script, the expressions from each model's
//! `tokenizer.json`.

mod class;
mod scan;

use class::*;
use scan::{Cased, Found, Words};

use crate::Error;

/// A family of pre-tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreTokenizer {
    /// llama.cpp's fallback for files that name no family.
    Default,
    /// GPT-2's expression.
    Gpt2,
    /// GPT-2's after splitting off every digit (smollm, starcoder).
    Gpt2Digits,
    /// GPT-2's, with separate punctuation and digits in groups of three.
    Falcon,
    /// Llama 3, cl100k: digits in groups of three.
    Llama3,
    /// GLM 4 and 5: Llama 3's, without its beginning of a text.
    Glm4,
    /// Qwen 2: Llama 3's with single digits.
    Qwen2,
    /// Qwen 3.5: Qwen 2's, with marks as parts of words.
    Qwen35,
    /// Seed-OSS: Qwen 2's, with line breaks apart from punctuation.
    SeedCoder,
    /// GPT-4o, o200k: words split where capitals start.
    Gpt4o,
    /// Mistral's tekken: GPT-4o's, with single digits and separate contractions.
    Tekken,
    /// DeepSeek LLM.
    DeepSeekLlm,
    /// DeepSeek Coder.
    DeepSeekCoder,
    /// DeepSeek V3 and R1.
    DeepSeekV3,
    /// Bloom, Poro: words between white space and punctuation.
    Bloom,
    /// Viking: Bloom's, with single digits.
    Viking,
}

const NAMES: &[(&str, PreTokenizer)] = &[
    ("default", PreTokenizer::Default),
    ("gpt-2", PreTokenizer::Gpt2),
    ("phi-2", PreTokenizer::Gpt2),
    ("mpt", PreTokenizer::Gpt2),
    ("olmo", PreTokenizer::Gpt2),
    ("jais", PreTokenizer::Gpt2),
    ("trillion", PreTokenizer::Gpt2),
    ("gigachat", PreTokenizer::Gpt2),
    ("a.x-4.0", PreTokenizer::Gpt2),
    ("exaone4", PreTokenizer::Gpt2),
    ("mellum", PreTokenizer::Gpt2),
    ("granite-docling", PreTokenizer::Gpt2),
    ("smollm", PreTokenizer::Gpt2Digits),
    ("starcoder", PreTokenizer::Gpt2Digits),
    ("refact", PreTokenizer::Gpt2Digits),
    ("command-r", PreTokenizer::Gpt2Digits),
    ("codeshell", PreTokenizer::Gpt2Digits),
    ("exaone", PreTokenizer::Gpt2Digits),
    ("minerva-7b", PreTokenizer::Gpt2Digits),
    ("mellum2", PreTokenizer::Gpt2Digits),
    ("falcon", PreTokenizer::Falcon),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("falcon3", PreTokenizer::Llama3),
    ("falcon-h1", PreTokenizer::Llama3),
    ("midm-2.0", PreTokenizer::Llama3),
    ("pixtral", PreTokenizer::Llama3),
    ("lfm2", PreTokenizer::Llama3),
    ("dbrx", PreTokenizer::Llama3),
    ("smaug-bpe", PreTokenizer::Llama3),
    ("chatglm-bpe", PreTokenizer::Llama3),
    ("glm4", PreTokenizer::Glm4),
    ("glm5", PreTokenizer::Glm4),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2),
    ("megrez", PreTokenizer::Qwen2),
    ("kormo", PreTokenizer::Qwen2),
    ("f2llmv2", PreTokenizer::Qwen2),
    ("solar-open", PreTokenizer::Qwen2),
    ("stablelm2", PreTokenizer::Qwen2),
    ("hunyuan", PreTokenizer::Qwen2),
    ("grok-2", PreTokenizer::Qwen2),
    ("qwen35", PreTokenizer::Qwen35),
    ("seed-coder", PreTokenizer::SeedCoder),
    ("bailingmoe", PreTokenizer::Qwen2),
    ("bailingmoe2", PreTokenizer::Qwen2),
    ("llada-moe", PreTokenizer::Qwen2),
    ("gpt-4o", PreTokenizer::Gpt4o),
    ("llama4", PreTokenizer::Gpt4o),
    ("kanana2", PreTokenizer::Gpt4o),
    ("minimax-m2", PreTokenizer::Gpt4o),
    ("tekken", PreTokenizer::Tekken),
    ("deepseek-llm", PreTokenizer::DeepSeekLlm),
    ("deepseek-coder", PreTokenizer::DeepSeekCoder),
    ("deepseek-v3", PreTokenizer::DeepSeekV3),
    ("hunyuan-dense", PreTokenizer::DeepSeekV3),
    ("hy_v4", PreTokenizer::DeepSeekV3),
    ("joyai-llm", PreTokenizer::DeepSeekV3),
    ("bloom", PreTokenizer::Bloom),
    ("poro-chat", PreTokenizer::Bloom),
    ("gpt3-finnish", PreTokenizer::Bloom),
    ("viking", PreTokenizer::Viking),
];

const LLAMA3: Words = Words { digits: 3, cased: Cased::No, marks: false, after_punctuation: is_newline };
const QWEN2: Words = Words { digits: 1, ..LLAMA3 };
const QWEN35: Words = Words { marks: true, ..QWEN2 };
const SEED_CODER: Words = Words { after_punctuation: none, ..QWEN2 };
const GPT4O: Words =
    Words { cased: Cased::WithContractions, after_punctuation: is_newline_or_slash, ..LLAMA3 };
const TEKKEN: Words = Words { digits: 1, cased: Cased::Yes, ..GPT4O };

/// One expression: looks for a piece at the start of a text.
type Step = fn(&str) -> Found;

impl PreTokenizer {
    /// Returns the family that `tokenizer.ggml.pre` names.
    ///
    /// # Errors
    /// An unknown name is refused: a wrong split would silently make the model worse.
    pub fn named(name: &str) -> Result<Self, Error> {
        NAMES.iter().find(|(known, _)| *known == name).map(|&(_, family)| family).ok_or_else(|| {
            let known: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            Error::InvalidModel(format!(
                "tokenizer.ggml.pre `{name}` is not supported; supported are {}",
                known.join(", ")
            ))
        })
    }

    /// Returns whether a whole word that is in the vocabulary becomes that token, whatever the merges would
    /// give.
    pub(crate) fn ignores_merges(self) -> bool {
        matches!(self, Self::Llama3 | Self::Glm4 | Self::Tekken)
    }

    /// The expressions, applied one after the other: each splits every piece of the previous ones.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Gpt2 => &[scan::gpt2],
            Self::Gpt2Digits => &[|t| scan::run(t, none, is_number, 1), scan::gpt2],
            Self::Default => &[
                |t| scan::run(t, none, is_falcon_punctuation, usize::MAX),
                scan::gpt2,
                |t| scan::run(t, none, is_number, usize::MAX),
                scan::three_digits,
            ],
            Self::Falcon => {
                &[|t| scan::run(t, none, is_falcon_punctuation, usize::MAX), scan::gpt2, scan::three_digits]
            }
            Self::Llama3 | Self::Glm4 => &[|t| scan::words(t, &LLAMA3)],
            Self::Qwen2 => &[|t| scan::words(t, &QWEN2)],
            Self::Qwen35 => &[|t| scan::words(t, &QWEN35)],
            Self::SeedCoder => &[|t| scan::words(t, &SEED_CODER)],
            Self::Gpt4o => &[|t| scan::words(t, &GPT4O)],
            Self::Tekken => &[|t| scan::words(t, &TEKKEN)],
            Self::DeepSeekLlm => &[
                |t| scan::run(t, none, is_newline, 1),
                |t| scan::run(t, is_space, is_alphabet, usize::MAX),
                |t| scan::run(t, is_space, is_deepseek_punctuation, usize::MAX),
                scan::trailing_spaces,
                |t| scan::run(t, none, is_cjk, usize::MAX),
                |t| scan::run(t, none, is_number, usize::MAX),
            ],
            Self::DeepSeekCoder => &[
                |t| scan::run(t, none, is_newline, 1),
                |t| scan::run(t, is_space, is_letter, usize::MAX),
                |t| scan::run(t, is_space, is_punctuation, usize::MAX),
                |t| scan::run(t, none, is_cjk, usize::MAX),
                |t| scan::run(t, none, is_number, 1),
            ],
            Self::DeepSeekV3 => &[
                |t| scan::run(t, none, is_number, 3),
                |t| scan::run(t, none, |c| matches!(c, '一'..='龥' | '぀'..='ゟ' | '゠'..='ヿ'), usize::MAX),
                scan::deepseek_v3,
            ],
            Self::Bloom => &[|t| scan::run(t, |c| c == ' ', is_bloom_word, usize::MAX)],
            Self::Viking => &[
                |t| scan::run(t, |c| c == ' ', is_bloom_word, usize::MAX),
                |t| scan::run(t, none, is_number, 1),
            ],
        }
    }

    /// Splits `text`; the pieces concatenated are the text.
    pub(crate) fn split<'a>(self, text: &'a str, each: &mut dyn FnMut(&'a str)) {
        split(self.steps(), text, each);
    }
}

fn split<'a>(steps: &[Step], text: &'a str, each: &mut dyn FnMut(&'a str)) {
    let Some((step, rest)) = steps.split_first() else { return each(text) };
    let (mut gap, mut at) = (0, 0);
    while at < text.len() {
        match step(&text[at..]) {
            Found::Nothing(len) => at += len,
            Found::Piece(len) => {
                if gap < at {
                    split(rest, &text[gap..at], each);
                }
                split(rest, &text[at..at + len], each);
                at += len;
                gap = at;
            }
        }
    }
    if gap < text.len() {
        split(rest, &text[gap..], each);
    }
}

fn none(_: char) -> bool {
    false
}

fn is_newline_or_slash(c: char) -> bool {
    is_newline(c) || c == '/'
}

/// ``[\p{P}\$\+<=>\^~\|`]``
fn is_falcon_punctuation(c: char) -> bool {
    matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|' | '`') || is_punctuation(c)
}

/// `[^(\s|.,!?…。，、।۔،)]`
fn is_bloom_word(c: char) -> bool {
    !is_space(c) && !"(|.,!?…。，、।۔،)".contains(c)
}

/// `[!-/:-~！-／：-～‘-‟　-。]`
fn is_deepseek_punctuation(c: char) -> bool {
    matches!(c, '!'..='/' | ':'..='~' | '！'..='／' | '：'..='～' | '‘'..='‟' | '\u{3000}'..='。')
}

/// `[一-龥ࠀ-一가-\u{d7ff}]`
fn is_cjk(c: char) -> bool {
    matches!(c, '\u{800}'..='龥' | '가'..='\u{d7ff}')
}

/// Letters that have a case, as DeepSeek's expression lists them.
fn is_alphabet(c: char) -> bool {
    matches!(class(c), Class::Upper | Class::Lower)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(family: PreTokenizer, text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        family.split(text, &mut |piece| out.push(piece));
        out
    }

    #[test]
    fn families_split_as_their_expressions_do() {
        use PreTokenizer::*;
        let text = "I'm HTTPServer2  x\n\n  it's 12345!\n";
        let cases: &[(PreTokenizer, &[&str])] = &[
            (Gpt2, &["I", "'m", " HTTPServer", "2", " ", " x", "\n\n ", " it", "'s", " 12345", "!", "\n"]),
            (
                Gpt2Digits,
                &[
                    "I",
                    "'m",
                    " HTTPServer",
                    "2",
                    " ",
                    " x",
                    "\n\n ",
                    " it",
                    "'s",
                    " ",
                    "1",
                    "2",
                    "3",
                    "4",
                    "5",
                    "!",
                    "\n",
                ],
            ),
            (
                Llama3,
                &[
                    "I",
                    "'m",
                    " HTTPServer",
                    "2",
                    " ",
                    " x",
                    "\n\n",
                    " ",
                    " it",
                    "'s",
                    " ",
                    "123",
                    "45",
                    "!\n",
                ],
            ),
            (
                Qwen2,
                &[
                    "I",
                    "'m",
                    " HTTPServer",
                    "2",
                    " ",
                    " x",
                    "\n\n",
                    " ",
                    " it",
                    "'s",
                    " ",
                    "1",
                    "2",
                    "3",
                    "4",
                    "5",
                    "!\n",
                ],
            ),
            (Gpt4o, &["I'm", " HTTPServer", "2", " ", " x", "\n\n", " ", " it's", " ", "123", "45", "!\n"]),
            (
                Tekken,
                &[
                    "I",
                    "'m",
                    " HTTPServer",
                    "2",
                    " ",
                    " x",
                    "\n\n",
                    " ",
                    " it",
                    "'s",
                    " ",
                    "1",
                    "2",
                    "3",
                    "4",
                    "5",
                    "!\n",
                ],
            ),
            (
                Falcon,
                &[
                    "I",
                    "'",
                    "m",
                    " HTTPServer",
                    "2",
                    " ",
                    " x",
                    "\n\n ",
                    " it",
                    "'",
                    "s",
                    " ",
                    "123",
                    "45",
                    "!",
                    "\n",
                ],
            ),
        ];
        for (family, wanted) in cases {
            assert_eq!(&pieces(*family, text), wanted, "{family:?}");
        }
        assert_eq!(pieces(Tekken, "camelCase ÉCOLE aB"), ["camel", "Case", " ÉCOLE", " a", "B"]);
        assert_eq!(pieces(DeepSeekLlm, "Hi 中文 12 ok  "), ["Hi", " ", "中文", " ", "12", " ok", "  "]);
        assert_eq!(pieces(Qwen2, "a\u{301}b .\n\n\n"), ["a", "\u{301}b", " .\n\n\n"]);
        assert_eq!(pieces(Qwen35, "a\u{301}b .\u{301}\n"), ["a\u{301}b", " .", "\u{301}", "\n"]);
        assert_eq!(pieces(SeedCoder, "a!?\n\n b"), ["a", "!?", "\n\n", " b"]);
        assert_eq!(pieces(DeepSeekV3, "a.b 1234"), ["a", ".b", " ", "123", "4"]);
        assert_eq!(pieces(Bloom, "one, two."), ["one", ",", " two", "."]);
    }

    #[test]
    fn an_unknown_family_is_named() {
        let error = PreTokenizer::named("martian").unwrap_err().to_string();
        assert!(error.contains("`martian`") && error.contains("qwen2"), "{error}");
    }

    proptest! {
        #[test]
        fn pieces_are_the_text_again(text in "[ \\n\\r\\ta-zA-Z0-9'é中،。!/\u{301}\u{3000}]{0,60}|\\PC{0,60}") {
            for (_, family) in NAMES {
                prop_assert_eq!(pieces(*family, &text).concat(), text.as_str());
                prop_assert!(pieces(*family, &text).iter().all(|p| !p.is_empty()));
            }
        }
    }
}
