//! Finds special tokens in text.

use std::collections::HashSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

use crate::Error;
use crate::names::looks_like_control;
use crate::vocabulary::{TokenKind, Vocabulary};

/// A part of a text.
pub(crate) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

/// The special tokens that are cut out of a text before the rest is encoded.
#[derive(Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// User-defined tokens that are ordinary text, such as runs of white space: for users' words.
    Words,
    /// All user-defined tokens: for the model's own text.
    Answer,
    /// All user-defined and control tokens, but only if none of their bytes lies in these ranges, which are
    /// sorted and disjoint. [`Scope::Words`] applies within the ranges.
    Outside(&'a [Range<usize>]),
}

/// The tokens that are cut out of text before it is encoded.
pub(crate) struct SpecialTokens {
    words: Finder,
    user_defined: Finder,
    all: Finder,
}

impl SpecialTokens {
    /// Finds the special tokens of a vocabulary; `strips` says which of them swallow the white space behind
    /// them.
    pub(crate) fn new(vocabulary: &Vocabulary, strips: impl Fn(&[u8]) -> bool) -> Result<Self, Error> {
        let finder = |wanted: &dyn Fn(&[u8], TokenKind) -> bool| Finder::new(vocabulary, wanted, &strips);
        Ok(Self {
            words: finder(&|token, kind| kind == TokenKind::UserDefined && !looks_like_control(token))?,
            user_defined: finder(&|_, kind| kind == TokenKind::UserDefined)?,
            all: finder(&|_, kind| {
                matches!(kind, TokenKind::UserDefined | TokenKind::Control | TokenKind::Unknown)
            })?,
        })
    }

    /// Splits `text` at the tokens of `scope` and passes on the parts in order. Among tokens that begin at
    /// the same place, the longest wins.
    pub(crate) fn split<'a>(&self, text: &'a str, scope: Scope<'_>, mut each: impl FnMut(Part<'a>)) {
        let (anywhere, foreign) = match scope {
            Scope::Words => (&self.words, None),
            Scope::Answer => (&self.user_defined, None),
            Scope::Outside([]) => (&self.all, None),
            Scope::Outside(foreign) => (&self.words, Some(foreign)),
        };
        let mut anywhere = Next::new(|from| anywhere.find(text, from..text.len()));
        let mut gap = 0;
        let mut outside = Next::new(|from| self.all.find_outside(text, from, foreign?, &mut gap));
        let mut rest = 0;
        loop {
            let first = match (anywhere.from(rest), outside.from(rest)) {
                (Some(a), Some(b)) if (b.start, a.end) < (a.start, b.end) => b,
                (Some(a), _) => a,
                (None, Some(b)) => b,
                (None, None) => break,
            };
            if first.start > rest {
                each(Part::Text(&text[rest..first.start]));
            }
            each(Part::Token(first.id));
            rest = first.end;
            if first.strips {
                rest += text[rest..].len() - text[rest..].trim_start().len();
            }
        }
        if rest < text.len() {
            each(Part::Text(&text[rest..]));
        }
    }
}

/// A token found in a text.
#[derive(Clone, Copy)]
struct Found {
    start: usize,
    end: usize,
    id: u32,
    strips: bool,
}

/// The next match of a search, cached while it lies ahead.
struct Next<F> {
    search: F,
    found: Option<Found>,
    started: bool,
}

impl<F: FnMut(usize) -> Option<Found>> Next<F> {
    fn new(search: F) -> Self {
        Self { search, found: None, started: false }
    }

    /// Returns the first token that begins at `from` or later. `from` must never decrease.
    fn from(&mut self, from: usize) -> Option<Found> {
        if !self.started || self.found.is_some_and(|found| found.start < from) {
            (self.started, self.found) = (true, (self.search)(from));
        }
        self.found
    }
}

/// An automaton that searches for a set of tokens.
struct Finder {
    automaton: AhoCorasick,
    /// For each pattern, the token, and whether it swallows the white space behind it.
    tokens: Vec<(u32, bool)>,
}

impl Finder {
    fn new(
        vocabulary: &Vocabulary,
        wanted: &dyn Fn(&[u8], TokenKind) -> bool,
        strips: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Self, Error> {
        // Skip duplicates: a later pattern with the same text is never found, and the automaton takes time
        // quadratic in the number of duplicates.
        let mut seen = HashSet::new();
        let tokens: Vec<_> = vocabulary
            .iter()
            .filter(|&(_, token, kind)| !token.is_empty() && wanted(token, kind) && seen.insert(token))
            .collect();
        // Not a DFA, which the builder would choose for few tokens: building one takes time quadratic in a
        // token such as `aaa…`, minutes for one of 50 KB, and a model's file determines the tokens.
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(_, token, _)| token))
            .map_err(|why| Error::InvalidModel(format!("the special tokens: {why}")))?;
        Ok(Self { automaton, tokens: tokens.iter().map(|&(id, token, _)| (id, strips(token))).collect() })
    }

    fn find(&self, text: &str, mut range: Range<usize>) -> Option<Found> {
        loop {
            let found = self.automaton.find(Input::new(text).range(range.clone()))?;
            let (start, end) = (found.start(), found.end());
            // A token of broken UTF-8 might match inside a character.
            if text.is_char_boundary(start) && text.is_char_boundary(end) {
                let (id, strips) = self.tokens[found.pattern().as_usize()];
                return Some(Found { start, end, id, strips });
            }
            range.start = start + 1;
        }
    }

    /// Returns the first token from `from` on that touches none of `foreign`. `gap` is the number of those
    /// ranges that lie behind.
    fn find_outside(
        &self,
        text: &str,
        from: usize,
        foreign: &[Range<usize>],
        gap: &mut usize,
    ) -> Option<Found> {
        loop {
            let start = if *gap == 0 { from } else { from.max(foreign[*gap - 1].end) };
            let end = foreign.get(*gap).map_or(text.len(), |range| range.start);
            if start < end
                && let Some(found) = self.find(text, start..end)
            {
                return Some(found);
            }
            if *gap == foreign.len() {
                return None;
            }
            *gap += 1;
        }
    }
}
