//! Equality, order and membership. The origin of text does not matter.

use std::cmp::Ordering;
use std::rc::Rc;

use super::{Iteration, Key, Numeric, StrKey, Value, View};
use crate::budget::Budget;
use crate::error::{Result, fault};

/// Evaluates `left == right`. The nesting of values is limited, so this ends.
pub(crate) fn equal(budget: &Rc<Budget>, left: &Value, right: &Value) -> Result<bool> {
    budget.step(1)?;
    budget.check_stack()?;
    Ok(match (left, right) {
        (Value::View(View::Keys, a), Value::View(View::Keys, b)) => {
            budget.step(a.map.len() as u64)?;
            a.map.len() == b.map.len() && a.map.keys().all(|key| b.map.contains_key(key))
        }
        (Value::Str(a), Value::Str(b)) => {
            if a.len() == b.len() {
                budget.read(a.len())?;
            }
            a == b
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            if Rc::ptr_eq(a, b) {
                return Ok(true);
            }
            if a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(budget, a, b)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if Rc::ptr_eq(a, b) {
                return Ok(true);
            }
            if a.map.len() != b.map.len() {
                return Ok(false);
            }
            for (key, value) in &a.map {
                let Some(other) = b.map.get(key) else { return Ok(false) };
                if !equal(budget, value, other)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Range(a), Value::Range(b)) => {
            let len = a.len();
            len == b.len() && (len == 0 || a.start == b.start) && (len < 2 || a.step == b.step)
        }
        (a, b) => equal_scalars(a, b),
    })
}

/// Compares dict keys.
pub(super) fn equal_keys(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Tuple(a), Value::Tuple(b)) => {
            a.items.len() == b.items.len() && a.items.iter().zip(&b.items).all(|(a, b)| equal_keys(a, b))
        }
        (Value::Method(a, name), Value::Method(b, other)) => {
            name == other && (Rc::ptr_eq(a, b) || same(a, b))
        }
        // All NaNs are one key, although in Python each NaN object is its own: otherwise a template could
        // fill a dict with keys that all have the same hash.
        (Value::Float(a), Value::Float(b)) if a.is_nan() && b.is_nan() => true,
        (a, b) => equal_scalars(a, b),
    }
}

fn equal_scalars(left: &Value, right: &Value) -> bool {
    if let (Some(a), Some(b)) = (Numeric::of(left), Numeric::of(right)) {
        return a.order(b) == Some(Ordering::Equal);
    }
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) => true,
        (a, b) => same(a, b),
    }
}

/// Evaluates `left is right`.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a.same_object(b) || (a.chars() < 2 && a == b),
        (Value::Undefined(a), Value::Undefined(b)) => Rc::ptr_eq(a, b),
        (Value::List(a), Value::List(b)) => Rc::ptr_eq(a, b),
        (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b) || (a.items.is_empty() && b.items.is_empty()),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Range(a), Value::Range(b)) => Rc::ptr_eq(a, b),
        (Value::Iterator(a), Value::Iterator(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Function(a), Value::Function(b)) => a == b,
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        (Value::Method(a, name), Value::Method(b, other)) => name == other && same(a, b),
        _ => false,
    }
}

/// Returns the order of two values; `None` if one is NaN.
///
/// # Errors
/// Types that have no order, or not with each other.
pub(crate) fn order(budget: &Rc<Budget>, left: &Value, right: &Value) -> Result<Option<Ordering>> {
    budget.step(1)?;
    budget.check_stack()?;
    if let (Some(a), Some(b)) = (Numeric::of(left), Numeric::of(right)) {
        return Ok(a.order(b));
    }
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => {
            budget.read(a.len().min(b.len()))?;
            Ok(Some(a.as_str().cmp(b.as_str())))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(budget, a, b)? {
                    return order(budget, a, b);
                }
            }
            Ok(Some(a.items.len().cmp(&b.items.len())))
        }
        _ => Err(fault(format!(
            "{} and {} have no order; compare values of one type",
            left.described(),
            right.described()
        ))),
    }
}

/// Evaluates `item in container`.
///
/// # Errors
/// The container has no items, or cannot contain items of this type.
pub(crate) fn contains(budget: &Rc<Budget>, container: &Value, item: &Value) -> Result<bool> {
    match container {
        Value::Str(text) => {
            let Value::Str(part) = item else {
                return Err(fault(format!(
                    "{} can't be in a text; convert it with `string`",
                    item.described()
                )));
            };
            budget.read(text.len())?;
            Ok(text.as_str().contains(part.as_str()))
        }
        Value::Dict(dict) | Value::View(View::Keys, dict) => match item {
            Value::Str(text) => {
                budget.read(text.len())?;
                Ok(dict.map.contains_key(&StrKey(text.as_str())))
            }
            other => Ok(dict.map.contains_key(&Key::new(budget, other.clone())?)),
        },
        Value::Range(range) => Ok(match Numeric::of(item).and_then(Numeric::whole) {
            Some(n) => {
                let len = range.len();
                let inside = if range.step > 0 {
                    (range.start..range.stop).contains(&n)
                } else {
                    n <= range.start && n > range.stop
                };
                len > 0 && inside && n.abs_diff(range.start) % range.step.unsigned_abs() == 0
            }
            None => false,
        }),
        other => {
            let mut rest = Iteration::of(other)?;
            while let Some(next) = rest.next(budget)? {
                if same(&next, item) || equal(budget, &next, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}
