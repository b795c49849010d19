//! Parses expressions, from the operators of lowest precedence to literals.

use super::Parser;
use crate::ast::{Binary, Compare, Expr};
use crate::error::Result;
use crate::lexer::Token;

impl Parser {
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.nested(Self::conditional)
    }

    /// Parses one expression, or a tuple of several with commas between them.
    pub(super) fn tuple(&mut self, conditional: bool, brackets: bool) -> Result<Expr> {
        let mut items = Vec::new();
        loop {
            let ends =
                matches!(self.token(), Token::VariableEnd | Token::BlockEnd | Token::End) || self.is_op(")");
            if ends {
                if items.is_empty() && !brackets {
                    return self.fail(format!("{} where an expression is needed", self.token().describe()));
                }
                return Ok(Expr::Tuple(items));
            }
            let item = if conditional { self.expression()? } else { self.nested(Self::or)? };
            if self.skip_op(",") {
                items.push(item);
            } else if items.is_empty() {
                return Ok(item);
            } else {
                items.push(item);
                return Ok(Expr::Tuple(items));
            }
        }
    }

    fn conditional(&mut self) -> Result<Expr> {
        let mut value = self.or()?;
        let mut chained = 0;
        while self.skip_name("if") {
            chained += 1;
            if chained > 20 {
                return self.fail("more than 20 conditions behind one value");
            }
            let test = Box::new(self.or()?);
            let otherwise =
                if self.skip_name("else") { Some(Box::new(self.nested(Self::conditional)?)) } else { None };
            value = Expr::If { test, then: Box::new(value), otherwise };
        }
        Ok(value)
    }

    pub(super) fn or(&mut self) -> Result<Expr> {
        let first = self.and()?;
        if !self.is_name("or") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_name("or") {
            items.push(self.and()?);
        }
        Ok(Expr::Or(items))
    }

    fn and(&mut self) -> Result<Expr> {
        let first = self.not()?;
        if !self.is_name("and") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_name("and") {
            items.push(self.not()?);
        }
        Ok(Expr::And(items))
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.nested(Self::not)?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.token() {
                Token::Op("==") => Compare::Equal,
                Token::Op("!=") => Compare::NotEqual,
                Token::Op("<") => Compare::Less,
                Token::Op("<=") => Compare::LessOrEqual,
                Token::Op(">") => Compare::Greater,
                Token::Op(">=") => Compare::GreaterOrEqual,
                Token::Name(name) if name == "in" => Compare::In,
                Token::Name(name)
                    if name == "not" && matches!(self.next_token(), Token::Name(next) if next == "in") =>
                {
                    self.advance();
                    Compare::NotIn
                }
                _ => break,
            };
            self.advance();
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    /// Parses operators of one precedence.
    fn binary(
        &mut self,
        operators: &[(&'static str, Binary)],
        operand: fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Token::Op(op) = self.token() {
            let Some(&(_, op)) = operators.iter().find(|(spelled, _)| spelled == op) else { break };
            self.advance();
            rest.push((op, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Binary(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", Binary::Add), ("-", Binary::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op("~") {
            items.push(self.product()?);
        }
        Ok(Expr::Concat(items))
    }

    fn product(&mut self) -> Result<Expr> {
        let operators = [
            ("*", Binary::Multiply),
            ("/", Binary::Divide),
            ("//", Binary::FloorDivide),
            ("%", Binary::Modulo),
        ];
        self.binary(&operators, Self::power)
    }

    fn power(&mut self) -> Result<Expr> {
        self.binary(&[("**", Binary::Power)], |parser| parser.unary(true))
    }

    fn unary(&mut self, filters: bool) -> Result<Expr> {
        let value = if self.skip_op("-") {
            Expr::Negative(Box::new(self.nested(|p| p.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Positive(Box::new(self.nested(|p| p.unary(false))?))
        } else {
            self.primary()?
        };
        let mut ops = Vec::new();
        self.postfix(&mut ops)?;
        if filters {
            self.filters_and_tests(&mut ops)?;
        }
        Ok(if ops.is_empty() { value } else { Expr::Postfix(Box::new(value), ops) })
    }

    pub(super) fn primary(&mut self) -> Result<Expr> {
        let value = match self.token() {
            Token::Name(name) => match name.as_str() {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => {
                    let name = name.clone();
                    Expr::Name(self.load(&name))
                }
            },
            Token::Str(text) => {
                let mut text = text.clone();
                while let Token::Str(more) = self.next_token() {
                    text.push_str(more);
                    self.advance();
                }
                Expr::Text(self.text(&text))
            }
            Token::Int(n) => Expr::Int(*n),
            Token::Float(n) => Expr::Float(*n),
            Token::Op("(") => {
                self.advance();
                let value = self.tuple(true, true)?;
                self.expect_op(")")?;
                return Ok(value);
            }
            Token::Op("[") => {
                self.advance();
                return Ok(Expr::List(self.items("]", Self::expression)?));
            }
            Token::Op("{") => {
                self.advance();
                return Ok(Expr::Dict(self.items("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expression()?))
                })?));
            }
            token => return self.fail(format!("{} where a value is needed", token.describe())),
        };
        self.advance();
        Ok(value)
    }

    /// Parses items with commas between them, and perhaps one behind the last, up to a closing bracket.
    fn items<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_op(close) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        self.expect_op(close)?;
        Ok(items)
    }
}
