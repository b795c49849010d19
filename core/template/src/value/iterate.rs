//! Iteration over a value's items.

use std::rc::Rc;

use super::{Dict, Items, Iterator, List, Range, Value, View, pair};
use crate::budget::Budget;
use crate::error::{Result, fault};
use crate::text::Text;

/// The remaining items of an iteration.
pub(crate) enum Iteration {
    Empty,
    List(Rc<List>, usize),
    /// Backwards from the index.
    Reversed(Rc<List>, usize),
    Dict(View, Rc<Dict>, usize),
    /// The characters from a byte on, and the number of characters before it.
    Text(Text, usize, usize),
    Range(Range, u128),
    Shared(Rc<Iterator>),
}

impl Iteration {
    /// Returns the items of a value.
    ///
    /// # Errors
    /// The value has no items.
    pub(crate) fn of(value: &Value) -> Result<Self> {
        Self::maybe(value)
            .ok_or_else(|| fault(format!("{} can't be gone through; it has no items", value.described())))
    }

    /// Returns the items of a value, if it has any.
    pub(crate) fn maybe(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Undefined(_) => Self::Empty,
            Value::Str(text) => Self::Text(text.clone(), 0, 0),
            Value::List(list) | Value::Tuple(list) => Self::List(Rc::clone(list), 0),
            Value::Dict(dict) => Self::Dict(View::Keys, Rc::clone(dict), 0),
            Value::View(view, dict) => Self::Dict(*view, Rc::clone(dict), 0),
            Value::Range(range) => Self::Range(**range, 0),
            Value::Iterator(iterator) => Self::Shared(Rc::clone(iterator)),
            _ => return None,
        })
    }

    pub(crate) fn next(&mut self, budget: &Rc<Budget>) -> Result<Option<Value>> {
        budget.step(1)?;
        Ok(match self {
            Self::Empty => None,
            Self::List(list, at) => {
                let item = list.items.get(*at).cloned();
                *at += 1;
                item
            }
            Self::Reversed(list, left) => match left.checked_sub(1) {
                Some(at) => {
                    *left = at;
                    list.items.get(at).cloned()
                }
                None => None,
            },
            Self::Dict(view, dict, at) => {
                let item = dict.map.get_index(*at);
                *at += 1;
                match (item, view) {
                    (None, _) => None,
                    (Some((key, _)), View::Keys) => Some(key.value().clone()),
                    (Some((_, value)), View::Values) => Some(value.clone()),
                    (Some((key, value)), View::Items) => {
                        Some(pair(budget, key.value().clone(), value.clone())?)
                    }
                }
            }
            Self::Text(text, at, index) => match text.as_str()[*at..].chars().next() {
                Some(c) => {
                    let range = *at..*at + c.len_utf8();
                    *at = range.end;
                    *index += 1;
                    Some(Value::Str(text.slice(budget, range)?.as_markup(text.is_markup())))
                }
                None => None,
            },
            Self::Range(range, at) => {
                let item = (*at < range.len()).then(|| Value::Int(range.item(*at)));
                *at += 1;
                item
            }
            // The inner iteration is never a shared one itself, so this recurses at most once.
            Self::Shared(iterator) => match iterator.rest.try_borrow_mut() {
                Ok(mut rest) => rest.next(budget)?,
                Err(_) => None,
            },
        })
    }

    /// Returns the number of remaining items, if it is known without iterating.
    pub(crate) fn left(&self) -> Option<usize> {
        Some(match self {
            Self::Empty => 0,
            Self::List(list, at) => list.items.len().saturating_sub(*at),
            Self::Reversed(_, left) => *left,
            Self::Dict(_, dict, at) => dict.map.len().saturating_sub(*at),
            Self::Text(text, _, index) => text.chars().saturating_sub(*index),
            Self::Range(range, at) => usize::try_from(range.len().saturating_sub(*at)).ok()?,
            Self::Shared(_) => return None,
        })
    }

    /// Collects the remaining items in a list.
    pub(crate) fn collect(mut self, budget: &Rc<Budget>) -> Result<Items> {
        let mut items = Items::new(budget)?;
        while let Some(item) = self.next(budget)? {
            items.push(item)?;
        }
        Ok(items)
    }
}
