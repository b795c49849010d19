//! Calls in JSON.

use serde_json::Value;

use super::ToolCall;

/// Parses the calls in an object or a list of objects; `None` if anything in it is not a call. With `strict`,
/// for text without a mark that says that these are calls, an object must have a name, arguments and no other
/// key.
pub(super) fn calls(text: &str, strict: bool) -> Option<Vec<ToolCall>> {
    let text = text.trim();
    if text.starts_with('[') {
        let calls: Option<Vec<_>> = items(text)?.into_iter().map(|item| call(item, strict)).collect();
        calls.filter(|calls| !calls.is_empty())
    } else {
        Some(vec![call(text, strict)?])
    }
}

/// Parses Mistral's `name[ARGS]{…}`, with or without `[CALL_ID]id` in between.
pub(super) fn mistral_call(text: &str) -> Option<ToolCall> {
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

/// Parses a name among marks and the words `function` and `json`, then its arguments.
pub(super) fn named_call(text: &str) -> Option<ToolCall> {
    let (head, arguments) = text.split_at(text.find('{')?);
    let arguments = object(arguments.trim())?;
    let mut plain = String::new();
    let mut rest = head;
    while let Some((before, mark)) = rest.split_once('<') {
        plain += before;
        plain.push(' ');
        rest = mark.split_once('>')?.1;
    }
    plain += rest;
    let mut words = plain.split(|c: char| c.is_whitespace() || c == '`').filter(|word| !word.is_empty());
    let first = words.next()?;
    let word = match words.next() {
        Some(second) if first == "function" => second,
        _ => first,
    };
    // Kimi numbers its calls, and names them with the number: `functions.name:0`.
    let name = word.strip_prefix("functions.").unwrap_or(word);
    let (name, id) = match name.rsplit_once(':') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => (name, Some(word.to_owned())),
        _ => (name, None),
    };
    (!name.is_empty()).then(|| ToolCall::new(name.to_owned(), arguments, id))
}

/// Parses `{"name": …, "arguments": {…}}`. Llama writes `parameters`, Command writes `tool_name`, and some
/// models wrap the call in `function`, as OpenAI's format does. Arguments may be a string that holds an
/// object, or missing.
fn call(text: &str, strict: bool) -> Option<ToolCall> {
    let (mut name, mut arguments, mut id, mut others) = (None, None, None, 0);
    for (key, value) in members(text)? {
        match key.as_str() {
            "name" | "tool_name" => name = Some(serde_json::from_str::<String>(value).ok()?),
            "function" if value.starts_with('{') => {
                let inner = call(value, strict)?;
                (name, arguments) = (Some(inner.name), Some(inner.arguments));
            }
            "function" => name = Some(serde_json::from_str::<String>(value).ok()?),
            "arguments" | "parameters" => arguments = Some(object(value)?),
            "id" | "tool_call_id" => {
                id = serde_json::from_str::<String>(value).ok().filter(|id| !id.is_empty())
            }
            "type" if value == "\"function\"" => {}
            _ => others += 1,
        }
    }
    let name = name.filter(|name| !name.is_empty())?;
    // No text of the model may be lost: if there are no arguments, the other keys may be what it meant by
    // them.
    if (strict || arguments.is_none()) && others > 0 || strict && arguments.is_none() {
        return None;
    }
    let arguments = arguments.unwrap_or_else(|| "{}".to_owned());
    (!strict || !is_schema(&arguments)).then(|| ToolCall::new(name, arguments, id))
}

/// Returns whether an object is the schema from a tool's definition: a model may repeat it in place of
/// arguments.
fn is_schema(arguments: &str) -> bool {
    let keys = members(arguments).unwrap_or_default();
    ["type", "properties"].iter().all(|wanted| keys.iter().any(|(key, _)| key == wanted))
}

/// Returns an object's text, spelled directly or inside a string; `{}` for null.
pub(super) fn object(text: &str) -> Option<String> {
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

/// Closes the brackets that a text leaves open.
pub(super) fn closed(text: &str) -> String {
    let (mut open, mut quoted, mut escaped) = (Vec::new(), false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' => open.push('}'),
            b'[' => open.push(']'),
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
    }
    let mut closed = text.trim_end().to_owned();
    closed.extend(open.into_iter().rev());
    closed
}

/// Returns the keys of an object, with their values as they are spelled.
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

/// Returns the items of a list, as they are spelled.
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

/// Returns the next item, after a comma, or the end.
fn next(rest: &str, end: char) -> Option<&str> {
    let rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(after) => Some(after.trim_start()).filter(|after| !after.starts_with(end)),
        None => rest.starts_with(end).then_some(rest),
    }
}

/// Returns the value at the beginning of a text, as it is spelled, and the rest.
fn value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.next()?.ok()?;
    let end = values.byte_offset();
    Some((&text[..end], &text[end..]))
}
