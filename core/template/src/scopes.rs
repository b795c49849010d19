//! Decides which names hide outer ones from a scope's beginning, by the rules of Jinja's compiler.
//!
//! Jinja gives every scope its variables before anything runs. If a scope sets a name outside of an `if`, and
//! neither the scope nor an outer one mentions the name before, then the name is undefined until it is set,
//! even if the template's input has a variable of that name. Code that runs before the assignment can observe
//! that, for example an earlier macro or loop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::ast::{Arguments, Body, Expr, Kind, Op, Statement, Symbol, Target};
use crate::error::{Error, Result};

/// The initial value of a scope's variable.
#[derive(Clone, Copy, PartialEq)]
enum Begin {
    /// The value of the outer scope or the input.
    Outer,
    Undefined,
    Parameter,
}

/// The variables of a branch of a scope.
#[derive(Default)]
struct Layer {
    known: HashMap<Symbol, Begin>,
    stores: HashSet<Symbol>,
}

/// The variables of a scope: its own, and those of the branches that are being read.
struct Symbols {
    layers: Vec<Layer>,
}

impl Symbols {
    fn is_known(&self, symbol: Symbol) -> bool {
        self.layers.iter().any(|layer| layer.known.contains_key(&symbol))
    }

    fn is_stored(&self, symbol: Symbol) -> bool {
        self.layers.iter().any(|layer| layer.stores.contains(&symbol))
    }

    fn begin(&mut self, symbol: Symbol, begin: Begin) {
        if !self.is_known(symbol)
            && let Some(layer) = self.layers.last_mut()
        {
            layer.known.insert(symbol, begin);
        }
    }
}

/// Fills in the hidden names of each scope, and refuses unknown filters and tests.
pub(crate) fn analyze(body: &mut Body) -> Result<()> {
    Analysis { outer: Vec::new() }.scope(body, &[])
}

struct Analysis {
    /// The finished scopes around the current one.
    outer: Vec<Layer>,
}

impl Analysis {
    fn scope(&mut self, body: &mut Body, parameters: &[Symbol]) -> Result<()> {
        let mut layer = Layer::default();
        for &parameter in parameters {
            layer.stores.insert(parameter);
            layer.known.insert(parameter, Begin::Parameter);
        }
        let mut symbols = Symbols { layers: vec![layer] };
        self.collect(&body.statements, &mut symbols);
        let own = symbols.layers.pop().unwrap_or_default();
        let hidden = own.known.iter().filter(|(_, begin)| **begin == Begin::Undefined);
        body.hidden = hidden.map(|(&symbol, _)| symbol).collect();
        body.hidden.sort_unstable();
        self.outer.push(own);
        let inner = self.inner(&mut body.statements, false);
        self.outer.pop();
        inner
    }

    fn is_known_outside(&self, symbol: Symbol) -> bool {
        self.outer.iter().any(|scope| scope.known.contains_key(&symbol))
    }

    fn load(&self, symbol: Symbol, symbols: &mut Symbols) {
        if !self.is_known_outside(symbol) {
            symbols.begin(symbol, Begin::Outer);
        }
    }

    fn store(&self, symbol: Symbol, symbols: &mut Symbols) {
        symbols.begin(symbol, if self.is_known_outside(symbol) { Begin::Outer } else { Begin::Undefined });
        if let Some(layer) = symbols.layers.last_mut() {
            layer.stores.insert(symbol);
        }
    }

    fn target(&self, target: &Target, symbols: &mut Symbols) {
        match target {
            Target::Name(symbol) => self.store(*symbol, symbols),
            Target::Attribute(symbol, _) => self.load(*symbol, symbols),
            Target::Tuple(targets) => targets.iter().for_each(|target| self.target(target, symbols)),
        }
    }

    /// Collects the names of a scope's own statements, without those of inner scopes.
    fn collect(&self, statements: &[Statement], symbols: &mut Symbols) {
        for statement in statements {
            match &statement.kind {
                Kind::Print(value) => self.names(value, symbols),
                Kind::If { arms, otherwise } => self.branches(arms, otherwise, symbols),
                Kind::For(this) => self.names(&this.iter, symbols),
                Kind::Macro(this) => self.store(this.symbol, symbols),
                Kind::Call { call, .. } => self.names(call, symbols),
                Kind::Set { target, value } => {
                    self.names(value, symbols);
                    self.target(target, symbols);
                }
                Kind::SetBlock { target, filters, .. } => {
                    self.ops(filters, symbols);
                    self.target(target, symbols);
                }
                Kind::Filter { filters, .. } => self.ops(filters, symbols),
                Kind::With { targets, .. } => {
                    targets.iter().for_each(|(_, value)| self.names(value, symbols))
                }
                Kind::Data(_) | Kind::Scope(_) | Kind::Break | Kind::Continue | Kind::Unavailable(_) => {}
            }
        }
    }

    /// A name that only some branches set refers to the outer variable in the other branches.
    fn branches(&self, arms: &[(Expr, Vec<Statement>)], otherwise: &[Statement], symbols: &mut Symbols) {
        let mut branches: Vec<Layer> = Vec::new();
        // Jinja nests each `elif` in the previous branches; the union is the same.
        let tests = arms.iter().map(|(test, body)| (Some(test), body.as_slice()));
        for (test, body) in tests.chain([(None, otherwise)]) {
            if let Some(test) = test {
                self.names(test, symbols);
            }
            symbols.layers.push(Layer::default());
            self.collect(body, symbols);
            branches.extend(symbols.layers.pop());
        }
        let stored: HashSet<Symbol> =
            branches.iter().flat_map(|branch| branch.stores.iter().copied()).collect();
        let new: Vec<Symbol> = stored.into_iter().filter(|&symbol| !symbols.is_stored(symbol)).collect();
        let Some(layer) = symbols.layers.last_mut() else { return };
        for branch in branches {
            layer.known.extend(branch.known);
            layer.stores.extend(branch.stores);
        }
        layer.known.extend(new.into_iter().map(|symbol| (symbol, Begin::Outer)));
    }

    fn names(&self, expr: &Expr, symbols: &mut Symbols) {
        each_name(expr, &mut |symbol| self.load(symbol, symbols));
    }

    fn ops(&self, ops: &[(u32, Op)], symbols: &mut Symbols) {
        each_op_name(ops, &mut |symbol| self.load(symbol, symbols));
    }

    /// Analyzes the inner scopes of a scope. `soft` is set inside an `if`, where an unknown filter is allowed
    /// as long as it is not reached.
    fn inner(&mut self, statements: &mut [Statement], soft: bool) -> Result<()> {
        for Statement { line, kind } in statements {
            let line = *line;
            match kind {
                Kind::Print(value) => check(value, line, soft)?,
                Kind::If { arms, otherwise } => {
                    for (test, body) in arms {
                        check(test, line, true)?;
                        self.inner(body, true)?;
                    }
                    self.inner(otherwise, true)?;
                }
                Kind::For(this) => {
                    let Some(this) = Arc::get_mut(this) else { continue };
                    check(&this.iter, line, soft)?;
                    if let Some(test) = &this.test {
                        check(test, line, false)?;
                    }
                    let mut parameters = Vec::new();
                    target_names(&this.target, &mut parameters);
                    self.scope(&mut this.body, &parameters)?;
                    self.scope(&mut this.otherwise, &[])?;
                }
                Kind::Macro(this) | Kind::Call { body: this, .. } => {
                    let Some(this) = Arc::get_mut(this) else { continue };
                    for parameter in &this.parameters {
                        if let Some(default) = &parameter.default {
                            check(default, line, false)?;
                        }
                    }
                    let parameters: Vec<_> = this.parameters.iter().map(|p| p.symbol).collect();
                    self.scope(&mut this.body, &parameters)?;
                }
                Kind::Set { value, .. } => check(value, line, soft)?,
                Kind::SetBlock { filters, body, .. } | Kind::Filter { filters, body } => {
                    check_ops(filters, line, false)?;
                    self.scope(body, &[])?;
                }
                Kind::With { targets, body } => {
                    let mut parameters = Vec::new();
                    for (target, value) in targets {
                        check(value, line, soft)?;
                        target_names(target, &mut parameters);
                    }
                    self.scope(body, &parameters)?;
                }
                Kind::Scope(body) => self.scope(body, &[])?,
                Kind::Data(_) | Kind::Break | Kind::Continue | Kind::Unavailable(_) => {}
            }
            if let Kind::Call { call, .. } = kind {
                check(call, line, soft)?;
            }
        }
        Ok(())
    }
}

fn target_names(target: &Target, names: &mut Vec<Symbol>) {
    match target {
        Target::Name(symbol) => names.push(*symbol),
        Target::Attribute(..) => {}
        Target::Tuple(targets) => targets.iter().for_each(|target| target_names(target, names)),
    }
}

/// Calls `each` with every name that an expression reads, in order.
fn each_name(expr: &Expr, each: &mut impl FnMut(Symbol)) {
    if let Expr::Name(symbol) = expr {
        each(*symbol);
    }
    if let Expr::Postfix(value, ops) = expr {
        each_name(value, each);
        each_op_name(ops, each);
        return;
    }
    children(expr, &mut |child, _| {
        each_name(child, each);
        Ok(())
    })
    .unwrap_or(());
}

fn each_op_name(ops: &[(u32, Op)], each: &mut impl FnMut(Symbol)) {
    for (_, op) in ops {
        op_children(op, &mut |child| {
            each_name(child, each);
            Ok(())
        })
        .unwrap_or(());
    }
}

/// Calls `each` with the expressions in an expression, and whether they are in a condition.
pub(crate) fn children(expr: &Expr, each: &mut dyn FnMut(&Expr, bool) -> Result<()>) -> Result<()> {
    match expr {
        Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Text(_) | Expr::Name(_) => Ok(()),
        Expr::List(items) | Expr::Tuple(items) | Expr::Concat(items) | Expr::And(items) | Expr::Or(items) => {
            items.iter().try_for_each(|item| each(item, false))
        }
        Expr::Dict(items) => items.iter().try_for_each(|(key, value)| {
            each(key, false)?;
            each(value, false)
        }),
        Expr::Postfix(value, ops) => {
            each(value, false)?;
            ops.iter().try_for_each(|(_, op)| op_children(op, &mut |child| each(child, false)))
        }
        Expr::Binary(first, rest) => {
            each(first, false)?;
            rest.iter().try_for_each(|(_, item)| each(item, false))
        }
        Expr::Compare(first, rest) => {
            each(first, false)?;
            rest.iter().try_for_each(|(_, item)| each(item, false))
        }
        Expr::Not(value) | Expr::Negative(value) | Expr::Positive(value) => each(value, false),
        Expr::If { test, then, otherwise } => {
            each(test, true)?;
            each(then, true)?;
            otherwise.iter().try_for_each(|otherwise| each(otherwise, true))
        }
    }
}

pub(crate) fn op_children(op: &Op, each: &mut dyn FnMut(&Expr) -> Result<()>) -> Result<()> {
    match op {
        Op::Attribute(_) => Ok(()),
        Op::Item(item) => each(item),
        Op::Slice(parts) => parts.iter().flatten().try_for_each(each),
        Op::Call(arguments) | Op::Filter { arguments, .. } | Op::Test { arguments, .. } => {
            let Arguments { positional, named, list, dict } = arguments;
            positional.iter().try_for_each(&mut *each)?;
            named.iter().try_for_each(|(_, value)| each(value))?;
            list.iter().chain(dict).try_for_each(|value| each(value))
        }
    }
}

/// Refuses unknown filters and tests, unless they may never be reached.
fn check(expr: &Expr, line: u32, soft: bool) -> Result<()> {
    if soft {
        return Ok(());
    }
    if let Expr::Postfix(_, ops) = expr {
        check_ops(ops, line, soft)?;
    }
    children(expr, &mut |child, condition| check(child, line, condition))
}

fn check_ops(ops: &[(u32, Op)], line: u32, soft: bool) -> Result<()> {
    for (_, op) in ops {
        let message = match op {
            Op::Filter { name, filter: None, .. } => format!("there is no filter `{name}`"),
            Op::Test { name, test: None, .. } => format!("there is no test `{name}`"),
            _ => continue,
        };
        if !soft {
            return Err(Error::Syntax { line, message });
        }
    }
    Ok(())
}
