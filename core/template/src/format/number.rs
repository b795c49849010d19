//! Digits of numbers.

use crate::value::{exponent_form, float_repr};

/// Returns an integer's digits in a base, without its sign.
pub(super) fn digits(n: u128, base: u32, upper: bool) -> String {
    match base {
        2 => format!("{n:b}"),
        8 => format!("{n:o}"),
        16 if upper => format!("{n:X}"),
        16 => format!("{n:x}"),
        _ => n.to_string(),
    }
}

/// The spelling of a float.
#[derive(Clone, Copy)]
pub(super) struct FloatStyle {
    /// `e`, `f`, `g`, `%`, or `r` for Python's `repr`.
    pub(super) kind: char,
    pub(super) precision: Option<usize>,
    /// Keeps the decimal point, and with `g` trailing zeros.
    pub(super) alternate: bool,
    /// Adds `.0` to a whole number.
    pub(super) dot_zero: bool,
}

/// Formats a float without its sign. The precision has to be small; a double has at most 1,100 significant
/// digits.
pub(super) fn float(n: f64, style: FloatStyle) -> String {
    let FloatStyle { kind, precision, alternate, dot_zero } = style;
    let n = n.abs();
    if n.is_nan() {
        return if kind == '%' { "nan%".into() } else { "nan".into() };
    }
    if n.is_infinite() {
        return if kind == '%' { "inf%".into() } else { "inf".into() };
    }
    match kind {
        'r' => {
            let spelled = float_repr(n);
            if dot_zero { spelled } else { spelled.strip_suffix(".0").map_or(spelled.clone(), str::to_owned) }
        }
        '%' => fixed(n * 100.0, precision.unwrap_or(6), alternate) + "%",
        'f' => fixed(n, precision.unwrap_or(6), alternate),
        'e' => {
            let (digits, exponent) = scientific(n, precision.unwrap_or(6));
            let point = if alternate && !digits.contains('.') { "." } else { "" };
            exponent_form(&(digits + point), exponent)
        }
        _ => general(n, precision.unwrap_or(6).max(1), alternate, dot_zero),
    }
}

fn fixed(n: f64, precision: usize, alternate: bool) -> String {
    let spelled = format!("{n:.precision$}");
    if alternate && precision == 0 { spelled + "." } else { spelled }
}

fn scientific(n: f64, precision: usize) -> (String, i32) {
    let spelled = format!("{n:.precision$e}");
    let (digits, exponent) = spelled.split_once('e').unwrap_or((&spelled, "0"));
    (digits.to_owned(), exponent.parse().unwrap_or(0))
}

fn general(n: f64, precision: usize, alternate: bool, dot_zero: bool) -> String {
    let (digits, exponent) = scientific(n, precision - 1);
    let strip = |spelled: String| {
        if alternate || !spelled.contains('.') {
            return spelled;
        }
        spelled.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let last = precision as i32 - i32::from(dot_zero);
    if exponent < -4 || exponent >= last {
        return exponent_form(&strip(digits), exponent);
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    let spelled = strip(format!("{n:.decimals$}"));
    if dot_zero && !spelled.contains('.') {
        return spelled + ".0";
    }
    if alternate && !spelled.contains('.') { spelled + "." } else { spelled }
}

/// Returns digits with a separator between groups.
pub(super) fn grouped(digits: &str, separator: char, size: usize) -> String {
    let (whole, rest) = match digits.find(|c: char| !c.is_ascii_hexdigit()) {
        Some(at) => digits.split_at(at),
        None => (digits, ""),
    };
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(size) {
            out.push(separator);
        }
        out.push(c);
    }
    out + rest
}
