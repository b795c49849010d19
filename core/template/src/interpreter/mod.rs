//! Runs a parsed template.

mod arguments;
mod attributes;
mod expressions;
mod input;
mod loops;
mod macros;
mod scope;
mod slices;
mod statements;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

pub(crate) use arguments::Arguments;
pub(crate) use loops::LoopState;
pub(crate) use scope::Scope;

use crate::ast::{Body, Symbol, Tables};
use crate::budget::Budget;
use crate::error::{Result, fault};
use crate::functions::Function;
use crate::text::{Builder, Text};
use crate::value::{Missing, Namespace, Value, shown};
use crate::{Input, Limits, Rendered, stack};

/// Most calls of macros and recursive loops inside each other.
const CALL_LIMIT: u32 = 100;

/// The way in which a list of statements ended.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// One rendering of a template.
pub(crate) struct Renderer<'t> {
    tables: &'t Tables,
    pub(crate) budget: Rc<Budget>,
    /// The current time, once a template has asked for it.
    clock: &'t OnceCell<jiff::ZonedDateTime>,
    now: &'t dyn Fn() -> jiff::ZonedDateTime,
    /// The input's variables and the built-in functions, by symbol.
    globals: Vec<Option<Value>>,
    /// The template's texts, once they have been used.
    texts: Vec<OnceCell<Text>>,
    /// The symbols of special names, if the template uses them.
    loop_symbol: Option<Symbol>,
    caller_symbol: Option<Symbol>,
    kwargs_symbol: Option<Symbol>,
    varargs_symbol: Option<Symbol>,
    calls: Cell<u32>,
    /// Scopes that macros refer to, and namespaces: the objects that can refer to themselves.
    scopes: RefCell<Vec<Rc<Scope>>>,
    namespaces: RefCell<Vec<Rc<Namespace>>>,
}

/// Renders a template on the caller's stack; if that is too small, again on a stack of its own.
pub(crate) fn render(body: &Body, tables: &Tables, input: &Input<'_>, limits: &Limits) -> Result<Rendered> {
    // Both renderings see the same time.
    let now = || limits.clock.clone().unwrap_or_else(jiff::ZonedDateTime::now);
    let clock = OnceCell::new();
    let budget = Budget::new(limits.steps, limits.bytes, stack::BORROWED);
    let rendered = render_within(body, tables, input, &budget, &clock, &now);
    if rendered.is_ok() || !budget.was_deep() {
        return rendered;
    }
    let clock = clock.into_inner().unwrap_or_else(now);
    let deep = || {
        let budget = Budget::new(limits.steps, limits.bytes, stack::OWN);
        render_within(body, tables, input, &budget, &OnceCell::from(clock), &now)
    };
    stack::own(deep).unwrap_or_else(|| Err(fault("the system starts no thread for a template this deep")))
}

fn render_within<'t>(
    body: &Body,
    tables: &'t Tables,
    input: &Input<'_>,
    budget: &Rc<Budget>,
    clock: &'t OnceCell<jiff::ZonedDateTime>,
    now: &'t dyn Fn() -> jiff::ZonedDateTime,
) -> Result<Rendered> {
    let mut globals = Vec::with_capacity(tables.names.len());
    for name in &tables.names {
        globals.push(match input::variable(input, name)? {
            Some(value) => Some(value),
            None => Function::find(name).map(Value::Function),
        });
    }
    let symbol = |name: &str| tables.names.iter().position(|this| this == name).map(|at| at as Symbol);
    let renderer = Renderer {
        tables,
        budget: Rc::clone(budget),
        clock,
        now,
        globals,
        texts: vec![OnceCell::new(); tables.texts.len()],
        loop_symbol: symbol("loop"),
        caller_symbol: symbol("caller"),
        kwargs_symbol: symbol("kwargs"),
        varargs_symbol: symbol("varargs"),
        calls: Cell::new(0),
        scopes: RefCell::default(),
        namespaces: RefCell::default(),
    };
    let scope = Scope::new(&renderer.budget, None, &body.hidden)?;
    let mut out = Builder::new(&renderer.budget);
    renderer.statements(&body.statements, &scope, &mut out)?;
    let (text, foreign) = out.finish().into_parts();
    Ok(Rendered { text, foreign })
}

impl Drop for Renderer<'_> {
    /// Cuts the references that may form cycles, so that everything is freed.
    fn drop(&mut self) {
        let scopes = self.scopes.take();
        let namespaces = self.namespaces.take();
        for scope in &scopes {
            scope.clear();
        }
        for namespace in &namespaces {
            let attributes = namespace.attributes.take();
            drop(attributes);
        }
    }
}

impl Renderer<'_> {
    /// Returns the template's text number `number`.
    fn text(&self, number: u32) -> &Text {
        let at = number as usize;
        self.texts[at].get_or_init(|| Text::template(&self.tables.texts[at]))
    }

    /// Returns the value of a variable.
    fn lookup(&self, symbol: Symbol, scope: &Scope) -> Result<Value> {
        let mut looked_at = 0;
        let found = match scope.find(symbol, &mut looked_at) {
            Some(value) => value,
            None => self.globals[symbol as usize].clone(),
        };
        self.budget.step(looked_at as u64 / 16)?;
        let name = || shown(&self.tables.names[symbol as usize]);
        Ok(found.unwrap_or_else(|| Value::undefined(Missing::Name(name()))))
    }

    /// Returns the current time that the template sees.
    pub(crate) fn now(&self) -> &jiff::ZonedDateTime {
        self.clock.get_or_init(self.now)
    }

    /// Refuses to go deeper than the stack allows.
    pub(crate) fn check_stack(&self) -> Result<()> {
        self.budget.check_stack()
    }

    /// Runs a call of a macro or a recursive loop.
    fn called<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let calls = self.calls.get();
        if calls >= CALL_LIMIT {
            return Err(fault(format!("more than {CALL_LIMIT} calls inside each other")));
        }
        self.check_stack()?;
        self.calls.set(calls + 1);
        let result = run();
        self.calls.set(calls);
        result
    }

    /// Keeps a scope until the rendering ends, because a macro refers to it.
    fn keep_scope(&self, scope: &Rc<Scope>) {
        if scope.keep() {
            self.scopes.borrow_mut().push(Rc::clone(scope));
        }
    }

    /// Keeps a namespace until the rendering ends.
    pub(crate) fn keep_namespace(&self, namespace: &Rc<Namespace>) {
        self.namespaces.borrow_mut().push(Rc::clone(namespace));
    }
}
