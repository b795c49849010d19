//! Finds, counts and replaces parts of texts.

use std::ops::Range;
use std::rc::Rc;

use crate::budget::Budget;
use crate::error::{Result, fault};
use crate::text::{Builder, Text};
use crate::value::Value;

/// Returns the bytes between two indices of characters; negative indices count from the end. `None` if the
/// first lies behind the end or behind the second.
pub(super) fn index_range(
    text: &Text,
    start: Option<&Value>,
    stop: Option<&Value>,
) -> Result<Option<Range<usize>>> {
    if start.is_none() && stop.is_none() {
        return Ok(Some(0..text.len()));
    }
    let len = text.chars() as i128;
    let place = |bound: Option<&Value>, default: i128| match bound {
        None | Some(Value::None) => Ok(default),
        Some(value) => {
            let n = value.as_int().ok_or_else(|| fault("the bounds of a search have to be integers"))?;
            Ok(if n < 0 { n.saturating_add(len).max(0) } else { n })
        }
    };
    let (start, stop) = (place(start, 0)?, place(stop, len)?.min(len));
    if start > stop {
        return Ok(None);
    }
    Ok(Some(text.byte_of(start as usize)..text.byte_of(stop as usize)))
}

/// Number of characters before a byte.
pub(super) fn char_index(text: &Text, at: usize) -> i128 {
    if text.is_ascii() { at as i128 } else { text.as_str()[..at].chars().count() as i128 }
}

/// Counts the occurrences of a part in a text, without overlaps.
pub(super) fn count(text: &str, part: &str) -> usize {
    if part.is_empty() { text.chars().count() + 1 } else { text.matches(part).count() }
}

/// Returns the text with a part replaced, at most `limit` times.
pub(crate) fn replace(
    budget: &Rc<Budget>,
    text: &Text,
    old: &Text,
    new: &Text,
    limit: Option<usize>,
) -> Result<Text> {
    budget.read(text.len())?;
    let limit = limit.unwrap_or(usize::MAX);
    let mut out = Builder::new(budget);
    let mut at = 0;
    if old.is_empty() {
        let ends = text.as_str().char_indices().map(|(at, _)| at).chain([text.len()]);
        for end in ends.take(limit) {
            budget.step(1)?;
            out.push_slice(text, at..end)?;
            out.push(new)?;
            at = end;
        }
    } else {
        for (found, _) in text.as_str().match_indices(old.as_str()).take(limit) {
            budget.step(1)?;
            out.push_slice(text, at..found)?;
            out.push(new)?;
            at = found + old.len();
        }
    }
    if at == 0 && out.is_empty() {
        return Ok(text.clone());
    }
    out.push_slice(text, at..text.len())?;
    Ok(out.finish())
}
