//! Calls in JSON.

use serde_json::Value;

use super::ToolCall;

/// The calls in an object or a list of objects; `None` if anything in it is no call.
pub(super) fn calls(text: &str) -> Option<Vec<ToolCall>> {
    let text = text.trim();
    if text.starts_with('[') {
        let calls: Option<Vec<_>> = items(text)?.into_iter().map(call).collect();
        calls.filter(|calls| !calls.is_empty())
    } else {
        Some(vec![call(text)?])
    }
}

/// Mistral's `name[ARGS]{…}`, with `[CALL_ID]id` in between or not.
pub(super) fn named_call(text: &str) -> Option<ToolCall> {
    let (head, arguments) = text.split_at(text.find('{')?);
    let head = head.trim().strip_suffix("[ARGS]").unwrap_or(head).trim();
    let (name, id) = match head.split_once("[CALL_ID]") {
        Some((name, id)) => (name.trim(), Some(id.trim().to_owned())),
        None => (head, None),
    };
    let fine = |word: &str| !word.is_empty() && !word.contains(['[', ']']);
    (fine(name) && id.as_deref().is_none_or(fine)).then_some(ToolCall::new(
        name.to_owned(),
        object(arguments.trim())?,
        id,
    ))
}

/// `{"name": …, "arguments": {…}}`. Llama says `parameters`; arguments may be a text that holds an object, and missing.
fn call(text: &str) -> Option<ToolCall> {
    let (mut name, mut arguments, mut id) = (None, None, None);
    for (key, value) in members(text)? {
        match key.as_str() {
            "name" => name = Some(serde_json::from_str::<String>(value).ok()?),
            "arguments" | "parameters" => arguments = Some(object(value)?),
            "id" => id = serde_json::from_str::<String>(value).ok().filter(|id| !id.is_empty()),
            _ => {}
        }
    }
    let name = name.filter(|name| !name.is_empty())?;
    Some(ToolCall::new(name, arguments.unwrap_or_else(|| "{}".to_owned()), id))
}

/// An object's text, whether it stands there or in a string; `{}` for null.
fn object(text: &str) -> Option<String> {
    match serde_json::from_str(text).ok()? {
        Value::Object(_) => Some(text.to_owned()),
        Value::String(inner) if inner.trim().is_empty() => Some("{}".to_owned()),
        Value::String(inner) => {
            let inner = inner.trim();
            matches!(serde_json::from_str(inner), Ok(Value::Object(_))).then(|| inner.to_owned())
        }
        Value::Null => Some("{}".to_owned()),
        _ => None,
    }
}

/// The keys of an object, with their values as they are spelled.
fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = text.strip_prefix('{')?.trim_start();
    let mut members = Vec::new();
    while !rest.starts_with('}') {
        let key;
        (key, rest) = value(rest)?;
        let key = serde_json::from_str(key).ok()?;
        let member;
        (member, rest) = value(rest.trim_start().strip_prefix(':')?)?;
        members.push((key, member));
        rest = next(rest, '}')?;
    }
    rest[1..].trim().is_empty().then_some(members)
}

/// The items of a list, as they are spelled.
fn items(text: &str) -> Option<Vec<&str>> {
    let mut rest = text.strip_prefix('[')?.trim_start();
    let mut items = Vec::new();
    while !rest.starts_with(']') {
        let item;
        (item, rest) = value(rest)?;
        items.push(item);
        rest = next(rest, ']')?;
    }
    rest[1..].trim().is_empty().then_some(items)
}

/// The next item, after a comma, or the end.
fn next(rest: &str, end: char) -> Option<&str> {
    let rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(after) => Some(after.trim_start()).filter(|after| !after.starts_with(end)),
        None => rest.starts_with(end).then_some(rest),
    }
}

/// A value at the beginning of a text, as it is spelled, and what follows.
fn value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.next()?.ok()?;
    let end = values.byte_offset();
    Some((&text[..end], &text[end..]))
}
