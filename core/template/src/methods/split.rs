//! Splits texts.

use std::ops::Range;
use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Result;
use crate::text::Text;
use crate::unicode::is_space;
use crate::value::{Items, Value};

/// Returns the range that remains without the characters of `strips` at the ends.
pub(super) fn strip(text: &str, left: bool, right: bool, strips: impl Fn(char) -> bool) -> Range<usize> {
    let end = if right { text.trim_end_matches(&strips).len() } else { text.len() };
    let start = if left { end - text[..end].trim_start_matches(&strips).len() } else { 0 };
    start..end
}

fn is_line_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}' | '\u{1d}' | '\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Returns the ranges of lines, by the rules of `splitlines`, and the ends of their line breaks.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (Range<usize>, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= text.len() {
            return None;
        }
        let start = at;
        let rest = &text[start..];
        let Some(len) = rest.find(is_line_break) else {
            at = text.len();
            return Some((start..at, at));
        };
        let after = &rest[len..];
        let width =
            if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        at = start + len + width;
        Some((start..start + len, at))
    })
}

/// Returns the ranges of words between white space; the rest follows after `limit` words.
pub(crate) fn split_words(text: &str, limit: usize) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut at = text.len() - text.trim_start_matches(is_space).len();
    while at < text.len() {
        if words.len() == limit {
            words.push(at..text.len());
            break;
        }
        let end = text[at..].find(is_space).map_or(text.len(), |len| at + len);
        words.push(at..end);
        at = text.len() - text[end..].trim_start_matches(is_space).len();
    }
    words
}

/// Returns the ranges of words, split from the end.
fn rsplit_words(text: &str, limit: usize) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut end = text.trim_end_matches(is_space).len();
    while end > 0 {
        if words.len() == limit {
            words.push(0..end);
            break;
        }
        let word = &text[..end];
        let start =
            word.char_indices().rev().find(|&(_, c)| is_space(c)).map_or(0, |(at, c)| at + c.len_utf8());
        words.push(start..end);
        end = text[..start].trim_end_matches(is_space).len();
    }
    words.reverse();
    words
}

/// Returns the text before the last space, or all of it.
pub(crate) fn rsplit_once_space(text: &str) -> &str {
    text.rsplit_once(' ').map_or(text, |(before, _)| before)
}

/// The methods `split` and `rsplit`.
pub(super) fn split(
    budget: &Rc<Budget>,
    text: &Text,
    separator: Option<&Text>,
    limit: Option<usize>,
    from_end: bool,
) -> Result<Value> {
    budget.read(text.len())?;
    let mut items = Items::new(budget)?;
    let limit = limit.unwrap_or(usize::MAX);
    let source = text.as_str();
    let Some(separator) = separator else {
        let _words = budget.charge(source.len().saturating_mul(8).min(limit.saturating_mul(16)))?;
        let words = if from_end { rsplit_words(source, limit) } else { split_words(source, limit) };
        for word in words {
            items.push(Value::Str(text.slice(budget, word)?))?;
        }
        return items.list();
    };
    let mut at = 0;
    if from_end {
        let mut places = Vec::new();
        let mut charge = budget.charge(0)?;
        for (found, _) in source.rmatch_indices(separator.as_str()).take(limit) {
            charge.grow(size_of::<usize>())?;
            places.push(found);
        }
        for found in places.into_iter().rev() {
            items.push(Value::Str(text.slice(budget, at..found)?))?;
            at = found + separator.len();
        }
    } else {
        for (found, _) in source.match_indices(separator.as_str()).take(limit) {
            items.push(Value::Str(text.slice(budget, at..found)?))?;
            at = found + separator.len();
        }
    }
    items.push(Value::Str(text.slice(budget, at..text.len())?))?;
    items.list()
}

/// The method `splitlines`.
pub(super) fn split_lines(budget: &Rc<Budget>, text: &Text, keep: bool) -> Result<Value> {
    budget.read(text.len())?;
    let mut items = Items::new(budget)?;
    for (line, end) in lines(text.as_str()) {
        let range = if keep { line.start..end } else { line };
        items.push(Value::Str(text.slice(budget, range)?))?;
    }
    items.list()
}
