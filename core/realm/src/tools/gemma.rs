//! Calls in the notation of FunctionGemma and Gemma 4:
//! `call:name{key:<escape>text<escape>,count:3,list:[true,{inner:null}]}`.

use serde_json::{Map, Value};

use super::ToolCall;

/// The deepest nesting of lists and objects: the same as for JSON.
const MAX_DEPTH: usize = 128;

/// Parses a call; `None` if the text is not one. `quote` stands around strings.
pub(super) fn call(text: &str, quote: &str) -> Option<ToolCall> {
    let call = text.trim().strip_prefix("call:")?;
    let (name, arguments) = call.split_at(call.find('{')?);
    let (arguments, rest) = value(arguments, quote, 0)?;
    let name = name.trim();
    (!name.is_empty() && rest.trim().is_empty())
        .then(|| ToolCall::new(name.to_owned(), arguments.to_string(), None))
}

/// Parses a value at the beginning of a text; returns it and the rest.
fn value<'a>(text: &'a str, quote: &str, depth: usize) -> Option<(Value, &'a str)> {
    if depth > MAX_DEPTH {
        return None;
    }
    if let Some(inner) = text.strip_prefix('{') {
        let mut members = Map::new();
        let rest = list(inner, '}', |item| {
            let (key, item) = item.split_once(':')?;
            let key = key.trim().trim_start_matches(quote).trim_end_matches(quote);
            let (value, rest) = value(item.trim_start(), quote, depth + 1)?;
            members.insert(key.to_owned(), value);
            Some(rest)
        })?;
        return Some((Value::Object(members), rest));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let mut items = Vec::new();
        let rest = list(inner, ']', |item| {
            let (value, rest) = value(item, quote, depth + 1)?;
            items.push(value);
            Some(rest)
        })?;
        return Some((Value::Array(items), rest));
    }
    if let Some(quoted) = text.strip_prefix(quote) {
        let (quoted, rest) = quoted.split_once(quote)?;
        return Some((quoted.into(), rest));
    }
    let (word, rest) = text.split_at(text.find([',', '}', ']'])?);
    let word = word.trim();
    Some((serde_json::from_str(word).unwrap_or_else(|_| word.into()), rest))
}

/// Reads items, with commas between them, up to `end`; returns the rest.
fn list<'a>(text: &'a str, end: char, mut item: impl FnMut(&'a str) -> Option<&'a str>) -> Option<&'a str> {
    let mut rest = text.trim_start();
    if let Some(rest) = rest.strip_prefix(end) {
        return Some(rest);
    }
    loop {
        rest = item(rest.trim_start())?.trim_start();
        if let Some(rest) = rest.strip_prefix(end) {
            return Some(rest);
        }
        rest = rest.strip_prefix(',')?;
    }
}
