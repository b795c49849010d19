//! The method `format`: `'{}: {count:>4}'.format(name, count=1)`.

use super::spec::Spec;
use crate::error::{Result, fault};
use crate::html;
use crate::interpreter::{Arguments, Renderer};
use crate::text::{Builder, Text};
use crate::value::{Value, shown, text_repr};

/// The values that fields refer to.
pub(crate) enum Fields {
    Arguments(Arguments),
    /// The mapping of `format_map`.
    Mapping(Value),
}

impl Fields {
    fn named(&self, renderer: &Renderer<'_>, name: &Text) -> Result<Value> {
        let found = match self {
            Self::Arguments(arguments) => {
                renderer.budget.step(arguments.named.len() as u64 / 16)?;
                arguments.named.iter().find(|(this, _)| this == name).map(|(_, value)| value.clone())
            }
            Self::Mapping(Value::Dict(dict)) => dict.get(name.as_str()).cloned(),
            Self::Mapping(other) => Some(renderer.item(other, &Value::Str(name.clone()))?),
        };
        found.ok_or_else(|| fault(format!("the format's `{}` is missing", shown(name.as_str()))))
    }

    fn numbered(&self, index: usize) -> Result<Value> {
        let found = match self {
            Self::Arguments(arguments) => arguments.positional.get(index).cloned(),
            Self::Mapping(_) => None,
        };
        found.ok_or_else(|| fault(format!("the format's value {index} is missing")))
    }
}

/// The numbering of fields without a name.
enum Numbering {
    Unknown,
    Automatic(usize),
    Manual,
}

/// Returns a text with its fields replaced by values.
pub(crate) fn braces(renderer: &Renderer<'_>, text: &Text, fields: &Fields) -> Result<Text> {
    let mut numbering = Numbering::Unknown;
    let out = replace(renderer, text, fields, &mut numbering, 2)?;
    Ok(out.as_markup(text.is_markup()))
}

fn replace(
    renderer: &Renderer<'_>,
    text: &Text,
    fields: &Fields,
    numbering: &mut Numbering,
    depth: u32,
) -> Result<Text> {
    if depth == 0 {
        return Err(fault("the fields of a format stand too deep inside each other"));
    }
    let source = text.as_str();
    let mut out = Builder::new(&renderer.budget);
    let mut at = 0;
    while let Some(found) = source[at..].find(['{', '}']) {
        let begin = at + found;
        out.push_slice(text, at..begin)?;
        let brace = &source[begin..=begin];
        if source[begin + 1..].starts_with(brace) {
            out.push_slice(text, begin..begin + 1)?;
            at = begin + 2;
            continue;
        }
        if brace == "}" {
            return Err(fault("a single `}` in a format; write `}}`"));
        }
        let mut open = 1;
        let len = source[begin + 1..].bytes().position(|b| {
            open += i32::from(b == b'{') - i32::from(b == b'}');
            open == 0
        });
        let len = len.ok_or_else(|| fault("a `{` in a format has no `}`"))?;
        let inside = text.slice(&renderer.budget, begin + 1..begin + 1 + len)?;
        let field = field(renderer, &inside, fields, numbering, depth)?;
        out.push(&field)?;
        at = begin + len + 2;
        renderer.budget.step(1)?;
    }
    out.push_slice(text, at..source.len())?;
    let formatted = out.finish();
    Ok(if text.is_markup() { formatted.as_markup(true) } else { formatted })
}

/// Writes one field: name, conversion and specification.
fn field(
    renderer: &Renderer<'_>,
    inside: &Text,
    fields: &Fields,
    numbering: &mut Numbering,
    depth: u32,
) -> Result<Text> {
    let budget = &renderer.budget;
    let source = inside.as_str();
    let mut bracket = false;
    let end = source.bytes().position(|b| {
        bracket = (bracket || b == b'[') && b != b']';
        !bracket && matches!(b, b'!' | b':')
    });
    let end = end.unwrap_or(source.len());
    let mut value = named_value(renderer, &inside.slice(budget, 0..end)?, fields, numbering)?;
    let mut rest = &source[end..];
    if let Some(after) = rest.strip_prefix('!') {
        let kind = after.chars().next().ok_or_else(|| fault("a format's `!` needs `s`, `r` or `a`"))?;
        rest = &after[kind.len_utf8()..];
        if !rest.is_empty() && !rest.starts_with(':') {
            return Err(fault("a format's conversion is one letter, with `:` or nothing behind it"));
        }
        let mut out = Builder::new(budget);
        match (kind, &value) {
            ('s', value) => value.print(&mut out)?,
            ('r' | 'a', Value::Str(text)) => text_repr(text, kind == 'a', &mut out)?,
            ('r' | 'a', value) => value.repr(&mut out)?,
            _ => return Err(fault(format!("`!{kind}` is no conversion; use `!s`, `!r` or `!a`"))),
        }
        value = Value::Str(out.finish());
    }
    let spec = rest.strip_prefix(':').unwrap_or("");
    let from = source.len() - spec.len();
    let spec = inside.slice(budget, from..source.len())?;
    let spec = if spec.as_str().contains(['{', '}']) {
        replace(renderer, &spec, fields, numbering, depth - 1)?
    } else {
        spec
    };
    let formatted = Spec::parse(&spec)?.apply(budget, &value, &spec)?;
    if inside.is_markup() && !formatted.is_markup() {
        let mut out = Builder::new(budget);
        html::escape(&formatted, &mut out)?;
        return Ok(out.finish());
    }
    Ok(formatted)
}

/// Returns the value of `name.attribute[index]`.
fn named_value(
    renderer: &Renderer<'_>,
    name: &Text,
    fields: &Fields,
    numbering: &mut Numbering,
) -> Result<Value> {
    let budget = &renderer.budget;
    let source = name.as_str();
    let end = source.find(['.', '[']).unwrap_or(source.len());
    let first = &source[..end];
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut value = if first.is_empty() {
        let index = match numbering {
            Numbering::Manual => return Err(fault("a format numbers all of its fields or none")),
            Numbering::Automatic(next) => *next,
            Numbering::Unknown => 0,
        };
        *numbering = Numbering::Automatic(index + 1);
        fields.numbered(index)?
    } else if is_number(first) {
        if matches!(numbering, Numbering::Automatic(_)) {
            return Err(fault("a format numbers all of its fields or none"));
        }
        *numbering = Numbering::Manual;
        fields.numbered(first.parse().unwrap_or(usize::MAX))?
    } else {
        fields.named(renderer, &name.slice(budget, 0..end)?)?
    };
    let mut at = end;
    while at < source.len() {
        budget.step(1)?;
        if source[at..].starts_with('.') {
            let len = source[at + 1..].find(['.', '[']).unwrap_or(source.len() - at - 1);
            let attribute = name.slice(budget, at + 1..at + 1 + len)?;
            if attribute.is_empty() {
                return Err(fault("a format's `.` needs a name behind it"));
            }
            value = renderer.attribute(&value, &attribute)?;
            at += len + 1;
        } else if source[at..].starts_with('[') {
            let len = source[at..].find(']').ok_or_else(|| fault("a format's `[` has no `]`"))?;
            let index = name.slice(budget, at + 1..at + len)?;
            let index = match index.as_str().parse() {
                Ok(number) if is_number(index.as_str()) => Value::Int(number),
                _ => Value::Str(index),
            };
            value = renderer.item(&value, &index)?;
            at += len + 1;
        } else {
            return Err(fault("a format's index needs `.` or `[` behind it"));
        }
    }
    Ok(value)
}
