//! Scopes and variables.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::ast::Symbol;
use crate::budget::{Budget, Charge};
use crate::error::Result;
use crate::value::Value;

/// Bytes per variable.
const VARIABLE: usize = size_of::<(Symbol, Option<Value>)>();

/// Variables that are compared for one step.
const VARIABLES_A_STEP: usize = 16;

/// The variables of a loop's pass, a macro's call or another block, and the scope around it.
pub(crate) struct Scope {
    /// A variable without a value hides outer ones.
    variables: RefCell<Vec<(Symbol, Option<Value>)>>,
    parent: Option<Rc<Scope>>,
    charge: RefCell<Charge>,
    /// Number of variables in the charge.
    charged: Cell<usize>,
    /// Set once the scope is kept until the rendering ends.
    kept: Cell<bool>,
}

impl Scope {
    pub(crate) fn new(
        budget: &Rc<Budget>,
        parent: Option<&Rc<Scope>>,
        hidden: &[Symbol],
    ) -> Result<Rc<Self>> {
        budget.step((hidden.len() / VARIABLES_A_STEP) as u64)?;
        let charge = budget.charge(size_of::<Self>() + hidden.len() * VARIABLE)?;
        Ok(Rc::new(Self {
            variables: RefCell::new(hidden.iter().map(|&symbol| (symbol, None)).collect()),
            parent: parent.cloned(),
            charge: RefCell::new(charge),
            charged: Cell::new(hidden.len()),
            kept: Cell::new(false),
        }))
    }

    /// Returns the variable's value: `Some(None)` if it is hidden, `None` if no scope has it. Adds the number
    /// of compared variables to `looked_at`.
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

    pub(crate) fn set(&self, symbol: Symbol, value: Value) -> Result<()> {
        self.put(symbol, Some(value))
    }

    /// Hides the outer variable.
    pub(crate) fn hide(&self, symbol: Symbol) -> Result<()> {
        self.put(symbol, None)
    }

    fn put(&self, symbol: Symbol, value: Option<Value>) -> Result<()> {
        let mut variables = self.variables.borrow_mut();
        let mut charge = self.charge.borrow_mut();
        charge.budget().step((variables.len() / VARIABLES_A_STEP) as u64)?;
        let old = match variables.iter_mut().find(|(name, _)| *name == symbol) {
            Some((_, old)) => std::mem::replace(old, value),
            None => {
                if variables.len() == self.charged.get() {
                    charge.grow(VARIABLE)?;
                    self.charged.set(variables.len() + 1);
                }
                variables.push((symbol, value));
                None
            }
        };
        drop((variables, charge));
        drop(old);
        Ok(())
    }

    /// Removes the variables, for the next pass of a loop.
    pub(crate) fn reset(&self, hidden: &[Symbol]) -> Result<()> {
        self.charge.borrow().budget().step((hidden.len() / VARIABLES_A_STEP) as u64)?;
        // Freeing a value may look up variables here, so nothing is borrowed meanwhile.
        let mut variables = self.variables.take();
        variables.clear();
        variables.extend(hidden.iter().map(|&symbol| (symbol, None)));
        *self.variables.borrow_mut() = variables;
        Ok(())
    }

    pub(crate) fn clear(&self) {
        let variables = self.variables.take();
        drop(variables);
    }

    /// Marks the scope as kept. Returns whether it was unmarked before.
    pub(crate) fn keep(&self) -> bool {
        !self.kept.replace(true)
    }
}
