//! Parses tokens to a tree. The grammar is Jinja's, with loop controls and `generation`.

mod expression;
mod postfix;
mod statement;
mod target;

use std::collections::{HashMap, HashSet};

use crate::ast::{Body, Symbol, Tables};
use crate::error::{Error, Result};
use crate::lexer::{Token, tokens};
use crate::{height, scopes};

/// Most expressions and statements inside each other. Real templates have a dozen.
const NESTING_LIMIT: usize = 80;

/// Most nodes on a path from the tree's root. Real templates have about twenty.
const HEIGHT_LIMIT: usize = 200;

/// Most named arguments of a call, and most parameters of a macro.
const NAMED_LIMIT: usize = 1000;

/// Parses a source, whose line breaks have to be `\n`.
pub(crate) fn parse(source: &str) -> Result<(Body, Tables)> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        nesting: 0,
        loops: 0,
        inside_loop: 0,
        tables: Tables::default(),
        names: HashMap::new(),
        texts: HashMap::new(),
        macros: Vec::new(),
        blocks: HashSet::new(),
    };
    let statements = parser.statements_until(&[])?;
    if height::of(&statements) > HEIGHT_LIMIT {
        let message = format!("more than {HEIGHT_LIMIT} expressions or blocks inside each other");
        return Err(Error::Syntax { line: 1, message });
    }
    let mut body = Body { statements, hidden: Vec::new() };
    scopes::analyze(&mut body)?;
    Ok((body, parser.tables))
}

/// Special names that a macro's body reads.
#[derive(Default, Clone, Copy)]
struct Specials {
    caller: bool,
    kwargs: bool,
    varargs: bool,
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nesting: usize,
    /// Number of loops around the current position, within the same macro.
    loops: usize,
    /// Number of loops around the current position, including those around macros.
    inside_loop: usize,
    tables: Tables,
    names: HashMap<String, Symbol>,
    texts: HashMap<String, u32>,
    /// Macros around the current position.
    macros: Vec<Specials>,
    /// Names of blocks so far.
    blocks: HashSet<String>,
}

impl Parser {
    fn token(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn next_token(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    /// Advances to the next token; stays at the end.
    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::Syntax { line: self.line(), message: message.into() })
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.token(), Token::Op(this) if *this == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.token(), Token::Name(this) if this == name)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        if is {
            self.advance();
        }
        is
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        if is {
            self.advance();
        }
        is
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) {
            return Ok(());
        }
        self.fail(format!("{} where `{op}` is needed", self.token().describe()))
    }

    fn expect_keyword(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) {
            return Ok(());
        }
        self.fail(format!("{} where `{name}` is needed", self.token().describe()))
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        if self.token() == token {
            self.advance();
            return Ok(());
        }
        self.fail(format!("{} where {} is needed", self.token().describe(), token.describe()))
    }

    fn expect_name(&mut self) -> Result<String> {
        let Token::Name(name) = self.token() else {
            return self.fail(format!("{} where a name is needed", self.token().describe()));
        };
        let name = name.clone();
        self.advance();
        Ok(name)
    }

    /// Parses an expression or statement one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.nesting += 1;
        if self.nesting > NESTING_LIMIT {
            return self.fail(format!("more than {NESTING_LIMIT} expressions or blocks inside each other"));
        }
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// Returns the index of a variable's name.
    fn symbol(&mut self, name: &str) -> Symbol {
        if let Some(&symbol) = self.names.get(name) {
            return symbol;
        }
        let symbol = self.tables.names.len() as Symbol;
        self.tables.names.push(name.to_owned());
        self.names.insert(name.to_owned(), symbol);
        symbol
    }

    /// Returns the index of a text.
    fn text(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.texts.get(text) {
            return number;
        }
        let number = self.tables.texts.len() as u32;
        self.tables.texts.push(text.to_owned());
        self.texts.insert(text.to_owned(), number);
        number
    }

    /// Returns the index of a name that is read.
    fn load(&mut self, name: &str) -> Symbol {
        for specials in &mut self.macros {
            match name {
                "caller" => specials.caller = true,
                "kwargs" => specials.kwargs = true,
                "varargs" => specials.varargs = true,
                _ => {}
            }
        }
        self.symbol(name)
    }
}
