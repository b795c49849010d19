//! Parses targets of assignments and parameters of macros.

use super::{NAMED_LIMIT, Parser};
use crate::ast::{Parameter, Target};
use crate::error::Result;
use crate::lexer::Token;

impl Parser {
    /// Parses one name, or several with commas between them.
    pub(super) fn target(&mut self, namespaces: bool) -> Result<Target> {
        let mut targets = Vec::new();
        loop {
            let ends = matches!(self.token(), Token::VariableEnd | Token::BlockEnd) || self.is_op(")");
            if ends && !targets.is_empty() {
                return Ok(Target::Tuple(targets));
            }
            let target = self.nested(|p| p.single_target(namespaces))?;
            if self.skip_op(",") {
                targets.push(target);
                continue;
            }
            if targets.is_empty() {
                return Ok(target);
            }
            targets.push(target);
            return Ok(Target::Tuple(targets));
        }
    }

    fn single_target(&mut self, namespaces: bool) -> Result<Target> {
        if self.skip_op("(") {
            let target = self.target(namespaces)?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.assigned_name()?;
        if namespaces && self.skip_op(".") {
            let symbol = self.load(&name);
            let attribute = self.expect_name()?;
            return Ok(Target::Attribute(symbol, self.text(&attribute)));
        }
        if name == "loop" && self.inside_loop > 0 {
            return self.fail("`loop` can't be assigned to in a loop");
        }
        Ok(Target::Name(self.symbol(&name)))
    }

    /// Parses a name that can be assigned to.
    pub(super) fn assigned_name(&mut self) -> Result<String> {
        let Token::Name(name) = self.token() else {
            return self.fail(format!("{} can't be assigned to; a name is needed", self.token().describe()));
        };
        if matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None") {
            return self.fail(format!("`{name}` can't be assigned to"));
        }
        self.expect_name()
    }

    /// Parses the parameters of a macro, with their brackets.
    pub(super) fn parameters(&mut self) -> Result<Vec<Parameter>> {
        self.expect_op("(")?;
        let mut parameters: Vec<Parameter> = Vec::new();
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            if parameters.len() >= NAMED_LIMIT {
                return self.fail(format!("a macro of more than {NAMED_LIMIT} parameters"));
            }
            let name = self.assigned_name()?;
            let symbol = self.symbol(&name);
            if parameters.iter().any(|p| p.symbol == symbol) {
                return self.fail(format!("the parameter `{name}` stands twice"));
            }
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.iter().any(|p| p.default.is_some()) {
                return self.fail(format!("`{name}` needs a default, since a parameter before it has one"));
            }
            parameters.push(Parameter { symbol, name, default });
        }
        self.expect_op(")")?;
        Ok(parameters)
    }
}
