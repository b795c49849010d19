//! Prints values over several lines, in the layout of Python's `pprint`.

use super::sorted;
use crate::error::Result;
use crate::interpreter::{Arguments, Renderer};
use crate::methods::lines;
use crate::text::{Builder, Text};
use crate::unicode::is_space;
use crate::value::{Dict, Items, Value};

/// Most characters per line.
const WIDTH: usize = 80;

pub(super) fn pprint(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("pprint")?;
    let value = with_sorted_keys(renderer, &value)?;
    let mut printer = Printer { renderer, out: Builder::new(&renderer.budget) };
    printer.value(&value, 0, 0, 1)?;
    Ok(Value::Str(printer.out.finish()))
}

/// Returns the value with the keys of dicts sorted, if they have an order.
fn with_sorted_keys(renderer: &Renderer<'_>, value: &Value) -> Result<Value> {
    renderer.budget.step(1)?;
    renderer.check_stack()?;
    match value {
        Value::Dict(dict) => {
            let entries: Vec<(Value, Value)> =
                dict.map.iter().map(|(key, value)| (key.value().clone(), value.clone())).collect();
            let entries =
                sorted(renderer, entries.clone(), |entry| &entry.0).or_else(|error| match error {
                    crate::Error::Render { .. } => Ok(entries),
                    other => Err(other),
                })?;
            let entries =
                entries.into_iter().map(|(key, value)| Ok((key, with_sorted_keys(renderer, &value)?)));
            Dict::of_entries(&renderer.budget, entries.collect::<Result<Vec<_>>>()?)
        }
        Value::List(list) | Value::Tuple(list) => {
            let mut items = Items::new(&renderer.budget)?;
            for item in &list.items {
                items.push(with_sorted_keys(renderer, item)?)?;
            }
            if matches!(value, Value::List(_)) { items.list() } else { items.tuple() }
        }
        other => Ok(other.clone()),
    }
}

struct Printer<'r, 't> {
    renderer: &'r Renderer<'t>,
    out: Builder,
}

impl Printer<'_, '_> {
    fn repr(&self, value: &Value) -> Result<Text> {
        let mut out = Builder::new(&self.renderer.budget);
        value.repr(&mut out)?;
        Ok(out.finish())
    }

    fn newline(&mut self, indent: usize) -> Result<()> {
        self.out.push_str("\n")?;
        self.out.repeat(&Text::template(" "), indent)
    }

    /// Writes a value that begins at column `indent`, with `allowance` characters behind it.
    fn value(&mut self, value: &Value, indent: usize, allowance: usize, level: usize) -> Result<()> {
        self.renderer.check_stack()?;
        let repr = self.repr(value)?;
        if repr.chars() <= WIDTH.saturating_sub(indent + allowance) {
            return self.out.push(&repr);
        }
        match value {
            Value::Dict(dict) => {
                self.out.push_str("{")?;
                let count = dict.map.len();
                for (i, (key, item)) in dict.map.iter().enumerate() {
                    let key = self.repr(key.value())?;
                    self.out.push(&key)?;
                    self.out.push_str(": ")?;
                    let last = i + 1 == count;
                    let behind = if last { allowance + 1 } else { 1 };
                    self.value(item, indent + 1 + key.chars() + 2, behind, level + 1)?;
                    if !last {
                        self.out.push_str(",")?;
                        self.newline(indent + 1)?;
                    }
                }
                self.out.push_str("}")
            }
            Value::List(list) => {
                self.out.push_str("[")?;
                self.items(&list.items, indent, allowance + 1, level)?;
                self.out.push_str("]")
            }
            Value::Tuple(list) => {
                let close = if list.items.len() == 1 { ",)" } else { ")" };
                self.out.push_str("(")?;
                self.items(&list.items, indent, allowance + close.len(), level)?;
                self.out.push_str(close)
            }
            Value::Str(text) if !text.is_empty() && !text.is_markup() => {
                self.text(text, indent, allowance, level)
            }
            _ => self.out.push(&repr),
        }
    }

    fn items(&mut self, items: &[Value], indent: usize, allowance: usize, level: usize) -> Result<()> {
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push_str(",")?;
                self.newline(indent + 1)?;
            }
            let behind = if i + 1 == items.len() { allowance } else { 1 };
            self.value(item, indent + 1, behind, level + 1)?;
        }
        Ok(())
    }

    /// Writes a long text as several literals, broken at line breaks and spaces.
    fn text(&mut self, text: &Text, indent: usize, allowance: usize, level: usize) -> Result<()> {
        let budget = &self.renderer.budget;
        let outer = usize::from(level == 1);
        let (indent, allowance) = (indent + outer, allowance + outer);
        let width = WIDTH.saturating_sub(indent);
        let _ranges = budget.charge(text.len().saturating_mul(32))?;
        let all: Vec<_> = lines(text.as_str()).collect();
        let mut chunks: Vec<Text> = Vec::new();
        for (i, (line, end)) in all.iter().enumerate() {
            let last = i + 1 == all.len();
            let whole = self.repr(&Value::Str(text.slice(budget, line.start..*end)?))?;
            if whole.chars() <= if last { width.saturating_sub(allowance) } else { width } {
                chunks.push(whole);
                continue;
            }
            let parts = parts(text.as_str(), line.start, *end);
            let mut from = line.start;
            let mut to = line.start;
            for (j, &part) in parts.iter().enumerate() {
                let narrow = last && j + 1 == parts.len();
                let candidate = self.repr(&Value::Str(text.slice(budget, from..part)?))?;
                if candidate.chars() > if narrow { width.saturating_sub(allowance) } else { width } {
                    if to > from {
                        chunks.push(self.repr(&Value::Str(text.slice(budget, from..to)?))?);
                    }
                    from = to;
                }
                to = part;
            }
            if to > from {
                chunks.push(self.repr(&Value::Str(text.slice(budget, from..to)?))?);
            }
        }
        let brackets = outer == 1 && chunks.len() > 1;
        if brackets {
            self.out.push_str("(")?;
        }
        for (i, chunk) in chunks.iter().enumerate() {
            if i > 0 {
                self.newline(indent)?;
            }
            self.out.push(chunk)?;
        }
        if brackets {
            self.out.push_str(")")?;
        }
        Ok(())
    }
}

/// Returns the ends of words, with the white space behind each.
fn parts(text: &str, start: usize, end: usize) -> Vec<usize> {
    let mut parts = Vec::new();
    let mut at = start;
    while at < end {
        let rest = &text[at..end];
        let word = rest.find(is_space).unwrap_or(rest.len());
        let space = rest[word..].find(|c| !is_space(c)).unwrap_or(rest.len() - word);
        at += word + space;
        parts.push(at);
    }
    parts
}
