//! Costs: one measure for all work that the engine's thread does for a tenant.
//!
//! The unit is a *row*: the multiply-adds of one generated token, with every layer's weights and the output
//! matrix, with an empty context. Other work is counted in multiply-adds and divided by those. A matrix
//! product takes rows × outputs × inputs; attention takes two for each number of the keys that a row sees; a
//! number that is copied, added or looked at on the host counts as the number of multiply-adds that the
//! device's [`Pace`] gives.
//!
//! Counting is preferred to measuring time because the same calls then cost the same on every day and every
//! machine: a tenant's charges reveal nothing about its neighbors, and tests can ask for exact numbers.

use realm_model::ModelConfig;

/// The speed of a processor's multiply-adds relative to other work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Multiply-adds that take as long as moving one number through the host's memory.
    number: f64,
    /// Multiply-adds that take as long as starting an operation: some 10 µs. In small models it is less:
    /// those of a row in half a layer.
    operation: f64,
    /// The factor by which a row takes longer alone than in a batch, which reads the weights once.
    pub(super) alone: f64,
    /// Rows of prompts that a pass beside other tenants' sequences has at least, however long they take.
    pub(super) least_prompt: usize,
}

impl Pace {
    /// On the CPUs measured, products of a few rows do 20 to 40 multiply-adds in the nanosecond that copying
    /// one float to fresh memory takes.
    pub(super) const HOST: Self =
        Self { number: 32.0, operation: (1 << 18) as f64, alone: 4.0, least_prompt: 4 };
    /// An H200 does some 4,000 in that nanosecond, and computes a batch of 16 rows in the time of one.
    const DEVICE: Self = Self { number: 4096.0, operation: (1 << 25) as f64, alone: 16.0, least_prompt: 8 };
}

/// The cost of a command that moves nothing, as a fraction of an operation.
const COMMAND: f64 = 1.0 / 16.0;

/// Prices of one model's work, in rows.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    /// Multiply-adds of a row.
    row: f64,
    /// Multiply-adds of a row in one layer's attention, without the context that it sees.
    projections: f64,
    /// Multiply-adds of a row in one layer's feed-forward network.
    feed_forward: f64,
    /// Multiply-adds of a row for each token that it sees in one layer.
    seen: f64,
    /// For each layer, the most tokens that a row sees.
    windows: Vec<usize>,
    vocab: usize,
    hidden: usize,
    operation: f64,
    pub(super) pace: Pace,
}

impl Prices {
    /// Computes the prices of a model's work on the host or, with `device`, on a device with memory of its
    /// own.
    pub(crate) fn new(model: &ModelConfig, device: bool) -> Self {
        let pace = if device { Pace::DEVICE } else { Pace::HOST };
        let (q, kv) = ((model.heads * model.head_dim) as f64, (model.kv_heads * model.head_dim) as f64);
        let hidden = model.hidden as f64;
        let projections = hidden * (2.0 * q + 2.0 * kv);
        let feed_forward = 3.0 * hidden * model.feed_forward as f64;
        let layers = model.layers.max(1) as f64;
        let row = (layers * (projections + feed_forward) + hidden * model.vocab as f64).max(1.0);
        let windows = (0..model.layers).map(|layer| model.window_of(layer).unwrap_or(usize::MAX)).collect();
        Self {
            row,
            projections,
            feed_forward,
            seen: 2.0 * q,
            windows,
            vocab: model.vocab,
            hidden: model.hidden,
            operation: pace.operation.min(row / (2.0 * layers)),
            pace,
        }
    }

    /// The number of tokens in the vocabulary.
    pub(crate) fn vocab(&self) -> usize {
        self.vocab
    }

    /// The number of elements of a hidden state.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// The price of `rows` rows of a forward pass that begin at position `first`, `outputs` of them with
    /// logits.
    pub(crate) fn pass(&self, first: usize, rows: usize, outputs: usize) -> f64 {
        let layers = self.windows.len() as f64 * (self.projections + self.feed_forward);
        let seen: f64 = self.windows.iter().map(|&window| self.seen_by(first, rows, window)).sum();
        (rows as f64 * layers + seen + self.products(outputs, self.vocab, self.hidden)) / self.row
    }

    /// Multiply-adds for the context of rows in one layer. From `first` on each row sees one token more, up
    /// to a window.
    fn seen_by(&self, first: usize, rows: usize, window: usize) -> f64 {
        self.seen * rows as f64 * (first as f64 + rows as f64 / 2.0).min(window as f64)
    }

    fn products(&self, rows: usize, outputs: usize, inputs: usize) -> f64 {
        rows as f64 * outputs as f64 * inputs as f64
    }

    /// The price of one layer's attention for rows that begin at position `first`.
    pub(crate) fn attention(&self, layer: usize, first: usize, rows: usize) -> f64 {
        let window = self.windows.get(layer).copied().unwrap_or(usize::MAX);
        (self.operation + rows as f64 * self.projections + self.seen_by(first, rows, window)) / self.row
    }

    /// The price of one layer's feed-forward network.
    pub(crate) fn feed_forward(&self, rows: usize) -> f64 {
        (self.operation + rows as f64 * self.feed_forward) / self.row
    }

    /// The price of a product with a matrix.
    pub(crate) fn matmul(&self, rows: usize, [outputs, inputs]: [usize; 2]) -> f64 {
        (self.operation + self.products(rows, outputs, inputs)) / self.row + self.numbers(rows * outputs)
    }

    /// The price of logits of hidden states, including their copy to the caller.
    pub(crate) fn logits(&self, rows: usize) -> f64 {
        self.matmul(rows, [self.vocab, self.hidden])
    }

    /// The price of an operation that moves 32-bit numbers.
    pub(crate) fn moved(&self, numbers: usize) -> f64 {
        self.operation / self.row + self.numbers(numbers)
    }

    /// The price of a command that moves 32-bit numbers.
    pub(crate) fn command(&self, numbers: usize) -> f64 {
        COMMAND * self.operation / self.row + self.numbers(numbers)
    }

    /// The price of numbers that are looked at or moved as a side effect.
    pub(crate) fn numbers(&self, numbers: usize) -> f64 {
        self.pace.number * numbers as f64 / self.row
    }
}
