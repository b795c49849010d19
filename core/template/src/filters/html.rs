//! Filters for HTML and URLs.

use crate::error::{Result, fault};
use crate::html;
use crate::interpreter::{Arguments, Renderer};
use crate::methods::split_words;
use crate::text::{Builder, Text};
use crate::unicode::is_space;
use crate::value::{Iteration, Value, View};

pub(super) fn escape(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("escape")?;
    let text = renderer.string(&value)?;
    if text.is_markup() {
        return Ok(Value::Str(text));
    }
    let mut out = Builder::new(&renderer.budget);
    html::escape(&text, &mut out)?;
    Ok(Value::Str(out.finish().as_markup(true)))
}

pub(super) fn forceescape(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let text = renderer.string(&value)?.as_markup(false);
    escape(renderer, Value::Str(text), arguments)
}

pub(super) fn safe(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("safe")?;
    Ok(Value::Str(renderer.string(&value)?.as_markup(true)))
}

/// Returns the text without comments and tags, with reduced white space, and with entities as characters.
pub(super) fn striptags(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("striptags")?;
    let budget = &renderer.budget;
    let text = renderer.string(&value)?;
    let text = without(renderer, &text, "<!--", "-->")?;
    let text = without(renderer, &text, "<", ">")?;
    let mut joined = Builder::new(budget);
    let _words = budget.charge(text.len().saturating_mul(8))?;
    for (i, word) in split_words(text.as_str(), usize::MAX).into_iter().enumerate() {
        joined.push_str(if i > 0 { " " } else { "" })?;
        joined.push_slice(&text, word)?;
    }
    let text = joined.finish();
    let mut out = Builder::new(budget);
    let mut at = 0;
    while let Some(found) = text.as_str()[at..].find('&') {
        let begin = at + found;
        out.push_slice(&text, at..begin)?;
        let rest = &text.as_str()[begin + 1..];
        let entity =
            // Names are short, and a text may consist of `&` alone, so the search is bounded.
            rest.bytes().take(12).position(|b| b == b';').and_then(|len| Some((len, html::entity(&rest[..len])?)));
        match entity {
            Some((len, c)) => {
                out.push_char(c, text.is_foreign(begin))?;
                at = begin + len + 2;
            }
            None => {
                out.push_slice(&text, begin..begin + 1)?;
                at = begin + 1;
            }
        }
    }
    out.push_slice(&text, at..text.len())?;
    Ok(Value::Str(out.finish()))
}

/// Returns the text without the parts between two marks, including the marks.
fn without(renderer: &Renderer<'_>, text: &Text, open: &str, close: &str) -> Result<Text> {
    let source = text.as_str();
    let mut out = Builder::new(&renderer.budget);
    let mut at = 0;
    while let Some(begin) = source[at..].find(open).map(|found| at + found) {
        let Some(end) = source[begin..].find(close).map(|found| begin + found + close.len()) else { break };
        out.push_slice(text, at..begin)?;
        at = end;
    }
    out.push_slice(text, at..source.len())?;
    Ok(out.finish())
}

/// Writes a text, with all characters except letters, digits and some signs as `%` and two digits.
fn quote(text: &Text, query: bool, out: &mut Builder) -> Result<()> {
    for (part, foreign) in text.parts(0..text.len()) {
        for b in text.as_str()[part].bytes() {
            match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                    out.push_char(b.into(), foreign)?;
                }
                b'/' if !query => out.push_char('/', foreign)?,
                b' ' if query => out.push_char('+', foreign)?,
                b => out.push_as(&format!("%{b:02X}"), foreign)?,
            }
        }
    }
    Ok(())
}

pub(super) fn urlencode(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("urlencode")?;
    let budget = &renderer.budget;
    let mut out = Builder::new(budget);
    let rest = match &value {
        Value::Str(_) => None,
        Value::Dict(dict) => Iteration::maybe(&Value::View(View::Items, std::rc::Rc::clone(dict))),
        other => Iteration::maybe(other),
    };
    let Some(mut rest) = rest else {
        quote(&renderer.string(&value)?, false, &mut out)?;
        return Ok(Value::Str(out.finish()));
    };
    let mut first = true;
    while let Some(item) = rest.next(budget)? {
        let mut parts = Iteration::of(&item)?;
        let (Some(key), Some(value), None) = (parts.next(budget)?, parts.next(budget)?, parts.next(budget)?)
        else {
            return Err(fault("`urlencode` needs a text, a dict, or pairs of a key and a value"));
        };
        if !first {
            out.push_str("&")?;
        }
        first = false;
        quote(&renderer.string(&key)?, true, &mut out)?;
        out.push_str("=")?;
        quote(&renderer.string(&value)?, true, &mut out)?;
    }
    Ok(Value::Str(out.finish()))
}

pub(super) fn urlize(_: &Renderer<'_>, _: Value, _: Arguments) -> Result<Value> {
    Err(fault("`urlize` makes links of HTML, which prompts have none of; write the text itself"))
}

pub(super) fn xmlattr(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [space] = arguments.bind("xmlattr", ["autospace"])?;
    let Value::Dict(dict) = &value else {
        return Err(fault(format!("{} in `xmlattr`, where a dict is needed", value.described())));
    };
    let mut out = Builder::new(&renderer.budget);
    let space = space.is_none_or(|space| space.is_true());
    for (key, value) in &dict.map {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let key = renderer.string(key.value())?;
        if key.as_str().contains(|c| is_space(c) || matches!(c, '/' | '>' | '=')) {
            return Err(fault("the name of an attribute can't have spaces, `/`, `>` or `=`"));
        }
        if space || !out.is_empty() {
            out.push_str(" ")?;
        }
        html::escape(&key, &mut out)?;
        out.push_str("=\"")?;
        let value = renderer.string(value)?;
        if value.is_markup() {
            out.push(&value)?
        } else {
            html::escape(&value, &mut out)?
        }
        out.push_str("\"")?;
    }
    Ok(Value::Str(out.finish()))
}
