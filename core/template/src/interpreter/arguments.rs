//! Arguments of calls, filters and tests.

use std::rc::Rc;

use super::{Renderer, Scope};
use crate::ast;
use crate::budget::Charge;
use crate::error::{Result, fault};
use crate::text::Text;
use crate::value::{Iteration, Value};

/// Evaluated arguments.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(Text, Value)>,
    charge: Option<Charge>,
}

impl Arguments {
    pub(crate) fn of(positional: Vec<Value>) -> Self {
        Self { positional, named: Vec::new(), charge: None }
    }

    /// Returns the arguments in the order of `names`; absent ones are `None`.
    ///
    /// # Errors
    /// Too many arguments, one given twice, or one with another name.
    pub(crate) fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        let mut bound: [Option<Value>; N] = std::array::from_fn(|_| None);
        let given = self.positional.len();
        if given > N {
            let accepted = match N {
                0 => "none".to_owned(),
                _ => format!("{N} at most ({})", names.join(", ")),
            };
            return Err(fault(format!("`{what}` is given {given} arguments; it takes {accepted}")));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = names.iter().position(|this| *this == name.as_str()) else {
                let name: String = name.as_str().chars().take(60).collect();
                return Err(fault(format!("`{what}` has no argument `{name}`")));
            };
            if bound[at].is_some() {
                return Err(fault(format!("`{what}` is given `{}` twice", names[at])));
            }
            bound[at] = Some(value);
        }
        Ok(bound)
    }

    /// Refuses all arguments.
    pub(crate) fn none(self, what: &str) -> Result<()> {
        self.bind(what, []).map(|_: [_; 0]| ())
    }

    /// Removes and returns a named argument.
    pub(crate) fn take_named(&mut self, name: &str) -> Option<Value> {
        let at = self.named.iter().position(|(this, _)| this.as_str() == name)?;
        Some(self.named.remove(at).1)
    }
}

impl Renderer<'_> {
    /// Evaluates the arguments of a call.
    pub(super) fn arguments(&self, arguments: &ast::Arguments, scope: &Rc<Scope>) -> Result<Arguments> {
        let mut out = Arguments::default();
        for value in &arguments.positional {
            out.positional.push(self.eval(value, scope)?);
        }
        for (name, value) in &arguments.named {
            out.named.push((self.text(*name).clone(), self.eval(value, scope)?));
        }
        if arguments.list.is_none() && arguments.dict.is_none() {
            return Ok(out);
        }
        let mut charge = self.budget.charge(0)?;
        if let Some(list) = &arguments.list {
            let mut rest = Iteration::of(&self.eval(list, scope)?)?;
            while let Some(value) = rest.next(&self.budget)? {
                charge.grow(size_of::<Value>())?;
                out.positional.push(value);
            }
        }
        if let Some(dict) = &arguments.dict {
            let value = self.eval(dict, scope)?;
            let Value::Dict(dict) = &value else {
                return Err(fault(format!("{} behind `**`, where a dict is needed", value.described())));
            };
            for (key, value) in &dict.map {
                charge.grow(2 * size_of::<Value>())?;
                let Value::Str(name) = key.value() else {
                    return Err(fault("the keys of a dict behind `**` have to be texts"));
                };
                if out.named.iter().any(|(this, _)| this == name) {
                    return Err(fault("the same argument is given twice"));
                }
                self.budget.step(out.named.len() as u64 / 16)?;
                out.named.push((name.clone(), value.clone()));
            }
        }
        out.charge = Some(charge);
        Ok(out)
    }
}
