//! Methods of dicts, lists, tuples and ranges.

use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::value::{Dict, Iteration, Key, StrKey, Value, equal, same};

/// The method `dict.get(key, default)`.
pub(super) fn get(renderer: &Renderer<'_>, dict: &Dict, arguments: Arguments) -> Result<Value> {
    if !arguments.named.is_empty() {
        return Err(fault("`get` takes no named arguments"));
    }
    let [key, default] = arguments.bind("get", ["key", "default"])?;
    let key = key.ok_or_else(|| fault("`get` needs a key"))?;
    let found = match &key {
        Value::Str(text) => {
            renderer.budget.read(text.len())?;
            dict.map.get(&StrKey(text.as_str()))
        }
        other => dict.map.get(&Key::new(&renderer.budget, other.clone())?),
    };
    Ok(found.cloned().or(default).unwrap_or(Value::None))
}

/// The methods `index`, `count` and `copy`.
pub(super) fn sequence(
    renderer: &Renderer<'_>,
    value: &Value,
    name: &str,
    arguments: Arguments,
) -> Result<Value> {
    if name == "copy" {
        arguments.none(name)?;
        return Ok(value.clone());
    }
    if !arguments.named.is_empty() {
        return Err(fault(format!("`{name}` takes no named arguments")));
    }
    let [wanted, start, stop] = arguments.bind(name, ["value", "start", "stop"])?;
    let wanted = wanted.ok_or_else(|| fault(format!("`{name}` needs a value to look for")))?;
    if name == "count" && start.is_some() {
        return Err(fault("`count` takes one argument"));
    }
    let len = value.len().unwrap_or(0);
    let bound = |bound: Option<Value>, default: usize| match bound {
        None => Ok(default),
        Some(value) => {
            let n = value.as_int().ok_or_else(|| fault("`index` needs integers as its bounds"))?;
            let n = if n < 0 { n.saturating_add(len as i128).max(0) } else { n };
            Ok(usize::try_from(n).unwrap_or(usize::MAX))
        }
    };
    let (start, stop) = (bound(start, 0)?, bound(stop, len)?);
    let mut count = 0;
    let mut rest = Iteration::of(value)?;
    let mut at = 0;
    while let Some(item) = rest.next(&renderer.budget)? {
        if at >= start && at < stop && (same(&item, &wanted) || equal(&renderer.budget, &item, &wanted)?) {
            if name == "index" {
                return Ok(Value::Int(at as i128));
            }
            count += 1;
        }
        at += 1;
    }
    if name == "index" { Err(fault("`index` found no such value")) } else { Ok(Value::Int(count)) }
}
