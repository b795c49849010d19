//! The amount of work in a model's operations, counted in multiply-adds and in numbers that are moved.
//!
//! A matrix product takes rows × outputs × inputs multiply-adds; attention takes two for each number of the
//! keys that a row sees. Counts are the same on every day and every machine; the engine turns them into the
//! prices that tenants pay.

use crate::ModelConfig;

/// The work in an operation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// The number of operations that are started on the device.
    pub operations: f64,
    /// Multiply-adds.
    pub multiply_adds: f64,
    /// 32-bit numbers that are copied, added or looked at on the host.
    pub numbers: usize,
}

/// The cost of a command that moves nothing, as a fraction of an operation.
const COMMAND: f64 = 1.0 / 16.0;

impl Work {
    /// Returns the work in an operation that moves `numbers` numbers.
    pub fn moved(numbers: usize) -> Self {
        Self { operations: 1.0, multiply_adds: 0.0, numbers }
    }

    /// Returns the work in a command to the engine that moves `numbers` numbers.
    pub fn command(numbers: usize) -> Self {
        Self { operations: COMMAND, multiply_adds: 0.0, numbers }
    }

    /// Returns the work in an operation of `multiply_adds` multiply-adds.
    fn computed(multiply_adds: f64) -> Self {
        Self { operations: 1.0, multiply_adds, numbers: 0 }
    }
}

/// The work in the parts of one model's forward pass.
#[derive(Debug, Clone)]
pub struct PassWork {
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
}

impl PassWork {
    /// Counts the work in a model's passes.
    pub fn new(model: &ModelConfig) -> Self {
        let (q, kv) = ((model.heads * model.head_dim) as f64, (model.kv_heads * model.head_dim) as f64);
        let hidden = model.hidden as f64;
        Self {
            projections: hidden * (2.0 * q + 2.0 * kv),
            feed_forward: 3.0 * hidden * model.feed_forward as f64,
            seen: 2.0 * q,
            windows: (0..model.layers).map(|layer| model.window_of(layer).unwrap_or(usize::MAX)).collect(),
            vocab: model.vocab,
            hidden: model.hidden,
        }
    }

    /// The number of tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The number of layers.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// Returns the multiply-adds of `rows` rows of a forward pass that begin at position `first`, `outputs`
    /// of them with logits.
    pub fn pass(&self, first: usize, rows: usize, outputs: usize) -> f64 {
        let layers = self.windows.len() as f64 * (self.projections + self.feed_forward);
        let seen: f64 = self.windows.iter().map(|&window| self.seen_by(first, rows, window)).sum();
        rows as f64 * layers + seen + products(outputs, self.vocab, self.hidden)
    }

    /// Returns the multiply-adds of one row with logits that sees no context.
    pub fn row(&self) -> f64 {
        let layers = self.windows.len().max(1) as f64;
        layers * (self.projections + self.feed_forward) + products(1, self.vocab, self.hidden)
    }

    /// Multiply-adds for the context of rows in one layer. From `first` on each row sees one token more, up
    /// to a window.
    fn seen_by(&self, first: usize, rows: usize, window: usize) -> f64 {
        self.seen * rows as f64 * (first as f64 + rows as f64 / 2.0).min(window as f64)
    }

    /// Returns the work in one layer's attention for rows that begin at position `first`.
    pub fn attention(&self, layer: usize, first: usize, rows: usize) -> Work {
        let window = self.windows.get(layer).copied().unwrap_or(usize::MAX);
        Work::computed(rows as f64 * self.projections + self.seen_by(first, rows, window))
    }

    /// Returns the work in one layer's feed-forward network.
    pub fn feed_forward(&self, rows: usize) -> Work {
        Work::computed(rows as f64 * self.feed_forward)
    }

    /// Returns the work in a product with a matrix of `[outputs, inputs]`, including the copy of its result.
    pub fn matmul(&self, rows: usize, [outputs, inputs]: [usize; 2]) -> Work {
        Work { numbers: rows * outputs, ..Work::computed(products(rows, outputs, inputs)) }
    }

    /// Returns the work in logits of hidden states, including their copy to the caller.
    pub fn logits(&self, rows: usize) -> Work {
        self.matmul(rows, [self.vocab, self.hidden])
    }
}

fn products(rows: usize, outputs: usize, inputs: usize) -> f64 {
    rows as f64 * outputs as f64 * inputs as f64
}
