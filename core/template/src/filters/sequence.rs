//! Filters that iterate over items.

use std::cell::RefCell;
use std::rc::Rc;

use super::{attribute_at, attribute_path};
use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::text::{Builder, Text};
use crate::value::{Iteration, Iterator, Missing, Value, View};

pub(super) fn length(_: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("length")?;
    match value.len() {
        Some(len) => Ok(Value::Int(len as i128)),
        None => Err(fault(format!("{} has no length", value.described()))),
    }
}

pub(super) fn first(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("first")?;
    let first = Iteration::of(&value)?.next(&renderer.budget)?;
    Ok(first
        .unwrap_or_else(|| Value::undefined(Missing::Reason("there is no first item, since there is none"))))
}

pub(super) fn last(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("last")?;
    let last = backwards(renderer, &value)?.next(&renderer.budget)?;
    Ok(last
        .unwrap_or_else(|| Value::undefined(Missing::Reason("there is no last item, since there is none"))))
}

/// Returns the items from the last to the first, as Python's `reversed` does.
fn backwards(renderer: &Renderer<'_>, value: &Value) -> Result<Iteration> {
    let budget = &renderer.budget;
    Ok(match value {
        Value::List(list) | Value::Tuple(list) => Iteration::Reversed(Rc::clone(list), list.items.len()),
        Value::Iterator(_) => {
            return Err(fault("an iterator has no last item; make a list of it with `list`"));
        }
        other => {
            let list = Iteration::of(other)?.collect(budget)?.finish()?;
            let len = list.items.len();
            Iteration::Reversed(list, len)
        }
    })
}

pub(super) fn list(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("list")?;
    Iteration::of(&value)?.collect(&renderer.budget)?.list()
}

pub(super) fn items(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("items")?;
    match value {
        Value::Undefined(_) => crate::value::Items::new(&renderer.budget)?.iterator(),
        Value::Dict(dict) => {
            Iteration::of(&Value::View(View::Items, dict))?.collect(&renderer.budget)?.iterator()
        }
        other => {
            Err(fault(format!("{} has no pairs of keys and values; `items` needs a dict", other.described())))
        }
    }
}

pub(super) fn join(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [separator, attribute] = arguments.bind("join", ["d", "attribute"])?;
    let separator = match separator {
        Some(value) => renderer.string(&value)?,
        None => Text::template(""),
    };
    let path = attribute_path(&renderer.budget, attribute.as_ref())?;
    let mut rest = Iteration::of(&value)?;
    let mut out = Builder::new(&renderer.budget);
    let mut first = true;
    while let Some(item) = rest.next(&renderer.budget)? {
        if !first {
            out.push(&separator)?;
        }
        first = false;
        if path.is_empty() {
            item.print(&mut out)?;
        } else {
            attribute_at(renderer, &item, &path, None)?.print(&mut out)?;
        }
    }
    Ok(Value::Str(out.finish()))
}

pub(super) fn reverse(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("reverse")?;
    if let Value::Str(text) = &value {
        let mut out = Builder::new(&renderer.budget);
        renderer.budget.read(text.len())?;
        for (at, c) in text.as_str().char_indices().rev() {
            out.push_slice(text, at..at + c.len_utf8())?;
        }
        return Ok(Value::Str(out.finish().as_markup(text.is_markup())));
    }
    if let Value::Iterator(_) = value {
        let mut items = Iteration::of(&value)?.collect(&renderer.budget)?;
        items.values_mut().reverse();
        return items.list();
    }
    let rest = RefCell::new(backwards(renderer, &value)?);
    Ok(Value::Iterator(Rc::new(Iterator { rest, depth: value.depth() })))
}

pub(super) fn sum(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [attribute, start] = arguments.bind("sum", ["attribute", "start"])?;
    let path = attribute_path(&renderer.budget, attribute.as_ref())?;
    let mut sum = start.unwrap_or(Value::Int(0));
    if let Value::Str(_) = sum {
        return Err(fault("`sum` adds no texts; use `join`"));
    }
    let mut rest = Iteration::of(&value)?;
    while let Some(item) = rest.next(&renderer.budget)? {
        sum = renderer.add(&sum, &attribute_at(renderer, &item, &path, None)?)?;
    }
    Ok(sum)
}

pub(super) fn random(_: &Renderer<'_>, _: Value, _: Arguments) -> Result<Value> {
    Err(fault("`random` is not available, since a prompt has to be the same each time"))
}
