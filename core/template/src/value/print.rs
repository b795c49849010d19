//! Python's `str` and `repr` of values.

use super::{Value, View};
use crate::error::{Result, fault};
use crate::text::{Builder, Text};
use crate::unicode::is_printable;

/// Most values inside each other that are printed; a namespace may contain itself.
const DEPTH_LIMIT: u32 = 200;

impl Value {
    /// Writes `str(value)`.
    pub(crate) fn print(&self, out: &mut Builder) -> Result<()> {
        match self {
            Self::Str(text) => out.push(text),
            Self::Undefined(_) => Ok(()),
            other => other.print_repr(out, 0),
        }
    }

    /// Writes `repr(value)`.
    pub(crate) fn repr(&self, out: &mut Builder) -> Result<()> {
        self.print_repr(out, 0)
    }

    fn print_repr(&self, out: &mut Builder, depth: u32) -> Result<()> {
        if depth > DEPTH_LIMIT {
            return Err(fault("a value that holds itself can't be printed"));
        }
        out.budget().step(1)?;
        out.budget().check_stack()?;
        match self {
            Self::Undefined(_) => out.push_str("Undefined"),
            Self::None => out.push_str("None"),
            Self::Bool(true) => out.push_str("True"),
            Self::Bool(false) => out.push_str("False"),
            Self::Int(n) => out.push_str(&n.to_string()),
            Self::Float(n) => out.push_str(&float_repr(*n)),
            Self::Str(text) if text.is_markup() => {
                out.push_str("Markup(")?;
                text_repr(text, false, out)?;
                out.push_str(")")
            }
            Self::Str(text) => text_repr(text, false, out),
            Self::List(list) => {
                out.push_str("[")?;
                sequence(&list.items, out, depth)?;
                out.push_str("]")
            }
            Self::Tuple(list) => {
                out.push_str("(")?;
                sequence(&list.items, out, depth)?;
                out.push_str(if list.items.len() == 1 { ",)" } else { ")" })
            }
            Self::Dict(dict) => {
                out.push_str("{")?;
                entries(dict.map.iter().map(|(key, value)| (key.value(), value)), out, depth)?;
                out.push_str("}")
            }
            Self::View(view, dict) => {
                out.push_str(self.type_name())?;
                out.push_str("([")?;
                for (i, (key, value)) in dict.map.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" })?;
                    match view {
                        View::Keys => key.value().print_repr(out, depth + 1)?,
                        View::Values => value.print_repr(out, depth + 1)?,
                        View::Items => {
                            out.push_str("(")?;
                            key.value().print_repr(out, depth + 1)?;
                            out.push_str(", ")?;
                            value.print_repr(out, depth + 1)?;
                            out.push_str(")")?;
                        }
                    }
                }
                out.push_str("])")
            }
            Self::Range(range) if range.step == 1 => {
                out.push_str(&format!("range({}, {})", range.start, range.stop))
            }
            Self::Range(range) => {
                out.push_str(&format!("range({}, {}, {})", range.start, range.stop, range.step))
            }
            Self::Namespace(namespace) => {
                out.push_str("<Namespace {")?;
                let attributes = namespace.attributes.borrow();
                entries(attributes.iter().map(|(key, value)| (key.value(), value)), out, depth)?;
                out.push_str("}>")
            }
            Self::Loop(this) => out.push_str(&this.describe()),
            Self::Macro(this) => match &this.definition.name {
                Some(name) => out.push_str(&format!("<Macro '{name}'>")),
                None => out.push_str("<Macro anonymous>"),
            },
            other => out.push_str(&format!("<{} object>", other.type_name())),
        }
    }
}

fn sequence(items: &[Value], out: &mut Builder, depth: u32) -> Result<()> {
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" })?;
        item.print_repr(out, depth + 1)?;
    }
    Ok(())
}

fn entries<'v>(
    entries: impl std::iter::Iterator<Item = (&'v Value, &'v Value)>,
    out: &mut Builder,
    depth: u32,
) -> Result<()> {
    for (i, (key, value)) in entries.enumerate() {
        out.push_str(if i > 0 { ", " } else { "" })?;
        key.print_repr(out, depth + 1)?;
        out.push_str(": ")?;
        value.print_repr(out, depth + 1)?;
    }
    Ok(())
}

/// Writes `repr(text)`, or `ascii(text)`: the quotes are the template's, the text keeps its origin.
pub(crate) fn text_repr(text: &Text, ascii: bool, out: &mut Builder) -> Result<()> {
    let quote = if text.as_str().contains('\'') && !text.as_str().contains('"') { '"' } else { '\'' };
    out.push_char(quote, false)?;
    // A character takes longer than a copied byte.
    out.budget().read(text.len().saturating_mul(4))?;
    let plain = |c: char| c != quote && c != '\\' && is_printable(c) && (!ascii || c.is_ascii());
    for (part, foreign) in text.parts(0..text.len()) {
        let mut rest = &text.as_str()[part];
        while !rest.is_empty() {
            let end = rest.find(|c| !plain(c)).unwrap_or(rest.len());
            out.push_as(&rest[..end], foreign)?;
            rest = &rest[end..];
            let Some(c) = rest.chars().next() else { break };
            rest = &rest[c.len_utf8()..];
            let code = c as u32;
            let escaped = match c {
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                c if c == quote => format!("\\{c}"),
                _ if code < 0x100 => format!("\\x{code:02x}"),
                _ if code < 0x10000 => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            };
            out.push_as(&escaped, foreign)?;
        }
    }
    out.push_char(quote, false)
}

/// Returns the `repr` of a float: the shortest digits that read back as the same number.
pub(crate) fn float_repr(n: f64) -> String {
    if n.is_nan() {
        return "nan".into();
    }
    if n.is_infinite() {
        return if n > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{n:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if n != 0.0 && !(-4..16).contains(&exponent) {
        return exponent_form(digits, exponent);
    }
    let plain = format!("{n}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// Formats digits and an exponent like Python: a sign and at least two digits.
pub(crate) fn exponent_form(digits: &str, exponent: i32) -> String {
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}
