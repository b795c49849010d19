//! Attributes and items, `value.name` and `value[index]`, within Jinja's sandbox.

use std::rc::Rc;

use super::Renderer;
use crate::error::{Error, Result, fault};
use crate::methods;
use crate::text::{Builder, Text};
use crate::value::{Key, Missing, StrKey, Value};

/// The result of looking up a Python attribute.
enum Found {
    Value(Value),
    /// The attribute exists, but the sandbox hides it.
    Unsafe,
    Nothing,
}

impl Renderer<'_> {
    /// Returns the method named `name`, if the value's type has it and templates may use it.
    pub(super) fn method(&self, value: &Value, name: &str) -> Option<&'static str> {
        if matches!(value, Value::Namespace(_) | Value::Loop(_)) {
            return None;
        }
        methods::find(value, name)
    }

    /// Evaluates `value.name`: an attribute, or else an item.
    pub(crate) fn attribute(&self, value: &Value, name: &Text) -> Result<Value> {
        self.budget.read(name.len())?;
        if let Value::Undefined(missing) = value {
            return Err(fault(missing.message()));
        }
        let of = value.type_name();
        match self.python_attribute(value, name.as_str())? {
            Found::Value(found) => return Ok(found),
            Found::Unsafe => return Ok(Value::undefined(Missing::Unsafe { of, name: name.clone() })),
            Found::Nothing => {}
        }
        if let Value::Dict(dict) = value
            && let Some(item) = dict.get(name.as_str())
        {
            return Ok(item.clone());
        }
        Ok(Value::undefined(Missing::Attribute { of, name: name.clone() }))
    }

    /// Evaluates an attribute, never an item.
    pub(crate) fn attribute_only(&self, value: &Value, name: &Text) -> Result<Value> {
        self.budget.read(name.len())?;
        if let Value::Undefined(missing) = value {
            return Err(fault(missing.message()));
        }
        let of = value.type_name();
        Ok(match self.python_attribute(value, name.as_str())? {
            Found::Value(found) => found,
            Found::Unsafe => Value::undefined(Missing::Unsafe { of, name: name.clone() }),
            Found::Nothing => Value::undefined(Missing::Attribute { of, name: name.clone() }),
        })
    }

    /// Evaluates `value[index]`: an item, or else an attribute.
    pub(crate) fn item(&self, value: &Value, index: &Value) -> Result<Value> {
        let of = value.type_name();
        match value {
            Value::Undefined(missing) => return Err(fault(missing.message())),
            Value::Dict(dict) => {
                let found = match index {
                    Value::Str(text) => {
                        self.budget.read(text.len())?;
                        dict.map.get(&StrKey(text.as_str()))
                    }
                    other => match Key::new(&self.budget, other.clone()) {
                        Ok(key) => dict.map.get(&key),
                        Err(Error::Render { .. }) => None,
                        Err(limit) => return Err(limit),
                    },
                };
                if let Some(found) = found {
                    return Ok(found.clone());
                }
            }
            Value::Str(text) => {
                let at = index.as_int().and_then(|index| position(index, text.chars()));
                if let Some(at) = at {
                    if !text.is_ascii() {
                        self.budget.read(text.len())?;
                    }
                    let from = text.byte_of(at);
                    let to = from + text.as_str()[from..].chars().next().map_or(0, char::len_utf8);
                    return text.slice(&self.budget, from..to).map(Value::Str);
                }
            }
            Value::List(list) | Value::Tuple(list) => {
                let at = index.as_int().and_then(|index| position(index, list.items.len()));
                if let Some(item) = at.and_then(|at| list.items.get(at)) {
                    return Ok(item.clone());
                }
            }
            Value::Range(range) => {
                let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
                if let Some(at) = index.as_int().and_then(|index| position(index, len)) {
                    return Ok(Value::Int(range.item(at as u128)));
                }
            }
            _ => {}
        }
        let Value::Str(name) = index else { return Ok(Value::undefined(Missing::Item { of })) };
        self.budget.read(name.len())?;
        Ok(match self.python_attribute(value, name.as_str())? {
            Found::Value(found) => found,
            Found::Unsafe => Value::undefined(Missing::Unsafe { of, name: name.clone() }),
            Found::Nothing => Value::undefined(Missing::Attribute { of, name: name.clone() }),
        })
    }

    /// Copies a text of the template that may be long.
    fn copied(&self, text: &str) -> Result<Value> {
        let mut out = Builder::new(&self.budget);
        out.push_str(text)?;
        Ok(Value::Str(out.finish()))
    }

    /// Looks up an attribute like Python's `getattr`.
    fn python_attribute(&self, value: &Value, name: &str) -> Result<Found> {
        if let Value::Namespace(namespace) = value {
            let attributes = namespace.attributes.borrow();
            if let Some(found) = attributes.get(&StrKey(name)) {
                return Ok(if name.starts_with('_') { Found::Unsafe } else { Found::Value(found.clone()) });
            }
        }
        if name.starts_with("__") {
            let has = methods::is_dunder(name);
            return Ok(if has { Found::Unsafe } else { Found::Nothing });
        }
        let found = match value {
            Value::Loop(state) => self.loop_attribute(state, name)?,
            Value::Macro(this) => match name {
                "name" => Some(match &this.definition.name {
                    Some(name) => self.copied(name)?,
                    None => Value::None,
                }),
                "catch_kwargs" => Some(Value::Bool(this.definition.takes_kwargs)),
                "catch_varargs" => Some(Value::Bool(this.definition.takes_varargs)),
                "caller" => Some(Value::Bool(this.definition.takes_caller)),
                "arguments" => {
                    let mut items = crate::value::Items::new(&self.budget)?;
                    for parameter in &this.definition.parameters {
                        items.push(self.copied(&parameter.name)?)?;
                    }
                    Some(items.tuple()?)
                }
                _ => None,
            },
            Value::Cycler(cycler) => match name {
                "current" => cycler.current(),
                _ => None,
            },
            Value::Joiner(joiner) => match name {
                "sep" => Some(Value::Str(joiner.separator.clone())),
                "used" => Some(Value::Bool(joiner.used.get())),
                _ => None,
            },
            Value::Tuple(list) if list.group => match name {
                "grouper" => list.items.first().cloned(),
                "list" => list.items.get(1).cloned(),
                _ => None,
            },
            Value::Range(range) => match name {
                "start" => Some(Value::Int(range.start)),
                "stop" => Some(Value::Int(range.stop)),
                "step" => Some(Value::Int(range.step)),
                _ => None,
            },
            Value::Bool(_) | Value::Int(_) => match (name, value.as_int()) {
                ("real" | "numerator", Some(n)) => Some(Value::Int(n)),
                ("imag", _) => Some(Value::Int(0)),
                ("denominator", _) => Some(Value::Int(1)),
                _ => None,
            },
            Value::Float(n) => match name {
                "real" => Some(Value::Float(*n)),
                "imag" => Some(Value::Float(0.0)),
                _ => None,
            },
            _ => None,
        };
        if let Some(found) = found {
            return Ok(Found::Value(found));
        }
        if let Some(method) = methods::find(value, name) {
            return Ok(Found::Value(Value::Method(Rc::new(value.clone()), method)));
        }
        Ok(if methods::is_refused(value, name) { Found::Unsafe } else { Found::Nothing })
    }
}

/// Returns the position of an index, which counts from the end if it is negative.
pub(super) fn position(index: i128, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i128 } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}
