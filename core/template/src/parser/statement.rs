//! Parses tags.

use std::sync::Arc;

use super::{Parser, Specials};
use crate::ast::{Body, Expr, For, Kind, Macro, Op, Parameter, Statement, Target};
use crate::error::Result;
use crate::lexer::Token;

impl Parser {
    /// Parses statements up to a tag of one of the names `ends`, which is not consumed; up to the template's
    /// end if `ends` is empty.
    pub(super) fn statements_until(&mut self, ends: &[&str]) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        loop {
            let line = self.line();
            match self.token() {
                Token::Data(text) => {
                    let kind = Kind::Data(text.clone());
                    statements.push(Statement { line, kind });
                    self.advance();
                }
                Token::VariableBegin => {
                    self.advance();
                    let value = self.tuple(true, false)?;
                    self.expect(&Token::VariableEnd)?;
                    statements.push(Statement { line, kind: Kind::Print(value) });
                }
                Token::BlockBegin => {
                    self.advance();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(statements);
                    }
                    self.nested(|parser| parser.statement(line, ends, &mut statements))?;
                    self.expect(&Token::BlockEnd)?;
                }
                Token::End if ends.is_empty() => return Ok(statements),
                Token::End => {
                    let ends = ends.iter().map(|end| format!("`{{% {end} %}}`")).collect::<Vec<_>>();
                    return self.fail(format!("the template ends where {} is needed", ends.join(" or ")));
                }
                token => {
                    let token = token.describe();
                    return self.fail(format!("{token} outside of a tag"));
                }
            }
        }
    }

    /// Parses the statements of a block, behind the rest of its tag.
    fn block(&mut self, ends: &[&str]) -> Result<Vec<Statement>> {
        self.skip_op(":");
        self.expect(&Token::BlockEnd)?;
        self.statements_until(ends)
    }

    fn body(&mut self, end: &str) -> Result<Body> {
        let statements = self.block(&[end])?;
        self.advance();
        Ok(Body { statements, hidden: Vec::new() })
    }

    fn statement(&mut self, line: u32, ends: &[&str], out: &mut Vec<Statement>) -> Result<()> {
        let Token::Name(tag) = self.token() else {
            return self.fail(format!("{} where a tag's name is needed", self.token().describe()));
        };
        let tag = tag.clone();
        self.advance();
        let kind = match tag.as_str() {
            "if" => self.if_statement()?,
            "for" => self.for_statement()?,
            "set" => self.set_statement()?,
            "macro" => {
                let name = self.assigned_name()?;
                let parameters = self.parameters()?;
                Kind::Macro(self.macro_body(Some(name), parameters, "endmacro")?)
            }
            "call" => {
                let parameters = if self.is_op("(") { self.parameters()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(&call, Expr::Postfix(_, ops) if matches!(ops.last(), Some((_, Op::Call(_))))) {
                    return self.fail("`call` needs a call of a macro");
                }
                Kind::Call { call, body: self.macro_body(None, parameters, "endcall")? }
            }
            "generation" => {
                let body = self.function_body(|parser| parser.body("endgeneration"))?;
                Kind::Scope(body)
            }
            "filter" => {
                let first = self.filter()?;
                let filters = self.more_filters(vec![(line, first)])?;
                Kind::Filter { filters, body: self.body("endfilter")? }
            }
            "with" => self.with_statement()?,
            "autoescape" => {
                if !matches!(self.expression()?, Expr::Bool(false)) {
                    return self.fail("prompts are no HTML; only `autoescape false` is known");
                }
                Kind::Scope(self.body("endautoescape")?)
            }
            "block" => {
                let name = self.expect_name()?;
                if !self.blocks.insert(name.clone()) {
                    return self.fail(format!("the block `{name}` stands twice"));
                }
                self.skip_name("scoped");
                self.skip_name("required");
                let body = self.function_body(|parser| parser.body("endblock"))?;
                self.skip_name(&name);
                Kind::Scope(body)
            }
            "print" => {
                let mut first = true;
                while !matches!(self.token(), Token::BlockEnd) {
                    if !first {
                        self.expect_op(",")?;
                    }
                    first = false;
                    let value = self.expression()?;
                    out.push(Statement { line, kind: Kind::Print(value) });
                }
                return Ok(());
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.fail(format!("`{tag}` outside of a loop"));
                }
                if tag == "break" { Kind::Break } else { Kind::Continue }
            }
            "include" | "import" | "from" | "extends" => self.other_templates(&tag)?,
            _ => {
                let hint = match ends {
                    [] => String::new(),
                    ends => format!("; the innermost open block needs `{}`", ends.join("` or `")),
                };
                self.at -= 1;
                return self.fail(format!("the tag `{tag}` is not known here{hint}"));
            }
        };
        out.push(Statement { line, kind });
        Ok(())
    }

    fn if_statement(&mut self) -> Result<Kind> {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let test = self.tuple(false, false)?;
            arms.push((test, self.block(&["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            if self.skip_name("else") {
                otherwise = self.block(&["endif"])?;
            }
            self.advance();
            return Ok(Kind::If { arms, otherwise });
        }
    }

    fn for_statement(&mut self) -> Result<Kind> {
        self.inside_loop += 1;
        let target = self.target(false)?;
        self.expect_keyword("in")?;
        let iter = self.tuple(false, false)?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let statements = self.block(&["endfor", "else"])?;
        self.loops -= 1;
        let otherwise = if self.skip_name("else") { self.block(&["endfor"])? } else { Vec::new() };
        self.advance();
        self.inside_loop -= 1;
        let body = Body { statements, hidden: Vec::new() };
        let otherwise = Body { statements: otherwise, hidden: Vec::new() };
        Ok(Kind::For(Arc::new(For { target, iter, test, recursive, body, otherwise })))
    }

    fn set_statement(&mut self) -> Result<Kind> {
        let target = self.target(true)?;
        if self.skip_op("=") {
            return Ok(Kind::Set { target, value: self.tuple(true, false)? });
        }
        let filters = self.more_filters(Vec::new())?;
        Ok(Kind::SetBlock { target, filters, body: self.body("endset")? })
    }

    fn more_filters(&mut self, mut filters: Vec<(u32, Op)>) -> Result<Vec<(u32, Op)>> {
        while self.skip_op("|") {
            filters.push((self.line(), self.filter()?));
        }
        Ok(filters)
    }

    fn with_statement(&mut self) -> Result<Kind> {
        let mut targets: Vec<(Target, Expr)> = Vec::new();
        while !matches!(self.token(), Token::BlockEnd | Token::End) {
            if !targets.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(false)?;
            self.expect_op("=")?;
            targets.push((target, self.expression()?));
        }
        Ok(Kind::With { targets, body: self.body("endwith")? })
    }

    /// Parses a body that becomes a function, from which `break` and `continue` cannot leave an outer loop.
    fn function_body<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let loops = std::mem::take(&mut self.loops);
        let parsed = parse(self);
        self.loops = loops;
        parsed
    }

    fn macro_body(
        &mut self,
        name: Option<String>,
        parameters: Vec<Parameter>,
        end: &str,
    ) -> Result<Arc<Macro>> {
        let symbol = self.symbol(name.as_deref().unwrap_or("caller"));
        self.macros.push(Specials::default());
        let body = self.function_body(|parser| parser.body(end))?;
        let specials = self.macros.pop().unwrap_or_default();
        let parameter = |name: &str| parameters.iter().find(|p| p.name == name);
        if specials.caller && parameter("caller").is_some_and(|p| p.default.is_none()) {
            return self.fail("the parameter `caller` needs a default");
        }
        let takes = |special: bool, name| special && parameter(name).is_none();
        Ok(Arc::new(Macro {
            symbol,
            takes_caller: specials.caller,
            takes_kwargs: takes(specials.kwargs, "kwargs"),
            takes_varargs: takes(specials.varargs, "varargs"),
            name,
            parameters,
            body,
        }))
    }

    /// Parses tags that need other templates; they fail when they are reached.
    fn other_templates(&mut self, tag: &str) -> Result<Kind> {
        let kind = match tag {
            "include" => "include",
            "import" => "import",
            "from" => "from",
            _ => "extends",
        };
        while !matches!(self.token(), Token::BlockEnd | Token::End) {
            self.advance();
        }
        Ok(Kind::Unavailable(kind))
    }
}
