//! Calls in Python's spelling: `name(key="value", other=[1, None])`.

use serde_json::Value;

use super::{Tool, ToolCall};

/// The deepest nesting of lists and objects: the same as for JSON.
const MAX_DEPTH: usize = 128;

/// Parses a list of calls, or a single one; `None` if anything in it is not a call. Calls of tools that are
/// not in `tools` count only with `any`.
pub(super) fn calls(text: &str, tools: &[Tool], any: bool) -> Option<Vec<ToolCall>> {
    let text = text.trim();
    let (mut rest, listed) = match text.strip_prefix('[') {
        Some(rest) => (rest.trim_start(), true),
        None => (text, false),
    };
    let mut calls = Vec::new();
    loop {
        let found;
        (found, rest) = call(rest, tools, any)?;
        calls.push(found);
        rest = rest.trim_start();
        match rest.strip_prefix([',', ';']) {
            Some(after) => rest = after.trim_start(),
            None if listed => return (rest.trim() == "]").then_some(calls),
            None => return rest.is_empty().then_some(calls),
        }
        // A comma may end the list.
        if listed && rest.trim() == "]" || !listed && rest.is_empty() {
            return Some(calls);
        }
    }
}

/// Parses a call at the beginning of a text; returns it and the rest.
fn call<'a>(text: &'a str, tools: &[Tool], any: bool) -> Option<(ToolCall, &'a str)> {
    let (name, rest) = text.split_at(text.find('(')?);
    // Llama calls its built-in tools in `name.call(…)`.
    let name = name.trim_end();
    let tool = |name: &str| tools.iter().find(|tool| tool.name == name);
    let tool = tool(name).or_else(|| tool(name.strip_suffix(".call")?));
    let name = tool.map_or(name, |tool| &tool.name);
    let is_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || !name.chars().all(is_name) || tool.is_none() && !any {
        return None;
    }
    let mut arguments = "{".to_owned();
    let mut positions = 0;
    let mut rest = rest[1..].trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix(')') {
            arguments.push('}');
            return Some((ToolCall::new(name.to_owned(), arguments, None), rest));
        }
        if arguments.len() > 1 {
            arguments += ", ";
        }
        let key = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let named = rest[key..].trim_start().strip_prefix('=').filter(|_| key > 0);
        if let Some(after) = named {
            arguments += &Value::from(&rest[..key]).to_string();
            rest = after;
        } else {
            // A positional argument has the name of the parameter in its place.
            let key = tool?.parameters["properties"].as_object()?.keys().nth(positions)?;
            arguments += &Value::from(key.as_str()).to_string();
            positions += 1;
        }
        arguments += ": ";
        rest = value(rest, &mut arguments, 0)?.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.starts_with(')') => rest,
            None => return None,
        };
    }
}

/// Writes the value at the beginning of a text as JSON; returns the rest.
pub(super) fn value<'a>(text: &'a str, out: &mut String, depth: usize) -> Option<&'a str> {
    let text = text.trim_start();
    if depth > MAX_DEPTH {
        return None;
    }
    let list = |end: char, out: &mut String| {
        out.push('[');
        let mut first = true;
        let rest = items(&text[1..], end, |item| {
            out.push_str(if std::mem::take(&mut first) { "" } else { ", " });
            value(item, out, depth + 1)
        })?;
        out.push(']');
        Some(rest)
    };
    match text.chars().next()? {
        '[' => list(']', out),
        '(' => list(')', out),
        '{' => {
            out.push('{');
            let mut first = true;
            let rest = items(&text[1..], '}', |item| {
                out.push_str(if std::mem::take(&mut first) { "" } else { ", " });
                if !item.starts_with(['"', '\'']) {
                    return None;
                }
                let rest = value(item, out, depth + 1)?.trim_start().strip_prefix(':')?;
                out.push_str(": ");
                value(rest, out, depth + 1)
            })?;
            out.push('}');
            Some(rest)
        }
        quote @ ('"' | '\'') => {
            let (string, rest) = string(&text[1..], quote)?;
            *out += &Value::from(string).to_string();
            Some(rest)
        }
        _ => {
            let end = text.find(|c: char| c.is_whitespace() || ",:)]}=(".contains(c)).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            match word {
                "True" | "true" => out.push_str("true"),
                "False" | "false" => out.push_str("false"),
                "None" | "null" => out.push_str("null"),
                _ => match serde_json::from_str::<Value>(word) {
                    // Copied as it is spelled: a float would lose digits.
                    Ok(Value::Number(_)) => out.push_str(word),
                    _ => *out += &Value::from(number(word)?).to_string(),
                },
            }
            Some(rest)
        }
    }
}

/// Parses numbers that Python spells differently from JSON: `.5`, `1.`, `1_000`.
fn number(word: &str) -> Option<f64> {
    let digits = word.bytes().any(|b| b.is_ascii_digit());
    let number: f64 = word.replace('_', "").parse().ok()?;
    (digits && number.is_finite()).then_some(number)
}

/// Parses the rest of a string after its quote; returns it and the rest of the text.
fn string(text: &str, quote: char) -> Option<(String, &str)> {
    let mut string = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            _ if char == quote => return Some((string, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => string.push('\n'),
                't' => string.push('\t'),
                'r' => string.push('\r'),
                '\n' => {}
                code @ ('x' | 'u' | 'U') => {
                    let digits = match code {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let mut number = 0;
                    for _ in 0..digits {
                        number = number * 16 + chars.next()?.1.to_digit(16)?;
                    }
                    string.push(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                other @ ('\\' | '\'' | '"' | '/') => string.push(other),
                other => string.extend(['\\', other]),
            },
            _ => string.push(char),
        }
    }
    None
}

/// Reads items, with commas between them, up to `end`; returns the rest.
pub(super) fn items<'a>(
    text: &'a str,
    end: char,
    mut item: impl FnMut(&'a str) -> Option<&'a str>,
) -> Option<&'a str> {
    let mut rest = text.trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix(end) {
            return Some(rest);
        }
        rest = item(rest)?.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None => return rest.strip_prefix(end),
        }
    }
}
