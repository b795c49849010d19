//! JSON in the format of Python's `json.dumps`, for which templates were written: `", "` and `": "` between
//! items, no unnecessary escapes.

use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::text::{Builder, Text};
use crate::value::{Dict, Value, float_repr};

/// The layout of JSON, named like the arguments of `json.dumps`.
struct Layout {
    ensure_ascii: bool,
    indent: Option<Text>,
    item_separator: Text,
    key_separator: Text,
    sort_keys: bool,
}

/// The filter `tojson`, with the arguments of transformers.
pub(crate) fn tojson(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = arguments.bind("tojson", names)?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text),
        Some(other) => {
            let width = other.as_int().ok_or_else(|| {
                fault(format!("{} as `indent`, where an integer or a text is needed", other.described()))
            })?;
            let mut out = Builder::new(&renderer.budget);
            out.repeat(&Text::template(" "), usize::try_from(width.max(0)).unwrap_or(usize::MAX))?;
            Some(out.finish())
        }
    };
    let default = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) = match separators {
        None | Some(Value::None) => (Text::template(default), Text::template(": ")),
        Some(Value::List(list) | Value::Tuple(list)) => match &list.items[..] {
            [Value::Str(item), Value::Str(key)] => (item.clone(), key.clone()),
            _ => return Err(fault("`separators` needs two texts: between items, and behind keys")),
        },
        Some(_) => return Err(fault("`separators` needs two texts: between items, and behind keys")),
    };
    let layout = Layout {
        ensure_ascii: is_true(ensure_ascii),
        indent,
        item_separator,
        key_separator,
        sort_keys: is_true(sort_keys),
    };
    let mut out = Builder::new(&renderer.budget);
    layout.value(renderer, &value, 0, &mut out)?;
    Ok(Value::Str(out.finish()))
}

impl Layout {
    fn value(&self, renderer: &Renderer<'_>, value: &Value, depth: usize, out: &mut Builder) -> Result<()> {
        renderer.budget.step(1)?;
        renderer.check_stack()?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Int(n) => out.push_str(&n.to_string()),
            Value::Float(n) => out.push_str(&number(*n)),
            Value::Str(text) => self.string(text, out),
            Value::List(list) | Value::Tuple(list) => {
                out.push_str("[")?;
                for (i, item) in list.items.iter().enumerate() {
                    self.between(i, depth + 1, out)?;
                    self.value(renderer, item, depth + 1, out)?;
                }
                self.close(list.items.is_empty(), "]", depth, out)
            }
            Value::Dict(dict) => self.dict(renderer, dict, depth, out),
            other => Err(fault(format!("{} can't be written as JSON", other.described()))),
        }
    }

    fn dict(&self, renderer: &Renderer<'_>, dict: &Dict, depth: usize, out: &mut Builder) -> Result<()> {
        let mut entries: Vec<_> = dict.map.iter().map(|(key, value)| (key.value(), value)).collect();
        let _entries = renderer.budget.charge(entries.len() * size_of::<(&Value, &Value)>())?;
        if self.sort_keys {
            entries = crate::filters::sorted(renderer, entries, |entry| entry.0)?;
        }
        out.push_str("{")?;
        for (i, (key, value)) in entries.iter().enumerate() {
            self.between(i, depth + 1, out)?;
            let key = match key {
                Value::Str(text) => text.clone(),
                Value::None => Text::template("null"),
                Value::Bool(b) => Text::template(if *b { "true" } else { "false" }),
                Value::Int(n) => Text::template(&n.to_string()),
                Value::Float(n) => Text::template(&number(*n)),
                other => return Err(fault(format!("{} can't be a key in JSON", other.described()))),
            };
            self.string(&key, out)?;
            out.push(&self.key_separator)?;
            self.value(renderer, value, depth + 1, out)?;
        }
        self.close(entries.is_empty(), "}", depth, out)
    }

    /// Writes the separator and indentation before an item.
    fn between(&self, index: usize, depth: usize, out: &mut Builder) -> Result<()> {
        if index > 0 {
            out.push(&self.item_separator)?;
        }
        self.line(depth, out)
    }

    fn close(&self, empty: bool, bracket: &str, depth: usize, out: &mut Builder) -> Result<()> {
        if !empty {
            self.line(depth, out)?;
        }
        out.push_str(bracket)
    }

    fn line(&self, depth: usize, out: &mut Builder) -> Result<()> {
        match &self.indent {
            Some(indent) => {
                out.push_str("\n")?;
                out.repeat(indent, depth)
            }
            None => Ok(()),
        }
    }

    /// Writes a text in quotes: the quotes are the template's, the text keeps its origin.
    fn string(&self, text: &Text, out: &mut Builder) -> Result<()> {
        let plain = |c: char| c >= ' ' && c != '"' && c != '\\' && (!self.ensure_ascii || c < '\u{7f}');
        out.push_str("\"")?;
        for (part, foreign) in text.parts(0..text.len()) {
            let mut rest = &text.as_str()[part];
            while !rest.is_empty() {
                let end = rest.find(|c| !plain(c)).unwrap_or(rest.len());
                out.push_as(&rest[..end], foreign)?;
                rest = &rest[end..];
                let Some(c) = rest.chars().next() else { break };
                rest = &rest[c.len_utf8()..];
                match c {
                    '"' => out.push_as("\\\"", foreign)?,
                    '\\' => out.push_as("\\\\", foreign)?,
                    '\n' => out.push_as("\\n", foreign)?,
                    '\r' => out.push_as("\\r", foreign)?,
                    '\t' => out.push_as("\\t", foreign)?,
                    '\u{8}' => out.push_as("\\b", foreign)?,
                    '\u{c}' => out.push_as("\\f", foreign)?,
                    c => {
                        for unit in c.encode_utf16(&mut [0; 2]) {
                            out.push_as(&format!("\\u{unit:04x}"), foreign)?;
                        }
                    }
                }
            }
        }
        out.push_str("\"")
    }
}

/// Writes a float as JSON; for values that JSON lacks, as Python writes them.
fn number(n: f64) -> String {
    if n.is_nan() {
        "NaN".into()
    } else if n.is_infinite() {
        if n > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        float_repr(n)
    }
}
