//! Infers the kind of a token from its spelling, for files whose token types are wrong or missing.

use realm_gguf::Strings;

use crate::vocabulary::TokenKind;

/// Tokens that end a turn or a text, whatever ids a file's metadata names.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "< EOT >",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
    "[|endofturn|]",
];

/// Tokens of fill-in-the-middle prompts that end the filling.
const FILL_ENDS: [&str; 9] = [
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<|file_sep|>",
];

/// The other tokens of fill-in-the-middle prompts.
const FILL: [&str; 18] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
];

/// Tokens without bars in their names that are structure in every vocabulary that has them.
const STRUCTURE: [&str; 9] =
    ["<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<mask>", "<start_of_turn>", "<end_of_turn>"];

/// HTML elements, which some vocabularies (Gemma's) have as user-defined tokens. They occur in users' text.
const HTML: [&str; 41] = [
    "a",
    "article",
    "aside",
    "b",
    "blockquote",
    "body",
    "br",
    "caption",
    "code",
    "dd",
    "div",
    "dl",
    "dt",
    "em",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "html",
    "i",
    "li",
    "ol",
    "p",
    "pre",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
];

/// Further HTML elements, with names so short that they mean something else in other vocabularies: there,
/// `<s>` begins a text. As user-defined tokens they are HTML.
const SHORT_HTML: [&str; 3] = ["s", "u", "ul"];

/// The token that ends a text in SentencePiece's vocabularies. In HTML it ends struck-out text.
pub(crate) const SENTENCE_END: &[u8] = b"</s>";

/// Returns whether a token's name is one that ends a generation.
pub(crate) fn ends_generation(token: &[u8]) -> bool {
    ENDS.iter().chain(&FILL_ENDS).any(|name| name.as_bytes() == token)
}

/// Returns whether a user-defined token looks like structure, such as `<think>`, `</tool_call>`,
/// `<|im_start|>` or `[INST]`. Where such a token occurs in a user's words, it is plain text. Runs of white
/// space and HTML do not count.
pub(crate) fn looks_like_control(token: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(token) else { return false };
    let token = token.trim_matches(['▁', ' ']);
    let inside = |open: char, close: char| token.strip_prefix(open)?.strip_suffix(close);
    let name = inside('<', '>').or_else(|| inside('[', ']')).or_else(|| inside('◁', '▷'));
    let Some(name) = name.filter(|name| name.chars().any(char::is_alphanumeric)) else {
        // The forms `|||name|||` and `||<name>||`.
        return token.len() > 4 && token.starts_with('|') && token.ends_with('|');
    };
    let element = name.strip_prefix('/').unwrap_or(name);
    !(token.starts_with('<') && (HTML.contains(&element) || SHORT_HTML.contains(&element)))
}

/// Corrects token types that a converter got wrong, by the tokens' names. Returns the tokens that became
/// control tokens.
///
/// Tokens that end a turn, and those of fill-in-the-middle prompts, are control tokens whatever the file
/// says, as in llama.cpp. So are the usual structure tokens that a file calls ordinary text, because no
/// tokenizer learns such a piece from text. A file without types calls every token ordinary text; for it,
/// SentencePiece's byte tokens are recognized too.
pub(crate) fn mend_kinds(
    tokens: &Strings,
    kinds: &mut [TokenKind],
    byte_level: bool,
    typed: bool,
) -> Vec<u32> {
    let mut mended = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        // All names begin with one of these bytes, and few other tokens do.
        if !kind.is_text() || !token.first().is_some_and(|first| b"<[_\xe2".contains(first)) {
            continue;
        }
        let named = |names: &[&str]| names.iter().any(|name| name.as_bytes() == token);
        let normal = *kind == TokenKind::Normal;
        if !typed && !byte_level && crate::sentencepiece::byte_of(token).is_some() {
            *kind = TokenKind::Byte;
        } else if ends_generation(token) || named(&FILL) || (normal && (has_bars(token) || named(&STRUCTURE)))
        {
            *kind = TokenKind::Control;
            mended.push(id as u32);
        }
    }
    mended
}

/// Returns whether a token is `<|…|>`, with ASCII or full-width bars.
fn has_bars(token: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(token) else { return false };
    let name = ["|", "｜"]
        .iter()
        .find_map(|bar| token.strip_prefix('<')?.strip_prefix(bar)?.strip_suffix('>')?.strip_suffix(bar));
    name.is_some_and(|name| name.chars().any(char::is_alphanumeric))
}
