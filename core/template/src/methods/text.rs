//! Methods of `str`.

use super::{case, search, split};
use crate::error::{Result, fault};
use crate::format::{Fields, braces};
use crate::interpreter::{Arguments, Renderer};
use crate::text::{Builder, Text};
use crate::unicode as u;
use crate::value::{Items, Iteration, Value};

pub(super) fn call(
    renderer: &Renderer<'_>,
    text: &Text,
    name: &'static str,
    arguments: Arguments,
) -> Result<Value> {
    let budget = &renderer.budget;
    budget.read(text.len())?;
    match name {
        "encode" | "maketrans" | "translate" => {
            return Err(fault(format!(
                "`{name}` is not available; templates work with text, and `replace` replaces it"
            )));
        }
        "format" => return braces(renderer, text, &Fields::Arguments(arguments)).map(Value::Str),
        "format_map" => {
            let [mapping] = arguments.bind(name, ["mapping"])?;
            let mapping = mapping.ok_or_else(|| fault("`format_map` needs a dict"))?;
            return braces(renderer, text, &Fields::Mapping(mapping)).map(Value::Str);
        }
        "split" | "rsplit" => {
            let [separator, limit] = arguments.bind(name, ["sep", "maxsplit"])?;
            let separator = match &separator {
                None | Some(Value::None) => None,
                Some(value) => Some(wanted(name, value)?),
            };
            if separator.is_some_and(Text::is_empty) {
                return Err(fault(format!("`{name}` needs a separator that is not empty")));
            }
            let limit = limit_of(name, limit)?;
            return split::split(budget, text, separator, limit, name == "rsplit");
        }
        "splitlines" => {
            let [keep] = arguments.bind(name, ["keepends"])?;
            return split::split_lines(budget, text, keep.is_some_and(|value| value.is_true()));
        }
        "expandtabs" => {
            let [size] = arguments.bind(name, ["tabsize"])?;
            let size = size.map_or(Some(8), |value| value.as_int());
            let size = size.ok_or_else(|| fault("`expandtabs` needs an integer"))?;
            return expand_tabs(renderer, text, usize::try_from(size).unwrap_or(0)).map(Value::Str);
        }
        _ => {}
    }
    if !arguments.named.is_empty() {
        return Err(fault(format!("`{name}` takes no named arguments")));
    }
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = arguments.bind(name, ["chars"])?;
            let (left, right) = (name != "rstrip", name != "lstrip");
            let range = match &chars {
                None | Some(Value::None) => split::strip(text.as_str(), left, right, u::is_space),
                Some(value) => {
                    let chars = wanted(name, value)?.as_str();
                    budget.step((text.len() as u64).saturating_mul(chars.len() as u64) / 4096)?;
                    split::strip(text.as_str(), left, right, |c| chars.contains(c))
                }
            };
            text.slice(budget, range).map(Value::Str)
        }
        "lower" => no_arguments(name, arguments, || case::lower(budget, text)),
        "upper" => no_arguments(name, arguments, || case::upper(budget, text)),
        "casefold" => no_arguments(name, arguments, || case::casefold(budget, text)),
        "capitalize" => no_arguments(name, arguments, || case::capitalize(budget, text)),
        "title" => no_arguments(name, arguments, || case::title(budget, text)),
        "swapcase" => no_arguments(name, arguments, || case::swapcase(budget, text)),
        "startswith" | "endswith" => affix(renderer, text, name, arguments),
        "find" | "rfind" | "index" | "rindex" | "count" => find(text, name, arguments),
        "replace" => {
            let [old, new, limit] = arguments.bind(name, ["old", "new", "count"])?;
            let (Some(old), Some(new)) = (&old, &new) else {
                return Err(fault("`replace` needs a text to replace and what comes in its place"));
            };
            let limit = limit_of(name, limit)?;
            search::replace(budget, text, wanted(name, old)?, wanted(name, new)?, limit).map(Value::Str)
        }
        "partition" | "rpartition" => partition(renderer, text, name, arguments),
        "removeprefix" | "removesuffix" => {
            let [affix] = arguments.bind(name, ["affix"])?;
            let affix = needed(name, affix)?;
            let affix = wanted(name, &affix)?.as_str();
            let source = text.as_str();
            let range = if name == "removeprefix" {
                source.strip_prefix(affix).map_or(0, |rest| source.len() - rest.len())..source.len()
            } else {
                0..source.strip_suffix(affix).map_or(source.len(), str::len)
            };
            text.slice(budget, range).map(Value::Str)
        }
        "join" => {
            let [items] = arguments.bind(name, ["iterable"])?;
            let mut rest = Iteration::of(&needed(name, items)?)?;
            let mut out = Builder::new(budget);
            let mut first = true;
            while let Some(item) = rest.next(budget)? {
                if !first {
                    out.push(text)?;
                }
                first = false;
                out.push(wanted(name, &item)?)?;
            }
            Ok(Value::Str(out.finish()))
        }
        "center" | "ljust" | "rjust" | "zfill" => justify(renderer, text, name, arguments).map(Value::Str),
        _ => {
            arguments.none(name)?;
            budget.read(text.len().saturating_mul(8))?;
            Ok(Value::Bool(is(text.as_str(), name)))
        }
    }
}

fn no_arguments(name: &str, arguments: Arguments, make: impl FnOnce() -> Result<Text>) -> Result<Value> {
    arguments.none(name)?;
    make().map(Value::Str)
}

fn needed(name: &str, value: Option<Value>) -> Result<Value> {
    value.ok_or_else(|| fault(format!("`{name}` needs an argument")))
}

/// Returns an argument that has to be a text.
fn wanted<'v>(name: &str, value: &'v Value) -> Result<&'v Text> {
    match value {
        Value::Str(text) => Ok(text),
        other => Err(fault(format!("{} in `{name}`, where a text is needed", other.described()))),
    }
}

/// Returns the most repetitions of an operation; a negative number sets no limit.
fn limit_of(name: &str, value: Option<Value>) -> Result<Option<usize>> {
    let Some(value) = value else { return Ok(None) };
    let limit = value.as_int().ok_or_else(|| fault(format!("the limit of `{name}` has to be an integer")))?;
    Ok(usize::try_from(limit).ok())
}

fn affix(renderer: &Renderer<'_>, text: &Text, name: &str, arguments: Arguments) -> Result<Value> {
    let [affix, start, stop] = arguments.bind(name, ["affix", "start", "end"])?;
    let affix = needed(name, affix)?;
    let range = search::index_range(text, start.as_ref(), stop.as_ref())?;
    let part = range.map(|range| &text.as_str()[range]);
    let matches = |affix: &Text| {
        part.is_some_and(|part| {
            if name == "startswith" {
                part.starts_with(affix.as_str())
            } else {
                part.ends_with(affix.as_str())
            }
        })
    };
    match &affix {
        Value::Str(affix) => Ok(Value::Bool(matches(affix))),
        Value::Tuple(affixes) => {
            for affix in &affixes.items {
                renderer.budget.step(1)?;
                renderer.budget.read(affix.as_str().map_or(0, str::len))?;
                if matches(wanted(name, affix)?) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        other => Err(fault(format!(
            "{} in `{name}`, where a text or a tuple of texts is needed",
            other.described()
        ))),
    }
}

fn find(text: &Text, name: &str, arguments: Arguments) -> Result<Value> {
    let [part, start, stop] = arguments.bind(name, ["sub", "start", "end"])?;
    let part = needed(name, part)?;
    let part = wanted(name, &part)?.as_str();
    let range = search::index_range(text, start.as_ref(), stop.as_ref())?;
    if name == "count" {
        let count = range.map_or(0, |range| search::count(&text.as_str()[range], part));
        return Ok(Value::Int(count as i128));
    }
    let found = range.and_then(|range| {
        let inside = &text.as_str()[range.clone()];
        let at = if name.starts_with('r') { inside.rfind(part) } else { inside.find(part) };
        at.map(|at| search::char_index(text, range.start + at))
    });
    match found {
        Some(at) => Ok(Value::Int(at)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(fault(format!("`{name}` found no such part; `find` gives -1 then"))),
    }
}

fn partition(renderer: &Renderer<'_>, text: &Text, name: &str, arguments: Arguments) -> Result<Value> {
    let budget = &renderer.budget;
    let [separator] = arguments.bind(name, ["sep"])?;
    let separator = needed(name, separator)?;
    let separator = wanted(name, &separator)?;
    if separator.is_empty() {
        return Err(fault(format!("`{name}` needs a separator that is not empty")));
    }
    let last = name == "rpartition";
    let source = text.as_str();
    let found = if last { source.rfind(separator.as_str()) } else { source.find(separator.as_str()) };
    let parts = match found {
        Some(at) => [0..at, at..at + separator.len(), at + separator.len()..text.len()],
        None if last => [0..0, 0..0, 0..text.len()],
        None => [0..text.len(), 0..0, 0..0],
    };
    let mut items = Items::new(budget)?;
    for part in parts {
        items.push(Value::Str(text.slice(budget, part)?))?;
    }
    items.tuple()
}

fn justify(renderer: &Renderer<'_>, text: &Text, name: &str, arguments: Arguments) -> Result<Text> {
    let budget = &renderer.budget;
    let [width, fill] = arguments.bind(name, ["width", "fillchar"])?;
    let width = needed(name, width)?;
    let width = width.as_int().ok_or_else(|| fault(format!("`{name}` needs an integer as its width")))?;
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(text.chars());
    let mut out = Builder::new(budget);
    if name == "zfill" {
        if fill.is_some() {
            return Err(fault("`zfill` takes one argument"));
        }
        let sign = usize::from(text.as_str().starts_with(['+', '-']));
        out.push_slice(text, 0..sign)?;
        out.repeat(&Text::template("0"), missing)?;
        out.push_slice(text, sign..text.len())?;
        return Ok(out.finish());
    }
    let fill = match &fill {
        None => Text::template(" "),
        Some(value) => wanted(name, value)?.clone(),
    };
    if fill.chars() != 1 {
        return Err(fault(format!("`{name}` fills with one character")));
    }
    let before = match name {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & width & 1),
    };
    out.repeat(&fill, before)?;
    out.push(text)?;
    out.repeat(&fill, missing - before)?;
    Ok(out.finish())
}

fn expand_tabs(renderer: &Renderer<'_>, text: &Text, size: usize) -> Result<Text> {
    let mut out = Builder::new(&renderer.budget);
    let mut column = 0;
    let space = |foreign| Text::new(" ", foreign);
    for (part, foreign) in text.parts(0..text.len()) {
        let mut rest = &text.as_str()[part];
        while let Some(c) = rest.chars().next() {
            let len = rest.find(['\t', '\n', '\r']).unwrap_or(rest.len());
            if len > 0 {
                out.push_as(&rest[..len], foreign)?;
                column += rest[..len].chars().count();
                rest = &rest[len..];
                continue;
            }
            if c != '\t' {
                out.push_char(c, foreign)?;
                column = 0;
            } else if size > 0 {
                let spaces = size - column % size;
                out.repeat(&space(foreign), spaces)?;
                column = column.saturating_add(spaces);
            }
            rest = &rest[1..];
        }
    }
    Ok(out.finish())
}

/// The methods that answer yes or no, such as `isdigit`.
fn is(text: &str, name: &str) -> bool {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    match name {
        "isalnum" => all(u::is_alnum),
        "isalpha" => all(u::is_alpha),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(u::is_decimal),
        "isdigit" => all(u::is_digit),
        "isnumeric" => all(u::is_numeric),
        "isprintable" => text.chars().all(u::is_printable),
        "isspace" => all(u::is_space),
        "islower" => {
            text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || u::is_title(c))
        }
        "isupper" => {
            text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || u::is_title(c))
        }
        "isidentifier" => {
            let mut chars = text.chars();
            chars.next().is_some_and(|c| c == '_' || u::is_alpha(c))
                && chars.all(|c| c == '_' || c.is_alphanumeric() || u::is_mark(c))
        }
        _ => {
            let mut inside = false;
            let mut any = false;
            for c in text.chars() {
                let large = c.is_uppercase() || u::is_title(c);
                if (large && inside) || (c.is_lowercase() && !inside) {
                    return false;
                }
                inside = large || c.is_lowercase();
                any |= inside;
            }
            any
        }
    }
}
