//! Filters for texts.

use super::{integer, is_true};
use crate::error::{Result, fault};
use crate::format as formats;
use crate::interpreter::{Arguments, Renderer};
use crate::methods;
use crate::text::{Builder, Text};
use crate::unicode::{is_space, is_word, push_upper};
use crate::value::{Dict, Items, Value};

pub(super) fn upper(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("upper")?;
    methods::upper(&renderer.budget, &renderer.string(&value)?).map(Value::Str)
}

pub(super) fn lower(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("lower")?;
    methods::lower(&renderer.budget, &renderer.string(&value)?).map(Value::Str)
}

pub(super) fn capitalize(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("capitalize")?;
    methods::capitalize(&renderer.budget, &renderer.string(&value)?).map(Value::Str)
}

/// Capitalizes words, which begin after spaces, hyphens and opening brackets.
pub(super) fn title(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("title")?;
    let text = renderer.string(&value)?;
    let mut begins = true;
    let titled = text.map_chars(&renderer.budget, |at, c, out| {
        let between = is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
        if begins {
            push_upper(c, out)
        } else {
            methods::push_lower_at(text.as_str(), at, c, out)
        }
        begins = between;
    })?;
    Ok(Value::Str(titled))
}

pub(super) fn trim(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [chars] = arguments.bind("trim", ["chars"])?;
    let text = Value::Str(renderer.string(&value)?);
    methods::call(renderer, &text, "strip", Arguments::of(chars.into_iter().collect()))
}

pub(super) fn replace(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [old, new, count] = arguments.bind("replace", ["old", "new", "count"])?;
    let (Some(old), Some(new)) = (old, new) else {
        return Err(fault("`replace` needs a text to replace and what comes in its place"));
    };
    let count = count.filter(|count| !matches!(count, Value::None));
    let count = usize::try_from(integer("replace", count.as_ref(), -1)?).ok();
    let (text, old, new) = (renderer.string(&value)?, renderer.string(&old)?, renderer.string(&new)?);
    methods::replace(&renderer.budget, &text, &old, &new, count).map(|text| Value::Str(text.as_markup(false)))
}

pub(super) fn center(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [width] = arguments.bind("center", ["width"])?;
    let text = Value::Str(renderer.string(&value)?);
    methods::call(renderer, &text, "center", Arguments::of(vec![width.unwrap_or(Value::Int(80))]))
}

pub(super) fn format(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let budget = &renderer.budget;
    let text = renderer.string(&value)?;
    if !arguments.named.is_empty() && !arguments.positional.is_empty() {
        return Err(fault("`format` takes values with names or without, not both"));
    }
    let values = if arguments.named.is_empty() {
        let mut items = Items::new(budget)?;
        arguments.positional.into_iter().try_for_each(|value| items.push(value))?;
        items.tuple()?
    } else {
        Dict::of_entries(budget, arguments.named.into_iter().map(|(name, value)| (Value::Str(name), value)))?
    };
    formats::percent(renderer, &text, &values).map(Value::Str)
}

pub(super) fn wordcount(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("wordcount")?;
    let text = renderer.string(&value)?;
    renderer.budget.read(text.len().saturating_mul(8))?;
    let words = text.as_str().split(|c| !is_word(c)).filter(|word| !word.is_empty());
    Ok(Value::Int(words.count() as i128))
}

/// Puts spaces, or another text, before lines; before the first line and blank ones only if asked for.
pub(super) fn indent(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [width, first, blank] = arguments.bind("indent", ["width", "first", "blank"])?;
    let text = match &value {
        Value::Str(text) => text.clone(),
        other => {
            return Err(fault(format!("{} can't be indented; convert it with `string`", other.described())));
        }
    };
    let indention = match &width {
        Some(Value::Str(text)) => text.clone(),
        other => {
            let width = usize::try_from(integer("indent", other.as_ref(), 4)?).unwrap_or(0);
            let mut out = Builder::new(&renderer.budget);
            out.repeat(&Text::template(" "), width)?;
            out.finish()
        }
    };
    let blank = is_true(blank, false);
    let mut out = Builder::new(&renderer.budget);
    if is_true(first, false) {
        out.push(&indention)?;
    }
    // A line break behind the text makes an empty last line visible.
    let newline = Text::template("\n");
    let budget = &renderer.budget;
    let mut whole = Builder::new(budget);
    whole.push(&text)?;
    whole.push(&newline)?;
    let whole = whole.finish();
    for (number, (line, end)) in methods::lines(whole.as_str()).enumerate() {
        budget.step(1)?;
        if number > 0 && (blank || !line.is_empty()) {
            out.push(&indention)?;
        }
        let is_last = end == whole.len();
        out.push_slice(&whole, line.clone())?;
        if !is_last {
            // Any line break becomes `\n`.
            out.push_as("\n", whole.is_foreign(line.end))?;
        }
    }
    Ok(Value::Str(out.finish().as_markup(text.is_markup())))
}

pub(super) fn truncate(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let budget = &renderer.budget;
    let names = ["length", "killwords", "end", "leeway"];
    let [length, killwords, end, leeway] = arguments.bind("truncate", names)?;
    let Value::Str(text) = &value else {
        return Err(fault(format!("{} can't be truncated; convert it with `string`", value.described())));
    };
    let length = integer("truncate", length.as_ref(), 255)?;
    let leeway = integer("truncate", leeway.filter(|value| !matches!(value, Value::None)).as_ref(), 5)?;
    let end = match end {
        Some(value) => renderer.string(&value)?,
        None => Text::template("..."),
    };
    if length < end.chars() as i128 || leeway < 0 {
        return Err(fault("`truncate` needs a length of at least that of its end, and no negative leeway"));
    }
    budget.read(text.len())?;
    if text.chars() as i128 <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let kept = text.byte_of(usize::try_from(length).unwrap_or(usize::MAX) - end.chars());
    let kept = if is_true(killwords, false) {
        kept
    } else {
        methods::rsplit_once_space(&text.as_str()[..kept]).len()
    };
    let mut out = Builder::new(budget);
    out.push_slice(text, 0..kept)?;
    out.push(&end)?;
    Ok(Value::Str(out.finish()))
}

pub(super) fn filesizeformat(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [binary] = arguments.bind("filesizeformat", ["binary"])?;
    let binary = is_true(binary, false);
    let bytes = super::values::float(renderer, value, Arguments::default())?;
    let Value::Float(bytes) = bytes else { return Ok(bytes) };
    let base = if binary { 1024.0 } else { 1000.0 };
    let units = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
    };
    let spelled = if bytes == 1.0 {
        "1 Byte".to_owned()
    } else if bytes < base {
        format!("{} Bytes", bytes.trunc())
    } else {
        let mut unit = base * base;
        let mut at = 0;
        while at + 1 < units.len() && bytes >= unit {
            unit *= base;
            at += 1;
        }
        format!("{:.1} {}", base * bytes / unit, units[at])
    };
    Ok(Value::text(&spelled))
}
