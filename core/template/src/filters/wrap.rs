//! Breaks lines at a given number of characters, like Python's `textwrap`.

use std::ops::Range;

use super::{integer, is_true};
use crate::budget::Budget;
use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::methods;
use crate::text::{Builder, Text};
use crate::unicode::{is_alpha, is_word};
use crate::value::Value;

pub(super) fn wordwrap(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, long, break_text, hyphens] = arguments.bind("wordwrap", names)?;
    let Value::Str(text) = &value else {
        return Err(fault(format!("{} can't be wrapped; convert it with `string`", value.described())));
    };
    let width = usize::try_from(integer("wordwrap", width.as_ref(), 79)?).unwrap_or(0);
    if width == 0 {
        return Err(fault("`wordwrap` needs a width above zero"));
    }
    let (long, hyphens) = (is_true(long, true), is_true(hyphens, true));
    let break_text = match break_text.filter(|value| value.is_true()) {
        Some(value) => renderer.string(&value)?,
        None => Text::template("\n"),
    };
    let mut out = Builder::new(&renderer.budget);
    let _chunks = renderer.budget.charge(text.len().saturating_mul(48))?;
    for (number, (line, _)) in methods::lines(text.as_str()).enumerate() {
        if number > 0 {
            out.push(&break_text)?;
        }
        for (i, part) in wrapped(&renderer.budget, &text.as_str()[line.clone()], width, long, hyphens)?
            .into_iter()
            .enumerate()
        {
            renderer.budget.step(1)?;
            if i > 0 {
                out.push(&break_text)?;
            }
            out.push_slice(text, line.start + part.start..line.start + part.end)?;
        }
    }
    Ok(Value::Str(out.finish()))
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Returns whether a character may stand before a dash between words.
fn is_word_punctuation(c: char) -> bool {
    is_word(c) || matches!(c, '!' | '"' | '\'' | '&' | '.' | ',' | '?')
}

fn is_letter(c: char) -> bool {
    is_word(c) && !c.is_numeric() && (c == '_' || is_alpha(c))
}

/// Returns the parts between which a line may be broken: white space, words, and parts of words with hyphens.
fn chunks(line: &str, hyphens: bool) -> Vec<Range<usize>> {
    let chars: Vec<(usize, char)> = line.char_indices().collect();
    let byte = |index: usize| chars.get(index).map_or(line.len(), |&(at, _)| at);
    let get = |index: usize| chars.get(index).map(|&(_, c)| c);
    let dashes = |from: usize| chars[from..].iter().take_while(|&&(_, c)| c == '-').count();
    // Two or more dashes with a word behind them.
    let is_dash = |from: usize| {
        let len = if from < chars.len() { dashes(from) } else { 0 };
        len >= 2 && get(from + len).is_some_and(is_word)
    };
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let mut end = at + 1;
        if is_space(chars[at].1) {
            while get(end).is_some_and(is_space) {
                end += 1;
            }
        } else if hyphens && at > 0 && is_word_punctuation(chars[at - 1].1) && is_dash(at) {
            end = at + dashes(at);
        } else {
            while let Some(next) = get(end) {
                if is_space(next) {
                    break;
                }
                if hyphens {
                    let letter = |index: usize| get(index).is_some_and(is_letter);
                    let before = (end >= 2 && letter(end - 1) && letter(end - 2))
                        || (end >= 3
                            && get(end - 1).is_some_and(is_word_punctuation)
                            && get(end - 2) == Some('-')
                            && letter(end - 3));
                    let after = letter(end + 1)
                        && (letter(end + 2) || (get(end + 2) == Some('-') && letter(end + 3)));
                    if next == '-' && before && after {
                        end += 1;
                        break;
                    }
                    if is_word_punctuation(chars[end - 1].1) && is_dash(end) {
                        break;
                    }
                }
                end += 1;
            }
        }
        out.push(byte(at)..byte(end));
        at = end;
    }
    out
}

/// Returns lines of at most `width` characters, without white space at their ends.
fn wrapped(
    budget: &Budget,
    line: &str,
    width: usize,
    long: bool,
    hyphens: bool,
) -> Result<Vec<Range<usize>>> {
    let length = |range: &Range<usize>| line[range.clone()].chars().count();
    let blank = |range: &Range<usize>| line[range.clone()].trim().is_empty();
    let mut rest: Vec<Range<usize>> = chunks(line, hyphens);
    rest.reverse();
    let mut lines: Vec<Range<usize>> = Vec::new();
    while let Some(first) = rest.last() {
        let mut current: Vec<Range<usize>> = Vec::new();
        let mut len = 0;
        if blank(first) && !lines.is_empty() {
            rest.pop();
        }
        while let Some(chunk) = rest.last() {
            let more = length(chunk);
            if len + more > width {
                break;
            }
            len += more;
            current.extend(rest.pop());
        }
        if let Some(chunk) = rest.last().cloned()
            && length(&chunk) > width
        {
            // The rest of a long word is counted again for every line of it.
            budget.read(chunk.len())?;
            long_word(line, chunk, width - len, long, hyphens, &mut current, &mut rest);
        }
        if current.last().is_some_and(blank) {
            current.pop();
        }
        if let (Some(first), Some(last)) = (current.first(), current.last()) {
            lines.push(first.start..last.end);
        }
    }
    Ok(lines)
}

/// Breaks a word that fits on no line, or gives it a line of its own.
fn long_word(
    line: &str,
    chunk: Range<usize>,
    space: usize,
    long: bool,
    hyphens: bool,
    current: &mut Vec<Range<usize>>,
    rest: &mut Vec<Range<usize>>,
) {
    let text = &line[chunk.clone()];
    if long {
        let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(at, _)| at);
        let mut end = byte(space);
        if hyphens && text.chars().count() > space {
            let hyphen = text[..byte(space)].rfind('-').filter(|&at| at > 0);
            if let Some(at) = hyphen
                && text[..at].contains(|c| c != '-')
            {
                end = at + 1;
            }
        }
        rest.pop();
        current.push(chunk.start..chunk.start + end);
        if chunk.start + end < chunk.end {
            rest.push(chunk.start + end..chunk.end);
        }
    } else if current.is_empty() {
        rest.pop();
        current.push(chunk);
    }
}
