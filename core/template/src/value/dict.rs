//! Dicts: keys in the order of their insertion, equal by Python's rules (`1`, `1.0` and `True` are one key).

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::{Equivalent, IndexMap};

use super::{Value, compare, deeper};
use crate::budget::{Budget, Charge};
use crate::error::{Result, fault};
use crate::text::Text;

/// Bytes per entry, including its place in the table.
const ENTRY: usize = 2 * size_of::<Value>() + 24;

/// An immutable dict.
pub(crate) struct Dict {
    pub(crate) map: IndexMap<Key, Value>,
    depth: u32,
    _charge: Option<Charge>,
}

impl Dict {
    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(&StrKey(key))
    }

    /// Makes a dict of the input's values. It is not charged, because the caller holds the input anyway.
    pub(crate) fn of_input(map: IndexMap<Key, Value>) -> Result<Value> {
        let depth = deeper(map.values().map(Value::depth).max().unwrap_or(0))?;
        Ok(Value::Dict(Rc::new(Self { map, depth, _charge: None })))
    }

    /// Makes a dict of charged entries.
    pub(crate) fn of_entries(
        budget: &Rc<Budget>,
        entries: impl IntoIterator<Item = (Value, Value)>,
    ) -> Result<Value> {
        let mut charge = budget.charge(size_of::<Self>())?;
        let mut map = IndexMap::new();
        let mut depth = 0;
        for (key, value) in entries {
            budget.step(1)?;
            charge.grow(ENTRY)?;
            depth = depth.max(key.depth()).max(value.depth());
            map.insert(Key::new(budget, key)?, value);
        }
        Ok(Value::Dict(Rc::new(Self { map, depth: deeper(depth)?, _charge: Some(charge) })))
    }
}

/// A value that can be a dict key.
pub(crate) struct Key(Value);

impl Key {
    /// Checks that a value can be a key.
    ///
    /// # Errors
    /// Lists, dicts and values that contain them cannot be keys, nor can tuples that take too many steps to
    /// traverse.
    pub(crate) fn new(budget: &Budget, value: Value) -> Result<Self> {
        if is_hashable(budget, &value)? {
            return Ok(Self(value));
        }
        Err(fault(format!("{} can't be a dict's key; use text or a number", value.described())))
    }

    /// Makes a key of a text.
    pub(crate) fn text(text: Text) -> Self {
        Self(Value::Str(text))
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }
}

/// Returns whether the value can be a key. Also takes the steps of hashing and comparing it.
fn is_hashable(budget: &Budget, value: &Value) -> Result<bool> {
    budget.step(1)?;
    budget.check_stack()?;
    Ok(match value {
        Value::List(_) | Value::Dict(_) | Value::View(..) => false,
        Value::Str(text) => {
            budget.read(text.len())?;
            true
        }
        Value::Tuple(items) => {
            for item in &items.items {
                if !is_hashable(budget, item)? {
                    return Ok(false);
                }
            }
            true
        }
        _ => true,
    })
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        compare::equal_keys(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(&self.0, state);
    }
}

fn hash<H: Hasher>(value: &Value, state: &mut H) {
    match value {
        Value::Str(text) => StrKey(text.as_str()).hash(state),
        Value::Bool(b) => hash(&Value::Int(i128::from(*b)), state),
        Value::Int(n) => (1u8, *n).hash(state),
        Value::Float(n) if n.fract() == 0.0 && n.abs() < 1e38 => hash(&Value::Int(*n as i128), state),
        Value::Float(n) if n.is_nan() => 2u8.hash(state),
        Value::Float(n) => (3u8, n.to_bits()).hash(state),
        Value::Tuple(items) => {
            4u8.hash(state);
            items.items.iter().for_each(|item| hash(item, state));
        }
        other => (5u8, other.type_name(), place(other)).hash(state),
    }
}

/// Returns the address of the object that a value refers to, as a hash for values that are equal only if they
/// are the same object. All other values return 0; only one value of each such type exists.
fn place(value: &Value) -> usize {
    match value {
        Value::Range(this) => Rc::as_ptr(this).addr(),
        Value::Iterator(this) => Rc::as_ptr(this).addr(),
        Value::Namespace(this) => Rc::as_ptr(this).addr(),
        Value::Loop(this) => Rc::as_ptr(this).addr(),
        Value::Macro(this) => Rc::as_ptr(this).addr(),
        Value::Cycler(this) => Rc::as_ptr(this).addr(),
        Value::Joiner(this) => Rc::as_ptr(this).addr(),
        Value::Function(this) => *this as usize,
        Value::Method(of, name) => match &**of {
            Value::Str(text) if text.chars() < 2 => text.as_str().chars().next().map_or(0, |c| c as usize),
            Value::Str(text) => text.object(),
            Value::List(this) => Rc::as_ptr(this).addr(),
            Value::Tuple(this) if !this.items.is_empty() => Rc::as_ptr(this).addr(),
            Value::Dict(this) => Rc::as_ptr(this).addr(),
            Value::Int(n) => *n as usize,
            Value::Float(_) => Rc::as_ptr(of).addr(),
            other => place(other),
        }
        .wrapping_add(name.len()),
        _ => 0,
    }
}

/// A text to look up as a key.
pub(crate) struct StrKey<'a>(pub(crate) &'a str);

impl Hash for StrKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        0u8.hash(state);
        self.0.hash(state);
    }
}

impl Equivalent<Key> for StrKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        key.0.as_str() == Some(self.0)
    }
}
