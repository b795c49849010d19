//! Evaluates expressions.

use std::cmp::Ordering;
use std::rc::Rc;

use super::{Renderer, Scope};
use crate::ast::{Binary, Compare, Expr, Op};
use crate::error::{At, Result, fault};
use crate::format;
use crate::html;
use crate::text::{Builder, Text};
use crate::value::{
    Dict, Items, Missing, Numeric, Value, add_numbers, contains, divide, equal, floor_divide, modulo,
    multiply, order, power, subtract,
};

impl Renderer<'_> {
    pub(crate) fn eval(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.budget.step(1)?;
        match expr {
            Expr::None => Ok(Value::None),
            Expr::Bool(b) => Ok(Value::Bool(*b)),
            Expr::Int(n) => Ok(Value::Int(*n)),
            Expr::Float(n) => Ok(Value::Float(*n)),
            Expr::Text(number) => Ok(Value::Str(self.text(*number).clone())),
            Expr::Name(symbol) => self.lookup(*symbol, scope),
            Expr::Postfix(value, ops) => {
                self.check_stack()?;
                self.postfix(value, ops, scope)
            }
            Expr::Binary(first, rest) => {
                self.check_stack()?;
                self.binary(first, rest, scope)
            }
            _ => {
                self.check_stack()?;
                self.compound(expr, scope)
            }
        }
    }

    fn compound(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match expr {
            Expr::List(items) => self.items(items, scope)?.list(),
            Expr::Tuple(items) => self.items(items, scope)?.tuple(),
            Expr::Dict(entries) => {
                let mut evaluated = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    evaluated.push((self.eval(key, scope)?, self.eval(value, scope)?));
                }
                Dict::of_entries(&self.budget, evaluated)
            }
            Expr::Concat(items) => self.concat(items, scope),
            Expr::Compare(first, rest) => self.compare(first, rest, scope),
            Expr::And(items) | Expr::Or(items) => {
                let stop = matches!(expr, Expr::Or(_));
                let mut value = Value::None;
                for item in items {
                    value = self.eval(item, scope)?;
                    if value.is_true() == stop {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::Not(value) => Ok(Value::Bool(!self.eval(value, scope)?.is_true())),
            Expr::Negative(value) => {
                let value = self.eval(value, scope)?;
                match &value {
                    // Negating a float also flips the sign of zero.
                    Value::Float(n) => Ok(Value::Float(-n)),
                    other => subtract(&Value::Int(0), other),
                }
            }
            Expr::Positive(value) => {
                let value = self.eval(value, scope)?;
                match &value {
                    Value::Float(n) => Ok(Value::Float(*n)),
                    other => subtract(other, &Value::Int(0)),
                }
            }
            Expr::If { test, then, otherwise } => {
                if self.eval(test, scope)?.is_true() {
                    return self.eval(then, scope);
                }
                match otherwise {
                    Some(otherwise) => self.eval(otherwise, scope),
                    None => Ok(Value::undefined(Missing::Reason("the inline `if` has no `else`"))),
                }
            }
            // All other cases have been handled.
            _ => Ok(Value::None),
        }
    }

    fn items(&self, items: &[Expr], scope: &Rc<Scope>) -> Result<Items> {
        let mut out = Items::new(&self.budget)?;
        for item in items {
            out.push(self.eval(item, scope)?)?;
        }
        Ok(out)
    }

    /// Evaluates a value and the operations on it.
    pub(super) fn postfix(&self, value: &Expr, ops: &[(u32, Op)], scope: &Rc<Scope>) -> Result<Value> {
        let mut value = self.eval(value, scope)?;
        let mut ops = ops.iter().peekable();
        while let Some((line, op)) = ops.next() {
            self.budget.step(1)?;
            // A method that is called at once needs no value of its own.
            if let (Op::Attribute(name), Some((line, Op::Call(arguments)))) = (op, ops.peek())
                && let Some(method) = self.method(&value, self.text(*name).as_str())
            {
                ops.next();
                let arguments = self.arguments(arguments, scope)?;
                value = crate::methods::call(self, &value, method, arguments).at(*line)?;
                continue;
            }
            value = self.operation(value, op, scope).at(*line)?;
        }
        Ok(value)
    }

    fn operation(&self, value: Value, op: &Op, scope: &Rc<Scope>) -> Result<Value> {
        match op {
            Op::Attribute(name) => self.attribute(&value, self.text(*name)),
            Op::Item(index) => {
                let index = self.eval(index, scope)?;
                self.item(&value, &index)
            }
            Op::Slice(parts) => {
                let mut bounds = [None, None, None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    *bound = part.as_ref().map(|part| self.eval(part, scope)).transpose()?;
                }
                self.slice(&value, bounds)
            }
            Op::Call(arguments) => {
                let arguments = self.arguments(arguments, scope)?;
                self.call(&value, arguments)
            }
            Op::Filter { name, filter, arguments } => {
                let filter = filter.ok_or_else(|| fault(format!("there is no filter `{name}`")))?;
                filter(self, value, self.arguments(arguments, scope)?)
            }
            Op::Test { name, test, arguments, negated } => {
                let test = test.ok_or_else(|| fault(format!("there is no test `{name}`")))?;
                let passed = test(self, &value, self.arguments(arguments, scope)?)?;
                Ok(Value::Bool(passed != *negated))
            }
        }
    }

    fn binary(&self, first: &Expr, rest: &[(Binary, Expr)], scope: &Rc<Scope>) -> Result<Value> {
        let mut value = self.eval(first, scope)?;
        let mut rest = rest.iter().peekable();
        while let Some((op, operand)) = rest.next() {
            self.budget.step(1)?;
            let right = self.eval(operand, scope)?;
            value = match (op, value, right) {
                // A chain of added texts is written once, however many there are.
                (Binary::Add, Value::Str(a), Value::Str(b)) if !a.is_markup() && !b.is_markup() => {
                    let mut out = Builder::new(&self.budget);
                    out.push(&a)?;
                    out.push(&b)?;
                    let mut next = None;
                    while let Some((_, operand)) = rest.next_if(|(op, _)| *op == Binary::Add) {
                        match self.eval(operand, scope)? {
                            Value::Str(text) if !text.is_markup() => out.push(&text)?,
                            other => {
                                next = Some(other);
                                break;
                            }
                        }
                    }
                    let text = Value::Str(out.finish());
                    match next {
                        Some(right) => self.operate(Binary::Add, &text, &right)?,
                        None => text,
                    }
                }
                (op, left, right) => self.operate(*op, &left, &right)?,
            };
        }
        Ok(value)
    }

    /// Evaluates `left op right`.
    fn operate(&self, op: Binary, left: &Value, right: &Value) -> Result<Value> {
        match op {
            Binary::Add => self.add(left, right),
            Binary::Multiply => match (left, right) {
                (Value::Str(_) | Value::List(_) | Value::Tuple(_), times)
                | (times, Value::Str(_) | Value::List(_) | Value::Tuple(_))
                    if times.as_int().is_some() =>
                {
                    let sequence = if left.as_int().is_some() { right } else { left };
                    self.repeat(sequence, times.as_int().unwrap_or(0))
                }
                _ => multiply(left, right),
            },
            Binary::Modulo => match left {
                Value::Str(text) => format::percent(self, text, right).map(Value::Str),
                _ => modulo(left, right),
            },
            Binary::Subtract => subtract(left, right),
            Binary::Divide => divide(left, right),
            Binary::FloorDivide => floor_divide(left, right),
            Binary::Power => power(left, right),
        }
    }

    /// Evaluates `left + right`.
    pub(crate) fn add(&self, left: &Value, right: &Value) -> Result<Value> {
        match (left, right) {
            (Value::Str(a), Value::Str(b)) => {
                let markup = a.is_markup() || b.is_markup();
                let mut out = Builder::new(&self.budget);
                for text in [a, b] {
                    if markup && !text.is_markup() {
                        html::escape(text, &mut out)?;
                    } else {
                        out.push(text)?;
                    }
                }
                Ok(Value::Str(out.finish().as_markup(markup)))
            }
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                let mut items = Items::new(&self.budget)?;
                for item in a.items.iter().chain(&b.items) {
                    items.push(item.clone())?;
                }
                if matches!(left, Value::List(_)) { items.list() } else { items.tuple() }
            }
            (Value::Str(_), other) | (other, Value::Str(_)) if !matches!(other, Value::Undefined(_)) => {
                Err(fault(format!(
                    "can't add a text and {}; join them with `~`, or convert with `string`",
                    other.described()
                )))
            }
            _ => add_numbers(left, right),
        }
    }

    fn repeat(&self, sequence: &Value, times: i128) -> Result<Value> {
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        match sequence {
            Value::Str(text) => {
                let mut out = Builder::new(&self.budget);
                out.repeat(text, times)?;
                Ok(Value::Str(out.finish().as_markup(text.is_markup())))
            }
            Value::List(list) | Value::Tuple(list) => {
                let mut items = Items::new(&self.budget)?;
                if !list.items.is_empty() {
                    for _ in 0..times {
                        list.items.iter().try_for_each(|item| items.push(item.clone()))?;
                    }
                }
                if matches!(sequence, Value::List(_)) { items.list() } else { items.tuple() }
            }
            other => Err(fault(format!("{} can't be repeated", other.described()))),
        }
    }

    fn concat(&self, items: &[Expr], scope: &Rc<Scope>) -> Result<Value> {
        let mut out = Builder::new(&self.budget);
        for item in items {
            // Without automatic escaping, `~` joins plain texts, also if they are markup.
            self.eval(item, scope)?.print(&mut out)?;
        }
        Ok(Value::Str(out.finish()))
    }

    fn compare(&self, first: &Expr, rest: &[(Compare, Expr)], scope: &Rc<Scope>) -> Result<Value> {
        let mut left = self.eval(first, scope)?;
        for (op, operand) in rest {
            let right = self.eval(operand, scope)?;
            if !self.compare_values(*op, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    pub(crate) fn compare_values(&self, op: Compare, left: &Value, right: &Value) -> Result<bool> {
        let ordered = |expected: &[Ordering]| {
            for side in [left, right] {
                if let Value::Undefined(missing) = side {
                    return Err(fault(missing.message()));
                }
            }
            Ok(order(&self.budget, left, right)?.is_some_and(|order| expected.contains(&order)))
        };
        match op {
            Compare::Equal => equal(&self.budget, left, right),
            Compare::NotEqual => Ok(!equal(&self.budget, left, right)?),
            Compare::Less => ordered(&[Ordering::Less]),
            Compare::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
            Compare::Greater => ordered(&[Ordering::Greater]),
            Compare::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
            Compare::In => contains(&self.budget, right, left),
            Compare::NotIn => Ok(!contains(&self.budget, right, left)?),
        }
    }

    /// Converts a value to a number.
    pub(crate) fn number(&self, value: &Value) -> Result<Numeric> {
        Numeric::of(value).ok_or_else(|| fault(format!("{} where a number is needed", value.described())))
    }

    /// Evaluates `str(value)`.
    pub(crate) fn string(&self, value: &Value) -> Result<Text> {
        value.to_text(&self.budget)
    }
}
