//! Filters that compare items.

use std::cmp::Ordering;

use indexmap::IndexSet;

use super::{attribute_at, attribute_path, is_true, without_case};
use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::value::{Items, Iteration, Key, Missing, Value, View, order};

/// Sorts items by their keys; items with equal keys keep their order.
///
/// # Errors
/// Keys that cannot be compared.
pub(crate) fn sorted<T: Clone>(
    renderer: &Renderer<'_>,
    items: Vec<T>,
    key: impl Fn(&T) -> &Value + Copy,
) -> Result<Vec<T>> {
    // A merge sort of our own: the standard one may panic if the order is not total, as with NaN.
    let mut items = items;
    let mut width = 1;
    while width < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        for run in items.chunks(width * 2) {
            let (left, right) = run.split_at(width.min(run.len()));
            let (mut i, mut j) = (0, 0);
            while i < left.len() && j < right.len() {
                let less = order(&renderer.budget, key(&right[j]), key(&left[i]))? == Some(Ordering::Less);
                let next = if less { &right[j] } else { &left[i] };
                merged.push(next.clone());
                if less { j += 1 } else { i += 1 }
            }
            merged.extend_from_slice(&left[i..]);
            merged.extend_from_slice(&right[j..]);
        }
        items = merged;
        width *= 2;
    }
    Ok(items)
}

/// Sorts pairs of a key and an item, and returns the items.
fn sort_pairs(renderer: &Renderer<'_>, mut pairs: Vec<(Value, Value)>, reverse: bool) -> Result<Items> {
    // Reversing before and after the sort keeps the order of items with equal keys.
    if reverse {
        pairs.reverse();
    }
    let mut pairs = sorted(renderer, pairs, |pair| &pair.0)?;
    if reverse {
        pairs.reverse();
    }
    let mut items = Items::new(&renderer.budget)?;
    pairs.into_iter().try_for_each(|(_, item)| items.push(item))?;
    Ok(items)
}

pub(super) fn sort(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let names = ["reverse", "case_sensitive", "attribute"];
    let [reverse, case_sensitive, attribute] = arguments.bind("sort", names)?;
    let case_sensitive = is_true(case_sensitive, false);
    // Several attributes may be given, separated by commas.
    let paths: Vec<Vec<Value>> = match &attribute {
        Some(Value::Str(text)) => {
            let parts = text.as_str().split(',').take(100);
            parts
                .map(|part| attribute_path(&renderer.budget, Some(&Value::text(part))))
                .collect::<Result<_>>()?
        }
        other => vec![attribute_path(&renderer.budget, other.as_ref())?],
    };
    let mut pairs = Vec::new();
    let mut charge = renderer.budget.charge(0)?;
    let mut rest = Iteration::of(&value)?;
    while let Some(item) = rest.next(&renderer.budget)? {
        charge.grow(4 * size_of::<Value>())?;
        let mut keys = Items::new(&renderer.budget)?;
        for path in &paths {
            let key = attribute_at(renderer, &item, path, None)?;
            keys.push(if case_sensitive { key } else { without_case(renderer, key)? })?;
        }
        let key = match keys.values() {
            [key] => key.clone(),
            _ => keys.list()?,
        };
        pairs.push((key, item));
    }
    sort_pairs(renderer, pairs, is_true(reverse, false))?.list()
}

pub(super) fn dictsort(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [case_sensitive, by, reverse] = arguments.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let place = match by.as_ref().map(|by| by.as_str()) {
        None | Some(Some("key")) => 0,
        Some(Some("value")) => 1,
        _ => return Err(fault("`dictsort` sorts by 'key' or 'value'")),
    };
    let case_sensitive = is_true(case_sensitive, false);
    let Value::Dict(dict) = &value else {
        return Err(fault(format!("{} can't be sorted as a dict", value.described())));
    };
    let mut pairs = Vec::new();
    let _pairs = renderer.budget.charge(dict.map.len() * 4 * size_of::<Value>())?;
    let mut rest = Iteration::of(&Value::View(View::Items, std::rc::Rc::clone(dict)))?;
    while let Some(item) = rest.next(&renderer.budget)? {
        let key = renderer.item(&item, &Value::Int(place))?;
        pairs.push((if case_sensitive { key } else { without_case(renderer, key)? }, item));
    }
    sort_pairs(renderer, pairs, is_true(reverse, false))?.list()
}

pub(super) fn unique(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [case_sensitive, attribute] = arguments.bind("unique", ["case_sensitive", "attribute"])?;
    let case_sensitive = is_true(case_sensitive, false);
    let path = attribute_path(&renderer.budget, attribute.as_ref())?;
    let mut seen = IndexSet::new();
    let mut out = Items::new(&renderer.budget)?;
    let mut charge = renderer.budget.charge(0)?;
    let mut rest = Iteration::of(&value)?;
    while let Some(item) = rest.next(&renderer.budget)? {
        let key = attribute_at(renderer, &item, &path, None)?;
        let key = if case_sensitive { key } else { without_case(renderer, key)? };
        charge.grow(2 * size_of::<Value>())?;
        if seen.insert(Key::new(&renderer.budget, key)?) {
            out.push(item)?;
        }
    }
    out.iterator()
}

pub(super) fn min(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    extreme(renderer, &value, arguments, "min", Ordering::Less)
}

pub(super) fn max(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    extreme(renderer, &value, arguments, "max", Ordering::Greater)
}

fn extreme(
    renderer: &Renderer<'_>,
    value: &Value,
    arguments: Arguments,
    name: &str,
    better: Ordering,
) -> Result<Value> {
    let [case_sensitive, attribute] = arguments.bind(name, ["case_sensitive", "attribute"])?;
    let case_sensitive = is_true(case_sensitive, false);
    let path = attribute_path(&renderer.budget, attribute.as_ref())?;
    let mut best: Option<(Value, Value)> = None;
    let mut rest = Iteration::of(value)?;
    while let Some(item) = rest.next(&renderer.budget)? {
        let key = attribute_at(renderer, &item, &path, None)?;
        let key = if case_sensitive { key } else { without_case(renderer, key)? };
        let is_better = match &best {
            Some((best, _)) => order(&renderer.budget, &key, best)? == Some(better),
            None => true,
        };
        if is_better {
            best = Some((key, item));
        }
    }
    let none = || Value::undefined(Missing::Reason("the smallest or largest of no items is undefined"));
    Ok(best.map_or_else(none, |(_, item)| item))
}
