//! Filters that put items into groups.

use super::{attribute_at, attribute_path, integer, is_true, sorted, without_case};
use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::value::{Items, Iteration, Value, equal};

/// Splits items into lists of a given length.
pub(super) fn batch(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let budget = &renderer.budget;
    let [count, fill] = arguments.bind("batch", ["linecount", "fill_with"])?;
    let count = count.ok_or_else(|| fault("`batch` needs the number of items"))?;
    let count = usize::try_from(integer("batch", Some(&count), 0)?).ok();
    let mut out = Items::new(budget)?;
    let mut group = Items::new(budget)?;
    let mut rest = Iteration::of(&value)?;
    while let Some(item) = rest.next(budget)? {
        if Some(group.len()) == count {
            out.push(std::mem::replace(&mut group, Items::new(budget)?).list()?)?;
        }
        group.push(item)?;
    }
    if group.len() > 0 {
        if let (Some(fill), Some(count)) = (fill.filter(|fill| !matches!(fill, Value::None)), count) {
            while group.len() < count {
                group.push(fill.clone())?;
            }
        }
        out.push(group.list()?)?;
    }
    out.iterator()
}

/// Splits items into a given number of lists of about the same length.
pub(super) fn slice(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let budget = &renderer.budget;
    let [slices, fill] = arguments.bind("slice", ["slices", "fill_with"])?;
    let slices = slices.ok_or_else(|| fault("`slice` needs the number of lists"))?;
    let slices = integer("slice", Some(&slices), 0)?;
    let items = Iteration::of(&value)?.collect(budget)?;
    if slices == 0 {
        return Err(fault("`slice` can't make zero lists"));
    }
    let slices = usize::try_from(slices).unwrap_or(0);
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let mut out = Items::new(budget)?;
    let (each, longer) = (items.len() / slices.max(1), items.len() % slices.max(1));
    let mut at = 0;
    for number in 0..slices {
        let len = each + usize::from(number < longer);
        let mut group = Items::new(budget)?;
        for item in &items.values()[at..at + len] {
            group.push(item.clone())?;
        }
        at += len;
        if let Some(fill) = &fill
            && number >= longer
        {
            group.push(fill.clone())?;
        }
        out.push(group.list()?)?;
    }
    out.iterator()
}

/// Returns pairs of an attribute's value and the items that have it.
pub(super) fn groupby(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let budget = &renderer.budget;
    let names = ["attribute", "default", "case_sensitive"];
    let [attribute, default, case_sensitive] = arguments.bind("groupby", names)?;
    let attribute = attribute.ok_or_else(|| fault("`groupby` needs an attribute"))?;
    let default = default.filter(|default| !matches!(default, Value::None));
    let case_sensitive = is_true(case_sensitive, false);
    let path = attribute_path(budget, Some(&attribute))?;
    let mut pairs = Vec::new();
    let mut charge = budget.charge(0)?;
    let mut rest = Iteration::of(&value)?;
    while let Some(item) = rest.next(budget)? {
        charge.grow(4 * size_of::<Value>())?;
        let key = attribute_at(renderer, &item, &path, default.as_ref())?;
        pairs.push((if case_sensitive { key } else { without_case(renderer, key)? }, item));
    }
    let pairs = sorted(renderer, pairs, |pair: &(Value, Value)| &pair.0)?;
    let mut out = Items::new(budget)?;
    let mut at = 0;
    while at < pairs.len() {
        let mut group = Items::new(budget)?;
        let key = &pairs[at].0;
        // The group has the spelling of its first item.
        let shown = attribute_at(renderer, &pairs[at].1, &path, default.as_ref())?;
        while at < pairs.len() && equal(budget, key, &pairs[at].0)? {
            group.push(pairs[at].1.clone())?;
            at += 1;
        }
        if group.len() == 0 {
            // A NaN does not even equal itself.
            group.push(pairs[at].1.clone())?;
            at += 1;
        }
        let mut pair = Items::new(budget)?;
        pair.push(shown)?;
        pair.push(group.list()?)?;
        out.push(pair.group()?)?;
    }
    out.list()
}
