//! Filters for single values.

use super::{integer, is_true};
use crate::error::{Result, fault};
use crate::interpreter::{Arguments, Renderer};
use crate::unicode::{decimal_value, is_space};
use crate::value::{Numeric, Value, divide, multiply, power, subtract};

pub(super) fn abs(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("abs")?;
    match renderer.number(&value)? {
        Numeric::Int(n) if n < 0 => subtract(&Value::Int(0), &Value::Int(n)),
        Numeric::Int(n) => Ok(Value::Int(n)),
        Numeric::Float(n) => Ok(Value::Float(n.abs())),
    }
}

pub(super) fn attr(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [name] = arguments.bind("attr", ["name"])?;
    let name = name.ok_or_else(|| fault("`attr` needs a name"))?;
    renderer.attribute_only(&value, &renderer.string(&name)?)
}

pub(super) fn default(_: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [default, boolean] = arguments.bind("default", ["default_value", "boolean"])?;
    let missing = matches!(value, Value::Undefined(_)) || (is_true(boolean, false) && !value.is_true());
    Ok(if missing { default.unwrap_or_else(|| Value::text("")) } else { value })
}

pub(super) fn string(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    arguments.none("string")?;
    renderer.string(&value).map(Value::Str)
}

/// Converts the text of a Python number to ASCII: removes spaces around it and underscores between digits,
/// and converts digits of any script.
fn normalized(text: &str) -> Option<String> {
    let text = text.trim_matches(is_space);
    let mut out = String::new();
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '_' {
            let between = before.is_ascii_alphanumeric() && chars.peek().is_some_and(|c| c.is_alphanumeric());
            if !between {
                return None;
            }
        } else {
            out.push(decimal_value(c).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c));
        }
        before = out.chars().last().filter(|_| c != '_').unwrap_or('_');
    }
    Some(out)
}

/// Parses `int(text, base)`.
fn parse_int(text: &str, base: i128) -> Option<i128> {
    let text = normalized(text)?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, radix)| {
        let rest = lower.strip_prefix(prefix)?;
        (base == radix || base == 0).then_some((rest, radix))
    });
    let (digits, base) = match prefixed {
        Some(prefixed) => prefixed,
        None if base == 0 => {
            if lower.starts_with('0') && lower.bytes().any(|b| b != b'0') {
                return None;
            }
            (lower.as_str(), 10)
        }
        None => (lower.as_str(), base),
    };
    let radix = u32::try_from(base).ok().filter(|radix| (2..=36).contains(radix))?;
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// Parses `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    let text = normalized(text)?.to_ascii_lowercase();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if number || matches!(unsigned, "inf" | "infinity" | "nan") { text.parse().ok() } else { None }
}

fn truncated(n: f64) -> Option<Value> {
    (n.is_finite() && n.abs() < 1e38).then(|| Value::Int(n.trunc() as i128))
}

pub(super) fn int(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [default, base] = arguments.bind("int", ["default", "base"])?;
    let base = integer("int", base.as_ref(), 10)?;
    let converted = match &value {
        Value::Undefined(missing) => return Err(fault(missing.message())),
        Value::Str(text) => {
            renderer.budget.read(text.len().saturating_mul(8))?;
            parse_int(text.as_str(), base)
                .map(Value::Int)
                .or_else(|| parse_float(text.as_str()).and_then(truncated))
        }
        Value::Float(n) if n.is_infinite() => return Err(fault("an infinite number is no integer")),
        other => match Numeric::of(other) {
            Some(Numeric::Int(n)) => Some(Value::Int(n)),
            Some(Numeric::Float(n)) => truncated(n),
            None => None,
        },
    };
    Ok(converted.or(default).unwrap_or(Value::Int(0)))
}

pub(super) fn float(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [default] = arguments.bind("float", ["default"])?;
    let converted = match &value {
        Value::Undefined(missing) => return Err(fault(missing.message())),
        Value::Str(text) => {
            renderer.budget.read(text.len().saturating_mul(8))?;
            parse_float(text.as_str())
        }
        other => Numeric::of(other).map(Numeric::float),
    };
    Ok(converted.map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
}

pub(super) fn round(renderer: &Renderer<'_>, value: Value, arguments: Arguments) -> Result<Value> {
    let [precision, method] = arguments.bind("round", ["precision", "method"])?;
    let precision = integer("round", precision.as_ref(), 0)?;
    let number = renderer.number(&value)?;
    match method.as_ref().map_or(Some("common"), Value::as_str) {
        Some("common") => match number {
            Numeric::Int(n) => round_int(n, precision),
            Numeric::Float(n) => Ok(Value::Float(round_float(n, precision))),
        },
        Some(method @ ("ceil" | "floor")) => {
            let scale = power(&Value::Int(10), &Value::Int(precision))?;
            let whole = match Numeric::of(&multiply(&value, &scale)?) {
                Some(Numeric::Float(n)) => {
                    let n = if method == "ceil" { n.ceil() } else { n.floor() };
                    truncated(n).ok_or_else(|| fault("the number is too large to round"))?
                }
                Some(Numeric::Int(n)) => Value::Int(n),
                None => value,
            };
            divide(&whole, &scale)
        }
        _ => Err(fault("`round` knows the methods 'common', 'ceil' and 'floor'")),
    }
}

fn round_int(n: i128, precision: i128) -> Result<Value> {
    if precision >= 0 {
        return Ok(Value::Int(n));
    }
    let scale = u32::try_from(-precision).ok().and_then(|digits| 10_i128.checked_pow(digits));
    let Some(scale) = scale else { return Ok(Value::Int(0)) };
    let (down, rest) = (n.div_euclid(scale), n.rem_euclid(scale));
    let up = rest * 2 > scale || (rest * 2 == scale && down % 2 != 0);
    multiply(&Value::Int(down + i128::from(up)), &Value::Int(scale))
}

/// Rounds like Python's `round(n, precision)`: to the nearest decimal of the exact value, ties to even.
fn round_float(n: f64, precision: i128) -> f64 {
    if !n.is_finite() || precision > 330 {
        return n;
    }
    if precision >= 0 {
        let precision = precision as usize;
        return format!("{n:.precision$}").parse().unwrap_or(n);
    }
    if precision < -330 {
        return 0.0_f64.copysign(n);
    }
    let scale = 10_f64.powi(precision.unsigned_abs() as i32);
    let scaled = n / scale;
    let rounded =
        if (scaled - scaled.trunc()).abs() == 0.5 { (scaled / 2.0).round() * 2.0 } else { scaled.round() };
    rounded * scale
}
