//! Costs: one measure for all work that the engine's thread does for a tenant.
//!
//! The unit is a *row*: the multiply-adds of one generated token, with every layer's weights and the output
//! matrix, with an empty context. Other work is [counted](Work) in multiply-adds and divided by those; a
//! number that is copied, added or looked at on the host counts as the number of multiply-adds that the
//! device's [`Pace`] gives.
//!
//! Counting is preferred to measuring time because the same calls then cost the same on every day and every
//! machine: a tenant's charges reveal nothing about its neighbors, and tests can ask for exact numbers.

use realm_model::{ModelConfig, PassWork, Work};

/// The speed of a processor's multiply-adds relative to other work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Multiply-adds that take as long as moving one number through the host's memory.
    number: f64,
    /// Multiply-adds that take as long as starting an operation: some 10 µs. In small models it is less:
    /// those of a row in half a layer.
    operation: f64,
    /// The factor by which a row takes longer alone than in a batch, which reads the weights once.
    pub(crate) alone: f64,
    /// Rows of prompts that a pass beside other tenants' sequences has at least, however long they take.
    pub(crate) least_prompt: usize,
}

impl Pace {
    /// On the CPUs measured, products of a few rows do 20 to 40 multiply-adds in the nanosecond that copying
    /// one float to fresh memory takes.
    pub(crate) const HOST: Self =
        Self { number: 32.0, operation: (1 << 18) as f64, alone: 4.0, least_prompt: 4 };
    /// An H200 does some 4,000 in that nanosecond, and computes a batch of 16 rows in the time of one.
    const DEVICE: Self = Self { number: 4096.0, operation: (1 << 25) as f64, alone: 16.0, least_prompt: 8 };
}

/// Prices of one model's work, in rows.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    pub(crate) work: PassWork,
    /// Multiply-adds of a row.
    row: f64,
    operation: f64,
    pub(crate) pace: Pace,
}

impl Prices {
    /// Computes the prices of a model's work on the host or, with `device`, on a device with memory of its
    /// own.
    pub(crate) fn new(model: &ModelConfig, device: bool) -> Self {
        let pace = if device { Pace::DEVICE } else { Pace::HOST };
        let work = PassWork::new(model);
        let row = work.row().max(1.0);
        let operation = pace.operation.min(row / (2.0 * work.layers().max(1) as f64));
        Self { work, row, operation, pace }
    }

    /// The number of tokens in the vocabulary.
    pub(crate) fn vocab(&self) -> usize {
        self.work.vocab()
    }

    /// The price of `rows` rows of a forward pass that begin at position `first`, `outputs` of them with
    /// logits.
    pub(crate) fn pass(&self, first: usize, rows: usize, outputs: usize) -> f64 {
        self.work.pass(first, rows, outputs) / self.row
    }

    /// The price of an operation or a command.
    pub(crate) fn of(&self, work: Work) -> f64 {
        (work.operations * self.operation + work.multiply_adds) / self.row + self.numbers(work.numbers)
    }

    /// The price of a command that moves 32-bit numbers.
    pub(crate) fn command(&self, numbers: usize) -> f64 {
        self.of(Work::command(numbers))
    }

    /// The price of numbers that are looked at or moved as a side effect.
    pub(crate) fn numbers(&self, numbers: usize) -> f64 {
        self.pace.number * numbers as f64 / self.row
    }
}
