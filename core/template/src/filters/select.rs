//! The filters `map` and `select`, with the variants of `select`.

use super::{attribute_at, attribute_path, call};
use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::tests;
use crate::value::{Items, Iteration, Value};

/// Returns the items with a filter applied to each, or an attribute of each.
pub(super) fn map(renderer: &Renderer<'_>, value: Value, mut arguments: Arguments) -> Result<Value> {
    let mut out = Items::new(&renderer.budget)?;
    if !value.is_true() {
        return out.iterator();
    }
    let mut rest = Iteration::of(&value)?;
    let attribute = if arguments.positional.is_empty() { arguments.take_named("attribute") } else { None };
    if let Some(attribute) = attribute {
        let default = arguments.take_named("default");
        arguments.none("map")?;
        let path = attribute_path(&renderer.budget, Some(&attribute))?;
        // A default of `none` counts as no default.
        let default = default.filter(|default| !matches!(default, Value::None));
        while let Some(item) = rest.next(&renderer.budget)? {
            out.push(attribute_at(renderer, &item, &path, default.as_ref())?)?;
        }
        return out.iterator();
    }
    let Some((name, positional)) = arguments.positional.split_first() else {
        return Err(fault("`map` needs the name of a filter, or `attribute`"));
    };
    while let Some(item) = rest.next(&renderer.budget)? {
        let mut passed = Arguments::of(positional.to_vec());
        passed.named.clone_from(&arguments.named);
        out.push(call(renderer, name, item, passed)?)?;
    }
    out.iterator()
}

/// Returns the items that pass a test (or fail it, unless `wanted`), or those with an attribute that does.
pub(super) fn select(
    renderer: &Renderer<'_>,
    value: Value,
    arguments: Arguments,
    wanted: bool,
    by_attribute: bool,
) -> Result<Value> {
    let mut out = Items::new(&renderer.budget)?;
    if !value.is_true() {
        return out.iterator();
    }
    if !arguments.named.is_empty() {
        return Err(fault("a selection takes no named arguments"));
    }
    let mut positional = arguments.positional.as_slice();
    let mut path = Vec::new();
    if by_attribute {
        let Some((attribute, after)) = positional.split_first() else {
            return Err(fault("a selection by attribute needs the attribute's name"));
        };
        path = attribute_path(&renderer.budget, Some(attribute))?;
        positional = after;
    }
    let mut rest = Iteration::of(&value)?;
    while let Some(item) = rest.next(&renderer.budget)? {
        let tested = attribute_at(renderer, &item, &path, None)?;
        let passed = match positional.split_first() {
            Some((name, arguments)) => tests::call(renderer, name, &tested, arguments.to_vec())?,
            None => tested.is_true(),
        };
        if passed == wanted {
            out.push(item)?;
        }
    }
    out.iterator()
}
