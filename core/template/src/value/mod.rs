//! Values of a rendering: Python's types, as far as a sandboxed template can see them.

mod compare;
mod dict;
mod iterate;
mod number;
mod print;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

pub(crate) use compare::{contains, equal, order, same};
pub(crate) use dict::{Dict, Key, StrKey};
pub(crate) use iterate::Iteration;
pub(crate) use number::{Numeric, add_numbers, divide, floor_divide, modulo, multiply, power, subtract};
pub(crate) use print::{exponent_form, float_repr, text_repr};

use crate::ast;
use crate::budget::{Budget, Charge};
use crate::error::{Result, fault};
use crate::functions::{Cycler, Function, Joiner};
use crate::interpreter::{LoopState, Scope};
use crate::text::{Builder, Text};

/// Most lists and dicts inside each other.
const DEPTH_LIMIT: u32 = 150;

/// A value. Cloning is cheap, and the contents never change, except for namespaces, iterators and loops.
#[derive(Clone)]
pub(crate) enum Value {
    Undefined(Rc<Missing>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text),
    List(Rc<List>),
    Tuple(Rc<List>),
    Dict(Rc<Dict>),
    /// The keys, values or items of a dict.
    View(View, Rc<Dict>),
    Range(Rc<Range>),
    /// An iterator, which returns each item once.
    Iterator(Rc<Iterator>),
    Namespace(Rc<Namespace>),
    Loop(Rc<LoopState>),
    Macro(Rc<Macro>),
    /// A method of a value.
    Method(Rc<Value>, &'static str),
    Function(Function),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
}

/// The reason why a value is undefined.
pub(crate) enum Missing {
    Name(String),
    Attribute { of: &'static str, name: Text },
    Item { of: &'static str },
    Unsafe { of: &'static str, name: Text },
    Reason(&'static str),
    Parameter(String),
}

impl Missing {
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Name(name) => format!("`{name}` is undefined"),
            Self::Attribute { of, name } => format!("a value of type {of} has no `{}`", shown(name.as_str())),
            Self::Item { of } => format!("a value of type {of} has no such item"),
            Self::Unsafe { of, name } => {
                format!("`{}` of type {of} may not be used in a template", shown(name.as_str()))
            }
            Self::Reason(reason) => (*reason).to_owned(),
            Self::Parameter(name) => format!("the parameter `{name}` was not given"),
        }
    }
}

/// Returns the beginning of a text, for an error message. A value may keep the message, and a name may be as
/// long as the template.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The items of a list or tuple.
pub(crate) struct List {
    pub(crate) items: Vec<Value>,
    depth: u32,
    /// Set for a pair that `groupby` made, whose items have names.
    pub(crate) group: bool,
    _charge: Option<Charge>,
}

impl List {
    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum View {
    Keys,
    Values,
    Items,
}

/// Python's `range`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Range {
    pub(crate) start: i128,
    pub(crate) stop: i128,
    pub(crate) step: i128,
}

impl Range {
    pub(crate) fn len(&self) -> u128 {
        let (from, to, step) = if self.step > 0 {
            (self.start, self.stop, self.step.unsigned_abs())
        } else {
            (self.stop, self.start, self.step.unsigned_abs())
        };
        if from >= to { 0 } else { (to.abs_diff(from) - 1) / step + 1 }
    }

    /// Returns the item of an index below the length.
    pub(crate) fn item(&self, index: u128) -> i128 {
        self.start.wrapping_add(self.step.wrapping_mul(index as i128))
    }
}

/// An iterator that values share.
pub(crate) struct Iterator {
    pub(crate) rest: RefCell<Iteration>,
    pub(crate) depth: u32,
}

/// The object of `namespace()`: the only value whose attributes can be set.
pub(crate) struct Namespace {
    pub(crate) attributes: RefCell<indexmap::IndexMap<Key, Value>>,
    pub(crate) charge: RefCell<Charge>,
}

/// A macro with the scope in which it was defined.
pub(crate) struct Macro {
    pub(crate) definition: Arc<ast::Macro>,
    pub(crate) scope: Rc<Scope>,
}

impl Value {
    pub(crate) fn undefined(missing: Missing) -> Self {
        Self::Undefined(Rc::new(missing))
    }

    /// Makes a short text that is from the template.
    pub(crate) fn text(text: &str) -> Self {
        Self::Str(Text::template(text))
    }

    /// Returns the name of the type in Python.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(text) if text.is_markup() => "Markup",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Range(_) => "range",
            Self::Iterator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Macro(_) => "Macro",
            Self::Method(..) => "builtin_function_or_method",
            Self::Function(_) => "function",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
        }
    }

    /// Returns a description of the value for an error message.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Undefined(missing) => format!("an undefined value ({})", missing.message()),
            other => format!("a value of type {}", other.type_name()),
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Float(n) => *n != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(list) | Self::Tuple(list) => !list.items.is_empty(),
            Self::Dict(dict) | Self::View(_, dict) => !dict.map.is_empty(),
            Self::Range(range) => range.len() > 0,
            _ => true,
        }
    }

    /// Returns `len(value)`, for values that have a length.
    pub(crate) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Undefined(_) => 0,
            Self::Str(text) => text.chars(),
            Self::List(list) | Self::Tuple(list) => list.items.len(),
            Self::Dict(dict) | Self::View(_, dict) => dict.map.len(),
            Self::Range(range) => usize::try_from(range.len()).ok()?,
            _ => return None,
        })
    }

    /// Returns the number of lists and dicts inside each other, including this one.
    pub(crate) fn depth(&self) -> u32 {
        match self {
            Self::List(list) | Self::Tuple(list) => list.depth,
            Self::Dict(dict) | Self::View(_, dict) => dict.depth(),
            Self::Iterator(iterator) => iterator.depth,
            Self::Method(value, _) => value.depth() + 1,
            Self::Cycler(cycler) => cycler.items.depth(),
            _ => 0,
        }
    }

    /// Returns the value as an integer, if it is one; booleans count.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(b) => Some(i128::from(*b)),
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// Evaluates `str(value)`.
    pub(crate) fn to_text(&self, budget: &Rc<Budget>) -> Result<Text> {
        match self {
            Self::Str(text) => Ok(text.clone()),
            other => {
                let mut out = Builder::new(budget);
                other.print(&mut out)?;
                Ok(out.finish())
            }
        }
    }
}

/// Returns the depth of an object that holds values of the given depth.
///
/// # Errors
/// Too many lists and dicts are inside each other.
pub(crate) fn deeper(depth: u32) -> Result<u32> {
    if depth >= DEPTH_LIMIT {
        return Err(fault(format!("more than {DEPTH_LIMIT} lists or dicts inside each other")));
    }
    Ok(depth + 1)
}

/// Bytes per item of a list, including the memory of a small value elsewhere.
const ITEM: usize = 3 * size_of::<Value>();

/// A list under construction.
pub(crate) struct Items {
    items: Vec<Value>,
    depth: u32,
    budget: Rc<Budget>,
    charge: Charge,
}

impl Items {
    pub(crate) fn new(budget: &Rc<Budget>) -> Result<Self> {
        let charge = budget.charge(size_of::<List>())?;
        Ok(Self { items: Vec::new(), depth: 0, budget: Rc::clone(budget), charge })
    }

    pub(crate) fn push(&mut self, value: Value) -> Result<()> {
        self.budget.step(1)?;
        self.charge.grow(ITEM)?;
        self.depth = self.depth.max(value.depth());
        self.items.push(value);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn values(&self) -> &[Value] {
        &self.items
    }

    pub(crate) fn values_mut(&mut self) -> &mut [Value] {
        &mut self.items
    }

    pub(crate) fn finish(self) -> Result<Rc<List>> {
        let depth = deeper(self.depth)?;
        Ok(Rc::new(List { items: self.items, depth, group: false, _charge: Some(self.charge) }))
    }

    pub(crate) fn list(self) -> Result<Value> {
        self.finish().map(Value::List)
    }

    pub(crate) fn tuple(self) -> Result<Value> {
        self.finish().map(Value::Tuple)
    }

    /// Makes a pair of `groupby`, whose items are named `grouper` and `list`.
    pub(crate) fn group(self) -> Result<Value> {
        let depth = deeper(self.depth)?;
        let list = List { items: self.items, depth, group: true, _charge: Some(self.charge) };
        Ok(Value::Tuple(Rc::new(list)))
    }

    /// Makes an iterator over the items, like the generators of Jinja's filters.
    pub(crate) fn iterator(self) -> Result<Value> {
        let list = self.finish()?;
        let depth = list.depth;
        let rest = RefCell::new(Iteration::List(list, 0));
        Ok(Value::Iterator(Rc::new(Iterator { rest, depth })))
    }
}

/// Makes a tuple of two values.
pub(crate) fn pair(budget: &Rc<Budget>, first: Value, second: Value) -> Result<Value> {
    let mut items = Items::new(budget)?;
    items.push(first)?;
    items.push(second)?;
    items.tuple()
}

/// Makes a list of the input's values. It is not charged, because the caller holds the input anyway.
pub(crate) fn input_list(items: Vec<Value>) -> Result<Value> {
    let depth = deeper(items.iter().map(Value::depth).max().unwrap_or(0))?;
    Ok(Value::List(Rc::new(List { items, depth, group: false, _charge: None })))
}
