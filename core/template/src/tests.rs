//! Jinja's tests, the operators behind `is`.

use crate::ast::Compare;
use crate::error::{Result, fault};
use crate::filters;
use crate::interpreter::{Arguments, Renderer};
use crate::value::{Iteration, Numeric, Value, contains, equal, modulo, same};

/// A test.
pub(crate) type Test = fn(&Renderer<'_>, &Value, Arguments) -> Result<bool>;

macro_rules! plain {
    ($name:literal, |$value:ident| $test:expr) => {
        |_, $value, arguments| {
            arguments.none($name)?;
            Ok($test)
        }
    };
}

macro_rules! compare {
    ($op:ident) => {
        |renderer, value, arguments| {
            let other = one("comparison", arguments)?;
            renderer.compare_values(Compare::$op, value, &other)
        }
    };
}

/// Returns the test named `name`.
pub(crate) fn find(name: &str) -> Option<Test> {
    Some(match name {
        "defined" => plain!("defined", |value| !matches!(value, Value::Undefined(_))),
        "undefined" => plain!("undefined", |value| matches!(value, Value::Undefined(_))),
        "none" => plain!("none", |value| matches!(value, Value::None)),
        "boolean" => plain!("boolean", |value| matches!(value, Value::Bool(_))),
        "true" => plain!("true", |value| matches!(value, Value::Bool(true))),
        "false" => plain!("false", |value| matches!(value, Value::Bool(false))),
        "integer" => plain!("integer", |value| matches!(value, Value::Int(_))),
        "float" => plain!("float", |value| matches!(value, Value::Float(_))),
        "number" => plain!("number", |value| Numeric::of(value).is_some()),
        "string" => plain!("string", |value| matches!(value, Value::Str(_))),
        "mapping" => plain!("mapping", |value| matches!(value, Value::Dict(_))),
        "sequence" => plain!("sequence", |value| is_sequence(value)),
        "iterable" => plain!("iterable", |value| is_iterable(value)),
        "callable" => plain!("callable", |value| is_callable(value)),
        "escaped" => plain!("escaped", |value| matches!(value, Value::Str(text) if text.is_markup())),
        "lower" => |renderer, value, arguments| case(renderer, value, arguments, "islower"),
        "upper" => |renderer, value, arguments| case(renderer, value, arguments, "isupper"),
        "odd" => |_, value, arguments| arguments.none("odd").and_then(|()| rest_is(value, 2, 1)),
        "even" => |_, value, arguments| arguments.none("even").and_then(|()| rest_is(value, 2, 0)),
        "divisibleby" => |renderer, value, arguments| {
            let divisor = one("divisibleby", arguments)?;
            let rest = modulo(value, &divisor)?;
            equal(&renderer.budget, &rest, &Value::Int(0))
        },
        "sameas" => |_, value, arguments| Ok(same(value, &one("sameas", arguments)?)),
        "in" => |renderer, value, arguments| contains(&renderer.budget, &one("in", arguments)?, value),
        "filter" => |_, value, arguments| {
            arguments.none("filter")?;
            Ok(value.as_str().is_some_and(|name| filters::find(name).is_some()))
        },
        "test" => |_, value, arguments| {
            arguments.none("test")?;
            Ok(value.as_str().is_some_and(|name| find(name).is_some()))
        },
        "eq" | "==" | "equalto" => compare!(Equal),
        "ne" | "!=" => compare!(NotEqual),
        "lt" | "<" | "lessthan" => compare!(Less),
        "le" | "<=" => compare!(LessOrEqual),
        "gt" | ">" | "greaterthan" => compare!(Greater),
        "ge" | ">=" => compare!(GreaterOrEqual),
        _ => return None,
    })
}

fn one(name: &str, arguments: Arguments) -> Result<Value> {
    let [other] = arguments.bind(name, ["other"])?;
    other.ok_or_else(|| fault(format!("the test `{name}` needs a value")))
}

fn rest_is(value: &Value, divisor: i128, rest: i128) -> Result<bool> {
    // A text is a format here, as in Python.
    if let Value::Str(_) = value {
        return Err(fault(format!("{} is neither odd nor even", value.described())));
    }
    let remainder = modulo(value, &Value::Int(divisor))?;
    Ok(Numeric::of(&remainder).and_then(Numeric::whole) == Some(rest))
}

fn case(renderer: &Renderer<'_>, value: &Value, arguments: Arguments, method: &'static str) -> Result<bool> {
    let text = Value::Str(renderer.string(value)?);
    Ok(crate::methods::call(renderer, &text, method, arguments)?.is_true())
}

/// Returns whether the value has a length and items by index, by Jinja's rule: texts and dicts count.
fn is_sequence(value: &Value) -> bool {
    use Value as V;
    matches!(value, V::Undefined(_) | V::Str(_) | V::List(_) | V::Tuple(_) | V::Dict(_) | V::Range(_))
}

fn is_iterable(value: &Value) -> bool {
    matches!(value, Value::Loop(_)) || Iteration::maybe(value).is_some()
}

fn is_callable(value: &Value) -> bool {
    use Value as V;
    // Jinja's undefined values are callable, although the call fails.
    matches!(
        value,
        V::Undefined(_) | V::Macro(_) | V::Method(..) | V::Function(_) | V::Joiner(_) | V::Loop(_)
    )
}

/// Calls the test named `name`.
pub(crate) fn call(
    renderer: &Renderer<'_>,
    name: &Value,
    value: &Value,
    arguments: Vec<Value>,
) -> Result<bool> {
    let found = name.as_str().and_then(find);
    let test = found.ok_or_else(|| {
        let name = renderer.string(name).map(|name| name.as_str().chars().take(60).collect::<String>());
        fault(format!("there is no test `{}`", name.unwrap_or_default()))
    })?;
    test(renderer, value, Arguments::of(arguments))
}
