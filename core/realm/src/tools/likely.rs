//! Decides from the beginning of a text without a mark whether it may be a call. Answers in JSON, and lists
//! of words, then do not wait for their end.

use super::Tool;

/// The keys of calls without a mark.
const KEYS: [&str; 6] = ["name", "arguments", "parameters", "function", "type", "id"];

/// Returns whether `text` may begin with a call of one of `tools`, in JSON or in Python's spelling, alone or
/// in a list; `None` if more text is needed. More text never changes an answer.
pub(super) fn is_likely(text: &str, tools: &[Tool]) -> Option<bool> {
    let listed = text.strip_prefix('[').map(str::trim_start);
    let text = listed.unwrap_or(text);
    if let Some(object) = text.strip_prefix('{') {
        return starts_call(object.trim_start(), tools);
    }
    let name = text.find(|c: char| !c.is_alphanumeric() && !"_-.".contains(c));
    let (name, next) = match name {
        Some(end) => (&text[..end], text[end..].chars().next()),
        None => (text, None),
    };
    let known = |tool: &Tool| {
        let rest = tool.name.strip_prefix(name).map(|_| "").or_else(|| name.strip_prefix(tool.name.as_str()));
        rest.is_some_and(|rest| ".call".starts_with(rest))
    };
    match next {
        None => {
            if tools.iter().any(known) {
                None
            } else {
                Some(false)
            }
        }
        Some(next) => {
            let named = |tool: &Tool| name == tool.name || name.strip_suffix(".call") == Some(&tool.name);
            Some(next == '(' && tools.iter().any(named))
        }
    }
}

/// Decides after the opening bracket of an object.
fn starts_call(text: &str, tools: &[Tool]) -> Option<bool> {
    if text.is_empty() {
        return None;
    }
    let Some(quoted) = text.strip_prefix('"') else { return Some(false) };
    let Some((key, rest)) = quoted.split_once('"') else {
        return if KEYS.iter().any(|key| key.starts_with(quoted)) { None } else { Some(false) };
    };
    if !KEYS.contains(&key) {
        return Some(false);
    }
    if key != "name" {
        return Some(true);
    }
    let rest = rest.trim_start();
    let Some(value) = rest.strip_prefix(':') else { return if rest.is_empty() { None } else { Some(false) } };
    let value = value.trim_start();
    if value.is_empty() {
        return None;
    }
    let Some(quoted) = value.strip_prefix('"') else { return Some(false) };
    match quoted.split_once('"') {
        Some((name, _)) => Some(tools.iter().any(|tool| tool.name == name)),
        None if tools.iter().any(|tool| tool.name.starts_with(quoted)) => None,
        None => Some(false),
    }
}
