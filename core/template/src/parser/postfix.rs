//! Parses operations on a value: attributes, indices, calls, filters and tests.

use super::{NAMED_LIMIT, Parser};
use crate::ast::{Arguments, Expr, Op};
use crate::error::Result;
use crate::filters;
use crate::lexer::Token;
use crate::tests;

impl Parser {
    /// Parses attributes, indices and calls.
    pub(super) fn postfix(&mut self, ops: &mut Vec<(u32, Op)>) -> Result<()> {
        loop {
            let line = self.line();
            let op = match self.token() {
                Token::Op(".") => {
                    self.advance();
                    match self.token() {
                        Token::Name(name) => {
                            let name = name.clone();
                            self.advance();
                            Op::Attribute(self.text(&name))
                        }
                        Token::Int(index) => {
                            let index = *index;
                            self.advance();
                            Op::Item(Box::new(Expr::Int(index)))
                        }
                        token => {
                            let token = token.describe();
                            return self.fail(format!("{token} behind a dot, where a name is needed"));
                        }
                    }
                }
                Token::Op("[") => {
                    self.advance();
                    self.subscript()?
                }
                Token::Op("(") => Op::Call(self.arguments()?),
                _ => return Ok(()),
            };
            ops.push((line, op));
        }
    }

    /// Parses the index or slice between `[` and `]`.
    fn subscript(&mut self) -> Result<Op> {
        let first = if self.is_op(":") { None } else { Some(self.expression()?) };
        if !self.is_op(":") {
            let Some(first) = first else { return self.fail("an index is needed") };
            if self.is_op(",") {
                let mut items = vec![first];
                while self.skip_op(",") {
                    items.push(self.expression()?);
                }
                self.expect_op("]")?;
                return Ok(Op::Item(Box::new(Expr::Tuple(items))));
            }
            self.expect_op("]")?;
            return Ok(Op::Item(Box::new(first)));
        }
        let mut slice = [first, None, None];
        for part in &mut slice[1..] {
            if self.skip_op(":") && !self.is_op(":") && !self.is_op("]") {
                *part = Some(self.expression()?);
            }
        }
        self.expect_op("]")?;
        Ok(Op::Slice(Box::new(slice)))
    }

    /// Parses filters, tests, and calls of their results.
    pub(super) fn filters_and_tests(&mut self, ops: &mut Vec<(u32, Op)>) -> Result<()> {
        loop {
            let line = self.line();
            if self.skip_op("|") {
                ops.push((line, self.filter()?));
            } else if self.skip_name("is") {
                ops.push((line, self.test()?));
            } else if self.is_op("(") {
                ops.push((line, Op::Call(self.arguments()?)));
            } else {
                return Ok(());
            }
        }
    }

    fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip_op(".") {
            name += ".";
            name += &self.expect_name()?;
        }
        Ok(name)
    }

    /// Parses a filter's name and arguments.
    pub(super) fn filter(&mut self) -> Result<Op> {
        let name = self.dotted_name()?;
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        Ok(Op::Filter { filter: filters::find(&name), name, arguments })
    }

    fn test(&mut self) -> Result<Op> {
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let mut arguments = Arguments::default();
        if self.is_op("(") {
            arguments = self.arguments()?;
        } else if self.begins_argument() {
            if self.is_name("is") {
                return self.fail("tests can't be chained with `is`; use `and`");
            }
            let value = self.nested(Self::primary)?;
            let mut ops = Vec::new();
            self.postfix(&mut ops)?;
            arguments.positional.push(if ops.is_empty() {
                value
            } else {
                Expr::Postfix(Box::new(value), ops)
            });
        }
        Ok(Op::Test { test: tests::find(&name), name, arguments, negated })
    }

    /// Returns whether a test's argument begins here, without brackets.
    fn begins_argument(&self) -> bool {
        match self.token() {
            Token::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
            Token::Str(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(op) => matches!(*op, "(" | "[" | "{"),
            _ => false,
        }
    }

    /// Parses the arguments of a call, with their brackets.
    fn arguments(&mut self) -> Result<Arguments> {
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            let Arguments { positional, named, list, dict } = &mut arguments;
            if self.skip_op("*") {
                if list.is_some() || dict.is_some() {
                    return self.fail("a call takes one `*` argument, before `**`");
                }
                *list = Some(Box::new(self.expression()?));
            } else if self.skip_op("**") {
                if dict.is_some() {
                    return self.fail("a call takes one `**` argument");
                }
                *dict = Some(Box::new(self.expression()?));
            } else if let (Token::Name(name), Token::Op("=")) = (self.token(), self.next_token()) {
                if dict.is_some() {
                    return self.fail("named arguments stand before `**`");
                }
                let name = name.clone();
                self.advance();
                self.advance();
                let name = self.text(&name);
                if named.len() >= NAMED_LIMIT {
                    return self.fail(format!("a call with more than {NAMED_LIMIT} named arguments"));
                }
                if named.iter().any(|(other, _)| *other == name) {
                    return self.fail("the same argument is given twice");
                }
                named.push((name, self.expression()?));
            } else {
                if list.is_some() || dict.is_some() || !named.is_empty() {
                    return self.fail("arguments without a name stand first");
                }
                positional.push(self.expression()?);
            }
        }
        self.expect_op(")")?;
        Ok(arguments)
    }
}
