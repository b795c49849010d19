//! Upper and lower case.

use std::rc::Rc;

use crate::budget::Budget;
use crate::error::Result;
use crate::text::Text;
use crate::unicode::{is_cased, is_final_sigma, push_folded, push_lower, push_title, push_upper};

/// Writes the lower case of the character at a byte.
pub(crate) fn push_lower_at(text: &str, at: usize, c: char, out: &mut String) {
    if c == 'Σ' {
        out.push(if is_final_sigma(text, at) { 'ς' } else { 'σ' });
    } else {
        push_lower(c, out);
    }
}

pub(crate) fn lower(budget: &Rc<Budget>, text: &Text) -> Result<Text> {
    text.map_chars(budget, |at, c, out| push_lower_at(text.as_str(), at, c, out))
}

pub(crate) fn upper(budget: &Rc<Budget>, text: &Text) -> Result<Text> {
    text.map_chars(budget, |_, c, out| push_upper(c, out))
}

pub(super) fn casefold(budget: &Rc<Budget>, text: &Text) -> Result<Text> {
    text.map_chars(budget, |_, c, out| push_folded(c, out))
}

pub(crate) fn capitalize(budget: &Rc<Budget>, text: &Text) -> Result<Text> {
    text.map_chars(budget, |at, c, out| match at {
        0 => push_title(c, out),
        _ => push_lower_at(text.as_str(), at, c, out),
    })
}

/// Makes every word's first letter upper case, the others lower case.
pub(super) fn title(budget: &Rc<Budget>, text: &Text) -> Result<Text> {
    let mut inside = false;
    text.map_chars(budget, |at, c, out| {
        if inside {
            push_lower_at(text.as_str(), at, c, out)
        } else {
            push_title(c, out)
        }
        inside = is_cased(c);
    })
}

pub(super) fn swapcase(budget: &Rc<Budget>, text: &Text) -> Result<Text> {
    text.map_chars(budget, |at, c, out| {
        if c.is_uppercase() {
            push_lower_at(text.as_str(), at, c, out);
        } else if c.is_lowercase() {
            push_upper(c, out);
        } else {
            out.push(c);
        }
    })
}
