//! The operator `%`: `'%s: %d' % (name, count)`.

use super::number::{FloatStyle, digits, float};
use super::spec::{Spec, limited, take_number};
use crate::error::{Result, fault};
use crate::html;
use crate::interpreter::Renderer;
use crate::text::{Builder, Text};
use crate::value::{Numeric, StrKey, Value, text_repr};

/// The values of the conversions, in order or by name.
struct Values<'v> {
    all: &'v Value,
    next: usize,
}

impl Values<'_> {
    fn next(&mut self) -> Result<Value> {
        let value = match self.all {
            Value::Tuple(items) => items.items.get(self.next).cloned(),
            other => (self.next == 0).then(|| other.clone()),
        };
        self.next += 1;
        value.ok_or_else(|| fault("too few values for the conversions of a format"))
    }

    fn named(&self, name: &str) -> Result<Value> {
        let Value::Dict(dict) = self.all else { return Err(fault("a format with `%(name)` needs a dict")) };
        dict.map.get(&StrKey(name)).cloned().ok_or_else(|| fault(format!("the format's `{name}` is missing")))
    }

    /// Refuses values that no conversion used.
    fn finish(&self) -> Result<()> {
        let left = match self.all {
            Value::Tuple(items) => self.next < items.items.len(),
            Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) => false,
            _ => self.next == 0,
        };
        if left { Err(fault("more values than conversions in a format")) } else { Ok(()) }
    }
}

/// Returns a text with its conversions replaced by values.
pub(crate) fn percent(renderer: &Renderer<'_>, text: &Text, values: &Value) -> Result<Text> {
    let source = text.as_str();
    let mut out = Builder::new(&renderer.budget);
    let mut values = Values { all: values, next: 0 };
    let mut at = 0;
    while let Some(found) = source[at..].find('%') {
        out.push_slice(text, at..at + found)?;
        let begin = at + found;
        let mut rest = &source[begin + 1..];
        let converted = conversion(renderer, text, &mut rest, &mut values)?;
        at = source.len() - rest.len();
        match converted {
            Some(converted) => out.push(&converted)?,
            None => out.push_slice(text, begin..begin + 1)?,
        }
    }
    out.push_slice(text, at..source.len())?;
    values.finish()?;
    Ok(out.finish().as_markup(text.is_markup()))
}

/// Formats one conversion behind its `%`; `None` for `%%`.
fn conversion(
    renderer: &Renderer<'_>,
    text: &Text,
    rest: &mut &str,
    values: &mut Values<'_>,
) -> Result<Option<Text>> {
    let mut named = None;
    if let Some(after) = rest.strip_prefix('(') {
        let mut open = 1;
        let end = after.bytes().position(|b| {
            open += i32::from(b == b'(') - i32::from(b == b')');
            open == 0
        });
        let end = end.ok_or_else(|| fault("a format's `%(` has no `)`"))?;
        named = Some(values.named(&after[..end])?);
        *rest = &after[end + 1..];
    }
    let mut spec = Spec::default();
    let mut left = false;
    let mut zero = false;
    while let Some(flag) = rest.chars().next().filter(|c| matches!(c, '#' | '0' | '-' | ' ' | '+')) {
        match flag {
            '#' => spec.alternate = true,
            '0' => zero = true,
            '-' => left = true,
            ' ' => spec.sign = spec.sign.or(Some(' ')),
            _ => spec.sign = Some('+'),
        }
        *rest = &rest[1..];
    }
    if let Some(width) = star(rest, values)? {
        left |= width < 0;
        spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
    } else {
        spec.width = take_number(rest)?.unwrap_or(0);
    }
    if let Some(after) = rest.strip_prefix('.') {
        *rest = after;
        let precision = match star(rest, values)? {
            Some(precision) => usize::try_from(precision.max(0)).unwrap_or(usize::MAX),
            None => take_number(rest)?.unwrap_or(0),
        };
        spec.precision = Some(precision);
    }
    *rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let Some(kind) = rest.chars().next() else { return Err(fault("a format ends within a conversion")) };
    *rest = &rest[kind.len_utf8()..];
    if kind == '%' {
        return Ok(None);
    }
    let value = match named {
        Some(value) => value,
        None => values.next()?,
    };
    spec.align = Some(if left { '<' } else { '>' });
    let budget = &renderer.budget;
    let number = matches!(kind, 'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G');
    if number {
        if zero && !left {
            spec.align = Some('=');
            spec.fill = Some(('0', false));
        }
        return convert_number(renderer, &spec, kind, &value).map(Some);
    }
    let body = match kind {
        's' => value.to_text(budget)?,
        'r' | 'a' => {
            let mut out = Builder::new(budget);
            match &value {
                Value::Str(text) => text_repr(text, kind == 'a', &mut out)?,
                other => other.repr(&mut out)?,
            }
            out.finish()
        }
        'c' => {
            spec.precision = None;
            match &value {
                Value::Str(text) if text.chars() == 1 => text.clone(),
                other => {
                    let code = other.as_int().and_then(|n| u32::try_from(n).ok()).and_then(char::from_u32);
                    let c = code.ok_or_else(|| fault("`%c` needs one character or its number"))?;
                    Text::foreign(c.encode_utf8(&mut [0; 4]))
                }
            }
        }
        _ => return Err(fault(format!("`%{kind}` is no conversion of Python's"))),
    };
    let end = spec.precision.map_or(body.len(), |precision| body.byte_of(precision));
    let body = body.slice(budget, 0..end)?;
    let body = if text.is_markup() && !body.is_markup() {
        let mut out = Builder::new(budget);
        html::escape(&body, &mut out)?;
        out.finish()
    } else {
        body
    };
    spec.pad(budget, &Text::template(""), &body, '>').map(Some)
}

/// Reads a width or precision that is given as a value (`*`).
fn star(rest: &mut &str, values: &mut Values<'_>) -> Result<Option<i128>> {
    let Some(after) = rest.strip_prefix('*') else { return Ok(None) };
    *rest = after;
    let value = values.next()?;
    value.as_int().map(Some).ok_or_else(|| fault("`*` in a format needs an integer"))
}

fn convert_number(renderer: &Renderer<'_>, spec: &Spec, kind: char, value: &Value) -> Result<Text> {
    let number = Numeric::of(value)
        .ok_or_else(|| fault(format!("{} for `%{kind}`, where a number is needed", value.described())))?;
    let (negative, body, prefix) = match kind {
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let n = match number {
                Numeric::Int(n) => n,
                Numeric::Float(n) if matches!(kind, 'd' | 'i' | 'u') && n.is_finite() && n.abs() < 1e38 => {
                    n.trunc() as i128
                }
                Numeric::Float(_) => return Err(fault(format!("`%{kind}` needs an integer"))),
            };
            let (base, prefix) = match kind {
                'o' => (8, "0o"),
                'x' => (16, "0x"),
                'X' => (16, "0X"),
                _ => (10, ""),
            };
            let mut body = digits(n.unsigned_abs(), base, kind == 'X');
            let least = limited(spec.precision.unwrap_or(0))?;
            if body.len() < least {
                body = "0".repeat(least - body.len()) + &body;
            }
            (n < 0, body, if spec.alternate { prefix } else { "" })
        }
        _ => {
            let n = number.float();
            let style = FloatStyle {
                kind: kind.to_ascii_lowercase(),
                precision: spec.precision.map(limited).transpose()?,
                alternate: spec.alternate,
                dot_zero: false,
            };
            let body = float(n, style);
            let body = if kind.is_ascii_uppercase() { body.to_uppercase() } else { body };
            (n.is_sign_negative() && !n.is_nan(), body, "")
        }
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    let sign = Text::template(&format!("{sign}{prefix}"));
    spec.pad(&renderer.budget, &sign, &Text::template(&body), '>')
}
