//! Jinja's filters.

mod group;
mod html;
mod pprint;
mod select;
mod sequence;
mod sort;
mod text;
mod values;
mod wrap;

pub(crate) use sort::sorted;

use std::rc::Rc;

use crate::budget::Budget;
use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::json;
use crate::text::Text;
use crate::value::Value;

/// Most parts of an attribute such as `a.b.c`.
const PATH_LIMIT: usize = 100;

/// A filter.
pub(crate) type Filter = fn(&Renderer<'_>, Value, Arguments) -> Result<Value>;

/// Returns the filter named `name`.
pub(crate) fn find(name: &str) -> Option<Filter> {
    Some(match name {
        "abs" => values::abs,
        "attr" => values::attr,
        "batch" => group::batch,
        "capitalize" => text::capitalize,
        "center" => text::center,
        "count" | "length" => sequence::length,
        "d" | "default" => values::default,
        "dictsort" => sort::dictsort,
        "e" | "escape" => html::escape,
        "filesizeformat" => text::filesizeformat,
        "first" => sequence::first,
        "float" => values::float,
        "forceescape" => html::forceescape,
        "format" => text::format,
        "groupby" => group::groupby,
        "indent" => text::indent,
        "int" => values::int,
        "items" => sequence::items,
        "join" => sequence::join,
        "last" => sequence::last,
        "list" => sequence::list,
        "lower" => text::lower,
        "map" => select::map,
        "max" => sort::max,
        "min" => sort::min,
        "pprint" => pprint::pprint,
        "random" => sequence::random,
        "reject" => |r, value, arguments| select::select(r, value, arguments, false, false),
        "rejectattr" => |r, value, arguments| select::select(r, value, arguments, false, true),
        "replace" => text::replace,
        "reverse" => sequence::reverse,
        "round" => values::round,
        "safe" => html::safe,
        "select" => |r, value, arguments| select::select(r, value, arguments, true, false),
        "selectattr" => |r, value, arguments| select::select(r, value, arguments, true, true),
        "slice" => group::slice,
        "sort" => sort::sort,
        "string" => values::string,
        "striptags" => html::striptags,
        "sum" => sequence::sum,
        "title" => text::title,
        "tojson" => json::tojson,
        "trim" => text::trim,
        "truncate" => text::truncate,
        "unique" => sort::unique,
        "upper" => text::upper,
        "urlencode" => html::urlencode,
        "urlize" => html::urlize,
        "wordcount" => text::wordcount,
        "wordwrap" => wrap::wordwrap,
        "xmlattr" => html::xmlattr,
        _ => return None,
    })
}

/// Calls the filter named `name`.
fn call(renderer: &Renderer<'_>, name: &Value, value: Value, arguments: Arguments) -> Result<Value> {
    let Some(filter) = name.as_str().and_then(find) else {
        let name: String = renderer.string(name)?.as_str().chars().take(60).collect();
        return Err(fault(format!("there is no filter `{name}`")));
    };
    filter(renderer, value, arguments)
}

/// Returns the steps from a value to an attribute: `a.b.0` has three.
fn attribute_path(budget: &Rc<Budget>, attribute: Option<&Value>) -> Result<Vec<Value>> {
    let text = match attribute {
        None | Some(Value::None) => return Ok(Vec::new()),
        Some(Value::Str(text)) => text,
        Some(other) => return Ok(vec![other.clone()]),
    };
    let _copy = budget.charge(text.len())?;
    let parts = text.as_str().split('.').map(|part| match part.parse() {
        Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => Value::Int(index),
        _ => Value::Str(Text::new(part, text.any_foreign())),
    });
    let path: Vec<Value> = parts.take(PATH_LIMIT + 1).collect();
    if path.len() > PATH_LIMIT {
        return Err(fault(format!("an attribute of more than {PATH_LIMIT} parts")));
    }
    Ok(path)
}

/// Returns the attribute at the end of a path.
fn attribute_at(
    renderer: &Renderer<'_>,
    value: &Value,
    path: &[Value],
    default: Option<&Value>,
) -> Result<Value> {
    let mut value = value.clone();
    for part in path {
        renderer.budget.step(1)?;
        value = renderer.item(&value, part)?;
        if let (Value::Undefined(_), Some(default)) = (&value, default) {
            value = default.clone();
        }
    }
    Ok(value)
}

/// Returns texts in lower case, for comparisons that ignore case.
fn without_case(renderer: &Renderer<'_>, value: Value) -> Result<Value> {
    match &value {
        Value::Str(text) => crate::methods::lower(&renderer.budget, text).map(Value::Str),
        _ => Ok(value),
    }
}

fn is_true(value: Option<Value>, default: bool) -> bool {
    value.map_or(default, |value| value.is_true())
}

/// Converts an argument to an integer.
fn integer(what: &str, value: Option<&Value>, default: i128) -> Result<i128> {
    match value {
        None => Ok(default),
        Some(value) => value
            .as_int()
            .ok_or_else(|| fault(format!("{} in `{what}`, where an integer is needed", value.described()))),
    }
}
