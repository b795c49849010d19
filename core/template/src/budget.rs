//! Limits of a rendering: steps, bytes and stack.

use std::cell::Cell;
use std::rc::Rc;

use crate::error::{Error, Result, fault};
use crate::stack;

/// Bytes that are copied or read for one step.
const BYTES_A_STEP: usize = 256;

/// Cost of a piece beside its bytes, as bytes that are read: there may be millions of pieces of one byte
/// each.
const PIECE: usize = 16;

/// The remaining limits of one rendering.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: Cell<u64>,
    bytes: Cell<usize>,
    /// Bytes that were read and do not add up to a step yet.
    pending: Cell<usize>,
    /// An address on the stack where the rendering began, and the bytes of stack that it may use.
    stack: (usize, usize),
    /// Set if the stack was too small.
    deep: Cell<bool>,
}

impl Budget {
    /// Creates a budget; `stack` is the number of bytes of the current thread's stack that may be used from
    /// here on.
    pub(crate) fn new(steps: u64, bytes: usize, stack: usize) -> Rc<Self> {
        Rc::new(Self {
            steps: Cell::new(steps),
            bytes: Cell::new(bytes),
            pending: Cell::new(0),
            stack: (stack::address(), stack),
            deep: Cell::new(false),
        })
    }

    /// Takes steps.
    ///
    /// # Errors
    /// Fewer steps are left.
    pub(crate) fn step(&self, steps: u64) -> Result<()> {
        let left = self.steps.get().checked_sub(steps).ok_or(Error::TooManySteps)?;
        self.steps.set(left);
        Ok(())
    }

    /// Takes the steps for reading `bytes` bytes.
    pub(crate) fn read(&self, bytes: usize) -> Result<()> {
        let pending = self.pending.get().saturating_add(bytes);
        self.pending.set(pending % BYTES_A_STEP);
        self.step((pending / BYTES_A_STEP) as u64)
    }

    /// Takes bytes until the returned charge is dropped.
    pub(crate) fn charge(self: &Rc<Self>, bytes: usize) -> Result<Charge> {
        let mut charge = Charge { budget: Rc::clone(self), bytes: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Refuses to go deeper than the stack allows. Every recursive function calls this.
    pub(crate) fn check_stack(&self) -> Result<()> {
        let (start, limit) = self.stack;
        if stack::address().abs_diff(start) > limit {
            self.deep.set(true);
            return Err(fault("expressions, blocks, calls or values stand too deep inside each other"));
        }
        Ok(())
    }

    /// Returns whether the stack was too small at any time.
    pub(crate) fn was_deep(&self) -> bool {
        self.deep.get()
    }
}

/// Bytes that an object holds; dropping the charge gives them back.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Takes further bytes, before they are allocated. Also takes the steps of writing them.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        self.budget.read(bytes.saturating_add(PIECE))?;
        let left = self.budget.bytes.get().checked_sub(bytes).ok_or(Error::TooManyBytes)?;
        self.budget.bytes.set(left);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.bytes.set(self.budget.bytes.get() + self.bytes);
    }
}
