//! Steps and bytes that a rendering may take.

use std::cell::Cell;
use std::rc::Rc;

use crate::error::{Error, Result};

/// Bytes that are copied or looked at for one step.
const BYTES_A_STEP: usize = 256;

/// What is left of the limits of one rendering.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: Cell<u64>,
    bytes: Cell<usize>,
}

impl Budget {
    pub(crate) fn new(steps: u64, bytes: usize) -> Rc<Self> {
        Rc::new(Self { steps: Cell::new(steps), bytes: Cell::new(bytes) })
    }

    /// Takes steps.
    ///
    /// # Errors
    /// None are left.
    pub(crate) fn step(&self, steps: u64) -> Result<()> {
        let left = self.steps.get().checked_sub(steps).ok_or(Error::TooManySteps)?;
        self.steps.set(left);
        Ok(())
    }

    /// Takes the steps of looking at so many bytes.
    pub(crate) fn read(&self, bytes: usize) -> Result<()> {
        self.step((bytes / BYTES_A_STEP) as u64)
    }

    /// Takes bytes until the charge is dropped.
    pub(crate) fn charge(self: &Rc<Self>, bytes: usize) -> Result<Charge> {
        let mut charge = Charge { budget: Rc::clone(self), bytes: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }
}

/// Bytes that something holds; they are given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Takes further bytes, before they are allocated. Writing them costs steps, too.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        self.budget.read(bytes)?;
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
