//! Finds special tokens in text.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::Error;
use crate::vocabulary::{TokenKind, Vocabulary};

/// A part of a text.
pub(crate) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

/// One automaton over the tokens that are cut out of text before it is encoded.
pub(crate) struct SpecialTokens {
    automaton: AhoCorasick,
    ids: Vec<u32>,
    /// Tokens that swallow the white space after them.
    strip_after: Vec<bool>,
}

impl SpecialTokens {
    /// User-defined tokens, and with `control` also control tokens and the unknown one. `strips` says which
    /// tokens swallow the white space after them.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        control: bool,
        strips: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, Error> {
        let wanted = |kind| match kind {
            TokenKind::UserDefined => true,
            TokenKind::Control | TokenKind::Unknown => control,
            _ => false,
        };
        let tokens: Vec<_> =
            vocabulary.iter().filter(|&(_, token, kind)| wanted(kind) && !token.is_empty()).collect();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(_, token, _)| token))
            .map_err(|why| Error::InvalidModel(format!("the special tokens: {why}")))?;
        Ok(Self {
            automaton,
            strip_after: tokens.iter().map(|(_, token, _)| strips(token)).collect(),
            ids: tokens.iter().map(|(id, ..)| *id).collect(),
        })
    }

    /// Splits `text` at special tokens and gives the parts in order.
    pub(crate) fn split<'a>(&self, text: &'a str, mut each: impl FnMut(Part<'a>)) {
        let mut rest = 0;
        for found in self.automaton.find_iter(text) {
            // A token of broken UTF-8 might match inside a character; and white space may be swallowed.
            let (start, end) = (found.start(), found.end());
            if start < rest || !text.is_char_boundary(start) || !text.is_char_boundary(end) {
                continue;
            }
            if start > rest {
                each(Part::Text(&text[rest..start]));
            }
            let which = found.pattern().as_usize();
            each(Part::Token(self.ids[which]));
            rest = end;
            if self.strip_after[which] {
                rest += text[end..].len() - text[end..].trim_start().len();
            }
        }
        if rest < text.len() {
            each(Part::Text(&text[rest..]));
        }
    }
}
