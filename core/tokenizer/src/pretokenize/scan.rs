//! Hand-written matchers for the regular expressions of pre-tokenizers. A regular expression with look-ahead
//! needs a backtracking engine, whose time on hostile text is not linear; these matchers visit every
//! character a bounded number of times.

use super::class::*;

/// The result of a matcher at the start of a text.
pub(super) enum Found {
    /// A piece of this many bytes.
    Piece(usize),
    /// No piece, neither here nor at any other place within this many bytes.
    Nothing(usize),
}

/// A position in a text.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(self) -> usize {
        self.at
    }

    fn is_end(self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn peek(self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next_is(self, wanted: impl Fn(char) -> bool) -> bool {
        self.peek().is_some_and(wanted)
    }

    /// Moves behind the next character.
    fn step(self) -> Self {
        Self { at: self.at + self.peek().map_or(0, char::len_utf8), ..self }
    }

    /// Moves behind the next character if it is `wanted`.
    fn optional(self, wanted: impl Fn(char) -> bool) -> Self {
        if self.next_is(wanted) { self.step() } else { self }
    }

    /// Moves behind at most `most` characters that are `wanted`.
    pub(super) fn run(mut self, wanted: impl Fn(char) -> bool, most: usize) -> Self {
        for _ in 0..most {
            if !self.next_is(&wanted) {
                break;
            }
            self = self.step();
        }
        self
    }

    /// Moves behind one or more characters that are `wanted`; `None` if there is none.
    fn some(self, wanted: impl Fn(char) -> bool) -> Option<Self> {
        let end = self.run(wanted, usize::MAX);
        (end.at > self.at).then_some(end)
    }

    /// Matches `\s+(?!\S)|\s+`: white space, except its last character if a word follows.
    fn spaces(self) -> Option<Self> {
        let end = self.some(is_space)?;
        if end.is_end() {
            return Some(end);
        }
        let last = self.text[self.at..end.at].chars().next_back().map_or(0, char::len_utf8);
        let before_last = end.at - last;
        Some(if before_last > self.at { Self { at: before_last, ..self } } else { end })
    }

    /// Matches `\s*[\r\n]+`: white space up to its last line break.
    fn lines(self) -> Option<Self> {
        let end = self.some(is_space)?;
        let last = self.text[self.at..end.at].rfind(is_newline)?;
        Some(Self { at: self.at + last + 1, ..self })
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d`
    fn contraction(self, any_case: bool) -> Option<Self> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let (&b'\'', rest) = rest.split_first()? else { return None };
        ["s", "t", "re", "ve", "m", "ll", "d"]
            .iter()
            .find(|word| match rest.get(..word.len()) {
                Some(head) if any_case => head.eq_ignore_ascii_case(word.as_bytes()),
                Some(head) => head == word.as_bytes(),
                None => false,
            })
            .map(|word| Self { at: self.at + 1 + word.len(), ..self })
    }

    /// Matches `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`, or if that finds nothing, the
    /// same with `+` and `*` exchanged: a word starts where capitals start.
    fn cased_word(self) -> Option<Self> {
        let caseless = |c| matches!(class(c), Class::Caseless | Class::Mark);
        let mut end = self;
        let mut after_caseless = None;
        while let Some(c) = end.peek().filter(|&c| caseless(c) || class(c) == Class::Upper) {
            end = end.step();
            if caseless(c) {
                after_caseless = Some(end);
            }
        }
        let lower = end.run(|c| caseless(c) || class(c) == Class::Lower, usize::MAX);
        if lower.at > end.at {
            return Some(lower);
        }
        // The expression backtracks over capitals until its second half has something to match.
        after_caseless.or((end.at > self.at).then_some(end))
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
pub(super) fn gpt2(text: &str) -> Found {
    let start = Cursor::new(text);
    let word = start.optional(|c| c == ' ');
    let end = start
        .contraction(false)
        .or_else(|| word.some(is_letter))
        .or_else(|| word.some(is_number))
        .or_else(|| word.some(is_other))
        .or_else(|| start.spaces());
    found(end, text)
}

/// The differences between the expressions that descend from cl100k.
pub(super) struct Words {
    /// Most digits in a piece.
    pub(super) digits: usize,
    /// Set if capitals start new words, with or without contractions kept in their word.
    pub(super) cased: Cased,
    /// Set if marks are parts of words as letters are; not with `cased`.
    pub(super) marks: bool,
    /// Characters that stay with the punctuation before them, such as line breaks.
    pub(super) after_punctuation: fn(char) -> bool,
}

#[derive(PartialEq, Clone, Copy)]
pub(super) enum Cased {
    No,
    Yes,
    WithContractions,
}

/// Matches cl100k's expression, or a variant of it by `rules`:
///
/// ```text
/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
/// ```
pub(super) fn words(text: &str, rules: &Words) -> Found {
    let start = Cursor::new(text);
    let word = start.optional(|c| !is_newline(c) && !is_letter(c) && !is_number(c));
    let cased = || {
        // A mark may start a word by itself, so the prefix really is optional.
        let end = word.cased_word().or_else(|| start.cased_word())?;
        let with = (rules.cased == Cased::WithContractions).then(|| end.contraction(true)).flatten();
        Some(with.unwrap_or(end))
    };
    let letter = |c| is_letter(c) || rules.marks && is_mark(c);
    let letters = match rules.cased {
        // The character before a word may be a mark, and the only one.
        Cased::No => start.contraction(true).or_else(|| word.some(letter)).or_else(|| start.some(letter)),
        _ => cased(),
    };
    let end = letters
        .or_else(|| start.next_is(is_number).then(|| start.run(is_number, rules.digits)))
        .or_else(|| {
            let other = |c| is_other(c) && !letter(c);
            let end = start.optional(|c| c == ' ').some(other)?;
            Some(end.run(rules.after_punctuation, usize::MAX))
        })
        .or_else(|| start.lines())
        .or_else(|| start.spaces());
    found(end, text)
}

/// ``[!"#…~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``
pub(super) fn deepseek_v3(text: &str) -> Found {
    let start = Cursor::new(text);
    let symbol = start.optional(|c| c.is_ascii_punctuation());
    let word = start.optional(|c| !is_newline(c) && !is_letter(c) && !is_punctuation_or_symbol(c));
    let letter = |c| is_letter(c) || is_mark(c);
    let end = (symbol.at > 0)
        .then(|| symbol.some(|c| c.is_ascii_alphabetic()))
        .flatten()
        .or_else(|| word.some(letter))
        .or_else(|| start.some(letter))
        .or_else(|| {
            let end = start.optional(|c| c == ' ').some(is_punctuation_or_symbol)?;
            Some(end.run(is_newline, usize::MAX))
        })
        .or_else(|| start.lines())
        .or_else(|| start.spaces());
    found(end, text)
}

/// Matches `X{1,most}`, with `space` after at most one character of `space`.
pub(super) fn run(text: &str, space: fn(char) -> bool, wanted: fn(char) -> bool, most: usize) -> Found {
    let start = Cursor::new(text);
    let body = start.optional(space);
    // The optional character may itself be a `wanted` one.
    let body = if body.next_is(wanted) { body } else { start };
    let end = body.run(wanted, most);
    found((end.at > body.at).then_some(end), text)
}

/// `[0-9][0-9][0-9]`
pub(super) fn three_digits(text: &str) -> Found {
    let end = Cursor::new(text).run(|c| c.is_ascii_digit(), 3);
    found((end.at == 3).then_some(end), text)
}

/// `\s+$`
pub(super) fn trailing_spaces(text: &str) -> Found {
    let end = Cursor::new(text).run(is_space, usize::MAX);
    match end.at {
        0 => found(None, text),
        at if end.is_end() => Found::Piece(at),
        at => Found::Nothing(at),
    }
}

fn found(end: Option<Cursor<'_>>, text: &str) -> Found {
    match end {
        Some(end) => Found::Piece(end.at()),
        None => Found::Nothing(Cursor::new(text).step().at()),
    }
}
