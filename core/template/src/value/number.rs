//! Arithmetic by Python's rules, on integers of 128 bits and floats of 64.

use std::cmp::Ordering;

use super::Value;
use crate::error::{Error, Result, fault};

/// A number; booleans are 0 and 1.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Numeric {
    Int(i128),
    Float(f64),
}

impl Numeric {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Int(i128::from(*b))),
            Value::Int(n) => Some(Self::Int(*n)),
            Value::Float(n) => Some(Self::Float(*n)),
            _ => None,
        }
    }

    pub(crate) fn float(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(n) => n,
        }
    }

    /// Returns the number as an integer, if it is whole.
    pub(crate) fn whole(self) -> Option<i128> {
        match self {
            Self::Int(n) => Some(n),
            Self::Float(n) => (n.fract() == 0.0 && n.abs() < 1e38).then_some(n as i128),
        }
    }

    pub(crate) fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (a, b) => match (a.whole(), b.whole()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => a.float().partial_cmp(&b.float()),
            },
        }
    }
}

fn too_large() -> Error {
    fault("the result is too large; integers have at most 128 bits")
}

/// Converts two values to numbers, or returns an error that names the operation.
fn numbers(what: &str, left: &Value, right: &Value) -> Result<(Numeric, Numeric)> {
    for side in [left, right] {
        if let Value::Undefined(missing) = side {
            return Err(fault(missing.message()));
        }
    }
    match (Numeric::of(left), Numeric::of(right)) {
        (Some(a), Some(b)) => Ok((a, b)),
        _ => Err(fault(format!(
            "can't {what} {} and {}; numbers are needed",
            left.described(),
            right.described()
        ))),
    }
}

/// Applies an operation to two integers or two floats.
fn arithmetic(
    what: &str,
    left: &Value,
    right: &Value,
    ints: fn(i128, i128) -> Option<i128>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value> {
    match numbers(what, left, right)? {
        (Numeric::Int(a), Numeric::Int(b)) => ints(a, b).map(Value::Int).ok_or_else(too_large),
        (a, b) => Ok(Value::Float(floats(a.float(), b.float()))),
    }
}

pub(crate) fn add_numbers(left: &Value, right: &Value) -> Result<Value> {
    arithmetic("add", left, right, i128::checked_add, |a, b| a + b)
}

pub(crate) fn subtract(left: &Value, right: &Value) -> Result<Value> {
    arithmetic("subtract", left, right, i128::checked_sub, |a, b| a - b)
}

pub(crate) fn multiply(left: &Value, right: &Value) -> Result<Value> {
    arithmetic("multiply", left, right, i128::checked_mul, |a, b| a * b)
}

fn not_zero(right: Numeric) -> Result<()> {
    match right {
        Numeric::Int(0) => Err(fault("division by zero")),
        Numeric::Float(0.0) => Err(fault("division by zero")),
        _ => Ok(()),
    }
}

pub(crate) fn divide(left: &Value, right: &Value) -> Result<Value> {
    let (a, b) = numbers("divide", left, right)?;
    not_zero(b)?;
    Ok(Value::Float(a.float() / b.float()))
}

pub(crate) fn floor_divide(left: &Value, right: &Value) -> Result<Value> {
    let (a, b) = numbers("divide", left, right)?;
    not_zero(b)?;
    if let (Numeric::Int(a), Numeric::Int(b)) = (a, b) {
        let quotient = a.checked_div(b).ok_or_else(too_large)?;
        let inexact = a % b != 0 && (a < 0) != (b < 0);
        return Ok(Value::Int(quotient - i128::from(inexact)));
    }
    Ok(Value::Float(float_divmod(a.float(), b.float()).0))
}

pub(crate) fn modulo(left: &Value, right: &Value) -> Result<Value> {
    let (a, b) = numbers("divide", left, right)?;
    not_zero(b)?;
    if let (Numeric::Int(a), Numeric::Int(b)) = (a, b) {
        let rest = a.checked_rem(b).unwrap_or(0);
        return Ok(Value::Int(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }));
    }
    Ok(Value::Float(float_divmod(a.float(), b.float()).1))
}

/// Returns the floor of the quotient, and the remainder with the divisor's sign.
fn float_divmod(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (b < 0.0) != (rest < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

pub(crate) fn power(left: &Value, right: &Value) -> Result<Value> {
    let (a, b) = numbers("raise", left, right)?;
    if let (Numeric::Int(a), Numeric::Int(b)) = (a, b)
        && b >= 0
    {
        return match a {
            0 | 1 => Ok(Value::Int(if b == 0 { 1 } else { a })),
            -1 => Ok(Value::Int(if b % 2 == 0 { 1 } else { -1 })),
            _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)).map(Value::Int).ok_or_else(too_large),
        };
    }
    let (a, b) = (a.float(), b.float());
    if a == 0.0 && b < 0.0 {
        return Err(fault("zero can't be raised to a negative power"));
    }
    if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 {
        return Err(fault("a negative number can't be raised to a fraction"));
    }
    let result = a.powf(b);
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(fault("the power is too large for a float"));
    }
    Ok(Value::Float(result))
}
