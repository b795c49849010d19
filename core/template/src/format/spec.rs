//! The specification behind the colon in `{:>8.3f}`.

use std::rc::Rc;

use super::number::{FloatStyle, digits, float, grouped};
use crate::budget::Budget;
use crate::error::{Error, Result, fault};
use crate::text::{Builder, Text};
use crate::value::{Numeric, Value};

/// Most digits behind the point.
const PRECISION_LIMIT: usize = 4096;

/// A format specification.
#[derive(Clone, Copy, Default)]
pub(super) struct Spec {
    pub(super) fill: Option<(char, bool)>,
    pub(super) align: Option<char>,
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

fn invalid(spec: &str) -> Error {
    let spec: String = spec.chars().take(40).collect();
    fault(format!("`{spec}` is no format of Python's"))
}

/// Reads digits from the front.
pub(super) fn take_number(rest: &mut &str) -> Result<Option<usize>> {
    let len = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, after) = rest.split_at(len);
    *rest = after;
    if number.is_empty() {
        return Ok(None);
    }
    number.parse().map(Some).map_err(|_| fault(format!("`{}` is too large a width", &number[..20.min(len)])))
}

impl Spec {
    pub(super) fn parse(spec: &Text) -> Result<Self> {
        let text = spec.as_str();
        let mut this = Self::default();
        let mut rest = text;
        let is_align = |c: char| matches!(c, '<' | '>' | '=' | '^');
        let mut chars = rest.chars();
        match (chars.next(), chars.next()) {
            (Some(fill), Some(align)) if is_align(align) => {
                this.fill = Some((fill, spec.is_foreign(0)));
                this.align = Some(align);
                rest = &rest[fill.len_utf8() + 1..];
            }
            (Some(align), _) if is_align(align) => {
                this.align = Some(align);
                rest = &rest[1..];
            }
            _ => {}
        }
        if let Some(sign) = rest.chars().next().filter(|c| matches!(c, '+' | '-' | ' ')) {
            this.sign = Some(sign);
            rest = &rest[1..];
        }
        rest = rest.strip_prefix('z').unwrap_or(rest);
        if let Some(after) = rest.strip_prefix('#') {
            this.alternate = true;
            rest = after;
        }
        if let Some(after) = rest.strip_prefix('0') {
            if this.fill.is_none() {
                this.fill = Some(('0', false));
                this.align = this.align.or(Some('0'));
            }
            rest = after;
        }
        this.width = take_number(&mut rest)?.unwrap_or(0);
        if let Some(grouping) = rest.chars().next().filter(|c| matches!(c, ',' | '_')) {
            this.grouping = Some(grouping);
            rest = &rest[1..];
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            this.precision = Some(take_number(&mut rest)?.ok_or_else(|| invalid(text))?);
        }
        let mut chars = rest.chars();
        this.kind = chars.next();
        if chars.next().is_some() {
            return Err(invalid(text));
        }
        Ok(this)
    }

    /// Formats a value by the specification.
    pub(super) fn apply(&self, budget: &Rc<Budget>, value: &Value, spec: &Text) -> Result<Text> {
        if spec.is_empty() {
            return value.to_text(budget);
        }
        match value {
            Value::Str(text) => self.text(budget, text, spec),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let Some(number) = Numeric::of(value) else { return Err(invalid(spec.as_str())) };
                self.number(budget, number, spec)
            }
            other => {
                Err(fault(format!("{} takes no format; convert it with `string` first", other.described())))
            }
        }
    }

    fn text(&self, budget: &Rc<Budget>, text: &Text, spec: &Text) -> Result<Text> {
        let odd = self.sign.is_some() || self.alternate || self.grouping.is_some() || self.align == Some('=');
        if odd || !matches!(self.kind, None | Some('s')) {
            return Err(invalid(spec.as_str()));
        }
        let end = self.precision.map_or(text.len(), |precision| text.byte_of(precision));
        let body = text.slice(budget, 0..end)?;
        self.pad(budget, &Text::template(""), &body, '<')
    }

    pub(super) fn number(&self, budget: &Rc<Budget>, number: Numeric, spec: &Text) -> Result<Text> {
        let as_float = matches!(self.kind, Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'));
        let (negative, body, prefix) = match number {
            Numeric::Int(n) if !as_float => {
                if self.precision.is_some() {
                    return Err(invalid(spec.as_str()));
                }
                let (base, prefix) = match self.kind {
                    None | Some('d' | 'n') => (10, ""),
                    Some('b') => (2, "0b"),
                    Some('o') => (8, "0o"),
                    Some('x') => (16, "0x"),
                    Some('X') => (16, "0X"),
                    Some('c') => return self.character(budget, n),
                    _ => return Err(invalid(spec.as_str())),
                };
                let body = digits(n.unsigned_abs(), base, self.kind == Some('X'));
                (n < 0, body, if self.alternate { prefix } else { "" })
            }
            number => {
                let n = number.float();
                let kind = match self.kind {
                    None if self.precision.is_none() => 'r',
                    None | Some('n') => 'g',
                    Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => kind.to_ascii_lowercase(),
                    _ => return Err(invalid(spec.as_str())),
                };
                let precision = self.precision.map(limited).transpose()?;
                let (alternate, dot_zero) = (self.alternate, self.kind.is_none());
                let body = float(n, FloatStyle { kind, precision, alternate, dot_zero });
                let upper = matches!(self.kind, Some('E' | 'F' | 'G'));
                (n.is_sign_negative() && !n.is_nan(), if upper { body.to_uppercase() } else { body }, "")
            }
        };
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let sign = Text::template(&format!("{sign}{prefix}"));
        let body = match self.grouping {
            Some(separator) => self.grouped(&body, separator, sign.len(), budget)?,
            None => body,
        };
        self.pad(budget, &sign, &Text::template(&body), '>')
    }

    /// Returns digits in groups, with leading zeros if those fill the width.
    fn grouped(&self, digits: &str, separator: char, sign: usize, budget: &Rc<Budget>) -> Result<String> {
        let size = if matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
        let mut body = grouped(digits, separator, size);
        if self.align == Some('0') {
            let _zeros = budget.charge(self.width)?;
            let mut digits = digits.to_owned();
            let missing = self.width.saturating_sub(sign + body.len());
            // Every group of zeros adds a separator.
            let zeros = missing - missing / (size + 1);
            digits.insert_str(0, &"0".repeat(zeros.saturating_sub(1)));
            body = grouped(&digits, separator, size);
            while sign + body.len() < self.width {
                digits.insert(0, '0');
                body = grouped(&digits, separator, size);
            }
        }
        Ok(body)
    }

    fn character(&self, budget: &Rc<Budget>, code: i128) -> Result<Text> {
        let c = u32::try_from(code).ok().and_then(char::from_u32);
        let c = c.ok_or_else(|| fault(format!("{code} is no character")))?;
        // A number may come from anywhere, so the character counts as foreign.
        self.pad(budget, &Text::template(""), &Text::foreign(c.encode_utf8(&mut [0; 4])), '>')
    }

    /// Returns a sign and a body, filled up to the width.
    pub(super) fn pad(&self, budget: &Rc<Budget>, sign: &Text, body: &Text, default: char) -> Result<Text> {
        let missing = self.width.saturating_sub(sign.chars() + body.chars());
        let align = match self.align {
            // The zero of `05` fills numbers behind their sign, and texts at their end.
            Some('0') => {
                if default == '>' {
                    '='
                } else {
                    '<'
                }
            }
            Some(align) => align,
            None => default,
        };
        let (before, between, after) = match align {
            '>' => (missing, 0, 0),
            '=' => (0, missing, 0),
            '^' => (missing / 2, 0, missing - missing / 2),
            _ => (0, 0, missing),
        };
        let (fill, foreign) = self.fill.unwrap_or((' ', false));
        let fill = Text::new(fill.encode_utf8(&mut [0; 4]), foreign);
        let mut out = Builder::new(budget);
        out.repeat(&fill, before)?;
        out.push(sign)?;
        out.repeat(&fill, between)?;
        out.push(body)?;
        out.repeat(&fill, after)?;
        Ok(out.finish())
    }
}

/// Refuses a precision beyond [`PRECISION_LIMIT`].
pub(super) fn limited(precision: usize) -> Result<usize> {
    if precision > PRECISION_LIMIT {
        return Err(fault(format!("at most {PRECISION_LIMIT} digits behind the point can be asked for")));
    }
    Ok(precision)
}
