//! Methods of Python's types that Jinja's immutable sandbox allows.

mod case;
mod containers;
mod search;
mod split;
mod text;

use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::value::{Value, View};

pub(crate) use case::{capitalize, lower, push_lower_at, upper};
pub(crate) use search::replace;
pub(crate) use split::{lines, rsplit_once_space, split_words};

/// Methods of `str`.
const TEXT: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "translate",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const DICT: [&str; 5] = ["get", "items", "keys", "values", "copy"];
const LIST: [&str; 3] = ["index", "count", "copy"];
const TUPLE: [&str; 2] = ["index", "count"];
const INT: [&str; 3] = ["bit_length", "bit_count", "conjugate"];
const FLOAT: [&str; 2] = ["is_integer", "conjugate"];
const CYCLER: [&str; 2] = ["next", "reset"];

/// Returns the static name of a value's method.
pub(crate) fn find(value: &Value, name: &str) -> Option<&'static str> {
    let names: &[&'static str] = match value {
        Value::Str(_) => &TEXT,
        Value::Dict(_) => &DICT,
        Value::List(_) => &LIST,
        Value::Tuple(_) | Value::Range(_) => &TUPLE,
        Value::Bool(_) | Value::Int(_) => &INT,
        Value::Float(_) => &FLOAT,
        Value::Cycler(_) => &CYCLER,
        _ => return None,
    };
    names.iter().copied().find(|this| *this == name)
}

/// Returns whether the sandbox refuses the method because it changes the value.
pub(crate) fn is_refused(value: &Value, name: &str) -> bool {
    match value {
        Value::List(_) => {
            matches!(name, "append" | "clear" | "pop" | "reverse" | "insert" | "sort" | "extend" | "remove")
        }
        Value::Dict(_) => matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update"),
        _ => false,
    }
}

/// Returns whether the name is one that every Python object has, which the sandbox hides.
pub(crate) fn is_dunder(name: &str) -> bool {
    const NAMES: [&str; 22] = [
        "__class__",
        "__delattr__",
        "__dir__",
        "__doc__",
        "__eq__",
        "__format__",
        "__ge__",
        "__getattribute__",
        "__gt__",
        "__hash__",
        "__init__",
        "__init_subclass__",
        "__le__",
        "__lt__",
        "__ne__",
        "__new__",
        "__reduce__",
        "__reduce_ex__",
        "__repr__",
        "__setattr__",
        "__sizeof__",
        "__str__",
    ];
    NAMES.contains(&name)
}

/// Calls a method that [`find`] returned.
pub(crate) fn call(
    renderer: &Renderer<'_>,
    value: &Value,
    name: &'static str,
    arguments: Arguments,
) -> Result<Value> {
    renderer.budget.step(1)?;
    match value {
        Value::Str(text) => {
            let result = text::call(renderer, text, name, arguments)?;
            Ok(match result {
                // Methods of markup return markup.
                Value::Str(result) if text.is_markup() => Value::Str(result.as_markup(true)),
                other => other,
            })
        }
        Value::Dict(dict) => match name {
            "get" => containers::get(renderer, dict, arguments),
            "items" => arguments.none(name).map(|()| Value::View(View::Items, dict.clone())),
            "keys" => arguments.none(name).map(|()| Value::View(View::Keys, dict.clone())),
            "values" => arguments.none(name).map(|()| Value::View(View::Values, dict.clone())),
            _ => arguments.none(name).map(|()| value.clone()),
        },
        Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
            containers::sequence(renderer, value, name, arguments)
        }
        Value::Bool(_) | Value::Int(_) => {
            arguments.none(name)?;
            let n = value.as_int().unwrap_or(0);
            Ok(Value::Int(match name {
                "bit_length" => i128::from(u128::BITS - n.unsigned_abs().leading_zeros()),
                "bit_count" => i128::from(n.unsigned_abs().count_ones()),
                _ => n,
            }))
        }
        Value::Float(n) => {
            arguments.none(name)?;
            Ok(if name == "is_integer" { Value::Bool(n.fract() == 0.0) } else { Value::Float(*n) })
        }
        Value::Cycler(cycler) => {
            arguments.none(name)?;
            if name == "reset" {
                cycler.reset();
                return Ok(Value::None);
            }
            Ok(cycler.next().unwrap_or(Value::None))
        }
        Value::Loop(state) => {
            if !arguments.named.is_empty() {
                return Err(fault(format!("`loop.{name}` takes no named arguments")));
            }
            renderer.loop_method(state, name, arguments.positional)
        }
        other => Err(fault(format!("{} has no method `{name}`", other.described()))),
    }
}
