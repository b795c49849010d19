//! Runs `for` loops; provides their variable `loop`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::{Flow, Renderer, Scope};
use crate::ast::For;
use crate::budget::Charge;
use crate::error::{Result, fault};
use crate::text::Builder;
use crate::value::{Iteration, Missing, Value, equal};

/// A running loop: the template's variable `loop`.
pub(crate) struct LoopState {
    definition: Arc<For>,
    /// The scope around the loop and its remaining items; cleared when the loop has ended.
    scope: RefCell<Option<Rc<Scope>>>,
    source: RefCell<Iteration>,
    /// Items that were taken before their turn.
    ahead: RefCell<VecDeque<Value>>,
    charge: RefCell<Charge>,
    previous: RefCell<Option<Value>>,
    current: RefCell<Option<Value>>,
    /// Passes that have begun.
    passes: Cell<usize>,
    length: Cell<Option<usize>>,
    nesting: u32,
    changed: RefCell<Option<Vec<Value>>>,
}

impl LoopState {
    /// Returns the text that the loop object prints as.
    pub(crate) fn describe(&self) -> String {
        let length = self.length.get().unwrap_or_else(|| self.known_length().unwrap_or(0));
        format!("<LoopContext {}/{length}>", self.passes.get())
    }

    /// Drops all references, so that loops which templates keep cannot form chains.
    fn end(&self) {
        drop(self.scope.take());
        drop(self.source.replace(Iteration::Empty));
        drop(self.ahead.take());
        drop(self.previous.take());
        drop(self.current.take());
        drop(self.changed.take());
    }

    fn known_length(&self) -> Option<usize> {
        if self.definition.test.is_some() {
            return None;
        }
        Some(self.passes.get() + self.ahead.borrow().len() + self.source.borrow().left()?)
    }
}

impl Renderer<'_> {
    pub(super) fn for_loop(
        &self,
        definition: &Arc<For>,
        scope: &Rc<Scope>,
        out: &mut Builder,
    ) -> Result<Flow> {
        let items = self.eval(&definition.iter, scope)?;
        self.run_loop(definition, &items, scope, 0, out)
    }

    /// Evaluates `loop(items)` in a recursive loop.
    pub(super) fn recurse(&self, this: &LoopState, items: &Value) -> Result<Value> {
        if !this.definition.recursive {
            return Err(fault("`loop(...)` needs a loop that is marked `recursive`"));
        }
        let scope = this.scope.borrow().clone();
        let scope = scope.ok_or_else(|| fault("`loop(...)` is called behind the end of its loop"))?;
        let mut out = Builder::new(&self.budget);
        self.called(|| self.run_loop(&this.definition, items, &scope, this.nesting + 1, &mut out))?;
        Ok(Value::Str(out.finish()))
    }

    fn run_loop(
        &self,
        definition: &Arc<For>,
        items: &Value,
        scope: &Rc<Scope>,
        nesting: u32,
        out: &mut Builder,
    ) -> Result<Flow> {
        let state = Rc::new(LoopState {
            definition: Arc::clone(definition),
            scope: RefCell::new(Some(Rc::clone(scope))),
            source: RefCell::new(Iteration::of(items)?),
            ahead: RefCell::default(),
            charge: RefCell::new(self.budget.charge(size_of::<LoopState>())?),
            previous: RefCell::new(None),
            current: RefCell::new(None),
            passes: Cell::new(0),
            length: Cell::new(None),
            nesting,
            changed: RefCell::new(None),
        });
        let result = self.passes(&state, scope, out);
        // A value that keeps `loop` alive keeps neither the scope nor the items.
        state.end();
        // As in jinja2, `else` runs unless a pass reached the end of the body; a pass that ended with `break`
        // or `continue` did not.
        if result? || definition.otherwise.statements.is_empty() {
            return Ok(Flow::Next);
        }
        let inner = Scope::new(&self.budget, Some(scope), &definition.otherwise.hidden)?;
        self.statements(&definition.otherwise.statements, &inner, out)
    }

    /// Runs all passes. Returns whether a pass reached the end of the body.
    fn passes(&self, state: &Rc<LoopState>, scope: &Rc<Scope>, out: &mut Builder) -> Result<bool> {
        let mut completed = false;
        let definition = &*state.definition;
        let body = &definition.body;
        let mut inner = Scope::new(&self.budget, Some(scope), &[])?;
        while let Some(item) = self.next_item(state)? {
            let previous = state.current.replace(Some(item.clone()));
            *state.previous.borrow_mut() = previous;
            state.passes.set(state.passes.get() + 1);
            if Rc::strong_count(&inner) == 1 {
                inner.reset(&body.hidden)?;
            } else {
                inner = Scope::new(&self.budget, Some(scope), &body.hidden)?;
            }
            if let Some(symbol) = self.loop_symbol {
                inner.set(symbol, Value::Loop(Rc::clone(state)))?;
            }
            self.assign(&definition.target, item, &inner)?;
            match self.statements(&body.statements, &inner, out)? {
                Flow::Next => completed = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        Ok(completed)
    }

    fn next_item(&self, state: &LoopState) -> Result<Option<Value>> {
        let ahead = state.ahead.borrow_mut().pop_front();
        match ahead {
            Some(item) => Ok(Some(item)),
            None => self.pull(state),
        }
    }

    /// Takes the next item that passes the loop's test.
    fn pull(&self, state: &LoopState) -> Result<Option<Value>> {
        loop {
            let next = match state.source.try_borrow_mut() {
                Ok(mut source) => source.next(&self.budget)?,
                Err(_) => return Err(fault("a loop's test may not look ahead in its own loop")),
            };
            let Some(item) = next else { return Ok(None) };
            let Some(test) = &state.definition.test else { return Ok(Some(item)) };
            let scope = state.scope.borrow().clone();
            let inner = Scope::new(&self.budget, scope.as_ref(), &[])?;
            self.assign(&state.definition.target, item.clone(), &inner)?;
            if self.eval(test, &inner)?.is_true() {
                return Ok(Some(item));
            }
        }
    }

    /// Takes an item before its turn.
    fn look_ahead(&self, state: &LoopState) -> Result<bool> {
        let Some(item) = self.pull(state)? else { return Ok(false) };
        state.charge.borrow_mut().grow(size_of::<Value>())?;
        state.ahead.borrow_mut().push_back(item);
        Ok(true)
    }

    /// Takes the item of the next pass.
    fn next_ahead(&self, state: &LoopState) -> Result<Option<Value>> {
        if state.ahead.borrow().is_empty() {
            self.look_ahead(state)?;
        }
        Ok(state.ahead.borrow().front().cloned())
    }

    fn loop_length(&self, state: &LoopState) -> Result<usize> {
        if let Some(length) = state.length.get().or_else(|| state.known_length()) {
            state.length.set(Some(length));
            return Ok(length);
        }
        while self.look_ahead(state)? {}
        let length = state.passes.get() + state.ahead.borrow().len();
        state.length.set(Some(length));
        Ok(length)
    }

    /// Returns an attribute of `loop`.
    pub(super) fn loop_attribute(&self, state: &Rc<LoopState>, name: &str) -> Result<Option<Value>> {
        let passes = state.passes.get();
        let int = |n: usize| Value::Int(n as i128);
        Ok(Some(match name {
            "index" => int(passes),
            "index0" => Value::Int(passes as i128 - 1),
            "first" => Value::Bool(passes == 1),
            "last" => Value::Bool(self.next_ahead(state)?.is_none()),
            "length" => int(self.loop_length(state)?),
            "revindex" => Value::Int(self.loop_length(state)? as i128 - passes as i128 + 1),
            "revindex0" => Value::Int(self.loop_length(state)? as i128 - passes as i128),
            "depth" => Value::Int(i128::from(state.nesting) + 1),
            "depth0" => Value::Int(state.nesting.into()),
            "previtem" => state
                .previous
                .borrow()
                .clone()
                .unwrap_or_else(|| Value::undefined(Missing::Reason("there is no previous item"))),
            "nextitem" => self
                .next_ahead(state)?
                .unwrap_or_else(|| Value::undefined(Missing::Reason("there is no next item"))),
            "cycle" => Value::Method(Rc::new(Value::Loop(Rc::clone(state))), "cycle"),
            "changed" => Value::Method(Rc::new(Value::Loop(Rc::clone(state))), "changed"),
            _ => return Ok(None),
        }))
    }

    /// Calls a method of `loop`.
    pub(crate) fn loop_method(&self, state: &LoopState, name: &str, values: Vec<Value>) -> Result<Value> {
        if name == "cycle" {
            if values.is_empty() {
                return Err(fault("`loop.cycle` needs values to take turns with"));
            }
            let at = state.passes.get().saturating_sub(1) % values.len();
            return Ok(values[at].clone());
        }
        let same = match &*state.changed.borrow() {
            Some(before) if before.len() == values.len() => {
                let mut same = true;
                for (a, b) in before.iter().zip(&values) {
                    same = same && equal(&self.budget, a, b)?;
                }
                same
            }
            _ => false,
        };
        if !same {
            let before = state.changed.replace(Some(values));
            drop(before);
        }
        Ok(Value::Bool(!same))
    }
}
