//! The global functions of every template.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use indexmap::IndexMap;

use crate::error::{Error, Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::strftime;
use crate::text::Text;
use crate::value::{Dict, Items, Iteration, Key, List, Namespace, Range, Value};

/// Most numbers in a range, the same limit as Jinja's sandbox.
const RANGE_LIMIT: u128 = 100_000;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    Lipsum,
    RaiseException,
    StrftimeNow,
}

impl Function {
    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "range" => Self::Range,
            "dict" => Self::Dict,
            "namespace" => Self::Namespace,
            "cycler" => Self::Cycler,
            "joiner" => Self::Joiner,
            "lipsum" => Self::Lipsum,
            "raise_exception" => Self::RaiseException,
            "strftime_now" => Self::StrftimeNow,
            _ => return None,
        })
    }

    pub(crate) fn call(self, renderer: &Renderer<'_>, arguments: Arguments) -> Result<Value> {
        match self {
            Self::Range => range(arguments),
            Self::Dict => {
                let entries = entries(renderer, "dict", arguments)?;
                Dict::of_entries(&renderer.budget, entries)
            }
            Self::Namespace => {
                let mut charge = renderer.budget.charge(size_of::<Namespace>())?;
                let mut attributes = IndexMap::new();
                for (key, value) in entries(renderer, "namespace", arguments)? {
                    charge.grow(3 * size_of::<Value>())?;
                    attributes.insert(Key::new(&renderer.budget, key)?, value);
                }
                let attributes = RefCell::new(attributes);
                let namespace = Rc::new(Namespace { attributes, charge: RefCell::new(charge) });
                renderer.keep_namespace(&namespace);
                Ok(Value::Namespace(namespace))
            }
            Self::Cycler => {
                if arguments.positional.is_empty() || !arguments.named.is_empty() {
                    return Err(fault("`cycler` needs values to take turns with"));
                }
                let mut items = Items::new(&renderer.budget)?;
                arguments.positional.into_iter().try_for_each(|value| items.push(value))?;
                Ok(Value::Cycler(Rc::new(Cycler { items: items.finish()?, at: Cell::new(0) })))
            }
            Self::Joiner => {
                let [separator] = arguments.bind("joiner", ["sep"])?;
                let separator = match separator {
                    Some(value) => renderer.string(&value)?,
                    None => Text::template(", "),
                };
                Ok(Value::Joiner(Rc::new(Joiner { separator, used: Cell::new(false) })))
            }
            Self::Lipsum => {
                Err(fault("`lipsum` makes up text at random, and a prompt has to be the same each time"))
            }
            Self::RaiseException => {
                let [message] = arguments.bind("raise_exception", ["message"])?;
                let message = message.ok_or_else(|| fault("`raise_exception` needs a message"))?;
                Err(Error::Raised(renderer.string(&message)?.as_str().to_owned()))
            }
            Self::StrftimeNow => {
                let [format] = arguments.bind("strftime_now", ["format"])?;
                let Some(Value::Str(format)) = format else {
                    return Err(fault("`strftime_now` needs a format, such as '%d %b %Y'"));
                };
                renderer.budget.read(format.len())?;
                strftime::format(renderer, &format, renderer.now()).map(Value::Str)
            }
        }
    }
}

fn range(arguments: Arguments) -> Result<Value> {
    if !arguments.named.is_empty() {
        return Err(fault("`range` takes no named arguments"));
    }
    let mut numbers = Vec::new();
    for value in &arguments.positional {
        let number = value.as_int();
        numbers.push(
            number.ok_or_else(|| {
                fault(format!("{} in `range`, where an integer is needed", value.described()))
            })?,
        );
    }
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [_, _, 0] => return Err(fault("the step of a range can't be zero")),
        [start, stop, step] => (start, stop, step),
        _ => return Err(fault("`range` takes one to three integers: (start,) stop (, step)")),
    };
    let range = Range { start, stop, step };
    if range.len() > RANGE_LIMIT {
        return Err(fault(format!("a range of more than {RANGE_LIMIT} numbers")));
    }
    Ok(Value::Range(Rc::new(range)))
}

/// Returns the entries of `dict(…)`.
fn entries(renderer: &Renderer<'_>, what: &str, arguments: Arguments) -> Result<Vec<(Value, Value)>> {
    let mut entries = Vec::new();
    let mut charge = renderer.budget.charge(0)?;
    let mut push = |key: Value, value: Value| {
        charge.grow(2 * size_of::<Value>())?;
        entries.push((key, value));
        Ok(())
    };
    if arguments.positional.len() > 1 {
        return Err(fault(format!("`{what}` takes one argument without a name at most")));
    }
    match arguments.positional.into_iter().next() {
        None => {}
        Some(Value::Dict(dict)) => {
            dict.map.iter().try_for_each(|(key, value)| push(key.value().clone(), value.clone()))?;
        }
        Some(other) => {
            let mut rest = Iteration::of(&other)?;
            while let Some(item) = rest.next(&renderer.budget)? {
                let mut parts = Iteration::of(&item)?;
                let budget = &renderer.budget;
                match (parts.next(budget)?, parts.next(budget)?, parts.next(budget)?) {
                    (Some(key), Some(value), None) => push(key, value)?,
                    _ => return Err(fault(format!("`{what}` needs pairs of a key and a value"))),
                }
            }
        }
    }
    arguments.named.into_iter().try_for_each(|(name, value)| push(Value::Str(name), value))?;
    Ok(entries)
}

/// The object of `cycler(…)`: values that take turns.
pub(crate) struct Cycler {
    pub(crate) items: Rc<List>,
    at: Cell<usize>,
}

impl Cycler {
    pub(crate) fn current(&self) -> Option<Value> {
        self.items.items.get(self.at.get()).cloned()
    }

    pub(crate) fn next(&self) -> Option<Value> {
        let current = self.current();
        self.at.set((self.at.get() + 1) % self.items.items.len().max(1));
        current
    }

    pub(crate) fn reset(&self) {
        self.at.set(0);
    }
}

/// The object of `joiner(…)`: prints nothing the first time, then a separator.
pub(crate) struct Joiner {
    pub(crate) separator: Text,
    pub(crate) used: Cell<bool>,
}

impl Joiner {
    pub(crate) fn next(&self) -> Value {
        if self.used.replace(true) { Value::Str(self.separator.clone()) } else { Value::text("") }
    }
}
