//! Variables.

use std::cell::RefCell;
use std::rc::Rc;

use crate::ast::Symbol;
use crate::budget::{Budget, Charge};
use crate::error::Result;
use crate::value::Value;

/// Variables of a loop's pass, a macro's call or another block, and the scope around it.
pub(crate) struct Scope {
    /// A variable without a value hides outer ones.
    variables: RefCell<Vec<(Symbol, Option<Value>)>>,
    parent: Option<Rc<Scope>>,
    /// Set once the scope is kept until the rendering ends.
    kept: RefCell<Option<Charge>>,
}

impl Scope {
    pub(crate) fn new(parent: Option<&Rc<Scope>>, hidden: &[Symbol]) -> Rc<Self> {
        Rc::new(Self {
            variables: RefCell::new(hidden.iter().map(|&symbol| (symbol, None)).collect()),
            parent: parent.cloned(),
            kept: RefCell::new(None),
        })
    }

    /// The variable's value, `Some(None)` if it is hidden, `None` if no scope has it. Counts the variables that were
    /// looked at.
    pub(crate) fn find(&self, symbol: Symbol, looked_at: &mut usize) -> Option<Option<Value>> {
        let mut scope = self;
        loop {
            let variables = scope.variables.borrow();
            *looked_at += variables.len();
            if let Some((_, value)) = variables.iter().find(|(name, _)| *name == symbol) {
                return Some(value.clone());
            }
            drop(variables);
            scope = scope.parent.as_deref()?;
        }
    }

    pub(crate) fn set(&self, symbol: Symbol, value: Value) {
        self.put(symbol, Some(value));
    }

    /// The number of variables.
    pub(crate) fn len(&self) -> usize {
        self.variables.borrow().len()
    }

    /// Hides the outer variable.
    pub(crate) fn hide(&self, symbol: Symbol) {
        self.put(symbol, None);
    }

    fn put(&self, symbol: Symbol, value: Option<Value>) {
        let mut variables = self.variables.borrow_mut();
        let old = match variables.iter_mut().find(|(name, _)| *name == symbol) {
            Some((_, old)) => std::mem::replace(old, value),
            None => {
                variables.push((symbol, value));
                None
            }
        };
        drop(variables);
        drop(old);
    }

    /// Forgets the variables, for the next pass of a loop.
    pub(crate) fn reset(&self, hidden: &[Symbol]) {
        let mut variables = self.variables.borrow_mut();
        variables.clear();
        variables.extend(hidden.iter().map(|&symbol| (symbol, None)));
    }

    pub(crate) fn clear(&self) {
        let variables = self.variables.take();
        drop(variables);
    }

    /// Marks the scope as kept. Returns whether it was not before.
    pub(crate) fn keep(&self, budget: &Rc<Budget>) -> Result<bool> {
        let mut kept = self.kept.borrow_mut();
        if kept.is_some() {
            return Ok(false);
        }
        *kept = Some(budget.charge(256)?);
        Ok(true)
    }
}
