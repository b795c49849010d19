//! The amount of work in a model's operations, counted in multiply-adds and in numbers that are moved.
//!
//! A matrix product takes rows × outputs × inputs multiply-adds; attention takes two for each number of the
//! keys that a row sees. Counts are the same on every day and every machine; the engine turns them into the
//! prices that tenants pay.

use crate::ModelConfig;
use crate::spec::{AttentionSpec, DenseSpec, FeedForwardSpec, LayerSpec};

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
    layers: Vec<LayerWork>,
    /// Multiply-adds of a row in all layers, without the context that it sees.
    row: f64,
    vocab: usize,
    hidden: usize,
}

/// The work of a row in one layer, in multiply-adds.
#[derive(Debug, Clone, Copy, Default)]
struct LayerWork {
    /// Attention's projections.
    projections: f64,
    feed_forward: f64,
    /// Attention, for each token that the row sees.
    seen: f64,
    /// The most tokens that a row sees.
    window: usize,
}

/// Returns the multiply-adds of a row in attention's matrices.
fn projections(hidden: f64, attention: &AttentionSpec) -> f64 {
    let (queries, keys) = (attention.projected_queries() as f64, attention.keys() as f64);
    let ends = hidden * (keys + attention.values() as f64);
    match attention.latent {
        None => ends + hidden * (queries + keys),
        Some(latent) => {
            let from = latent.query_rank.map_or(hidden, |rank| rank as f64);
            let down = if latent.query_rank.is_some() { hidden * from } else { 0.0 };
            let heads = attention.heads * latent.rank * (latent.plain + latent.value);
            ends + down + from * queries + heads as f64
        }
    }
}

impl LayerWork {
    fn new(hidden: usize, layer: &LayerSpec) -> Self {
        let (hidden, attention) = (hidden as f64, &layer.attention);
        let dense = |spec: &DenseSpec| (2 + usize::from(spec.gated)) as f64 * hidden * spec.width as f64;
        let chosen = match &layer.feed_forward {
            FeedForwardSpec::Dense(_) => 0.0,
            FeedForwardSpec::Experts(experts) => {
                hidden * experts.count as f64 + experts.routing.used as f64 * dense(&experts.expert)
            }
        };
        Self {
            projections: projections(hidden, attention),
            feed_forward: chosen + layer.feed_forward.every_row().map_or(0.0, dense),
            seen: 2.0 * attention.queries() as f64,
            window: attention.seen().unwrap_or(usize::MAX),
        }
    }

    /// Multiply-adds for the context of rows. From `first` on each row sees one token more, up to the window.
    fn context(&self, first: usize, rows: usize) -> f64 {
        self.seen * rows as f64 * (first as f64 + rows as f64 / 2.0).min(self.window as f64)
    }
}

impl PassWork {
    /// Counts the work in a model's passes.
    pub fn new(model: &ModelConfig) -> Self {
        let layers: Vec<_> = model.layers.iter().map(|layer| LayerWork::new(model.hidden, layer)).collect();
        let row = layers.iter().map(|layer| layer.projections + layer.feed_forward).sum();
        Self { layers, row, vocab: model.vocab, hidden: model.hidden }
    }

    /// The number of tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Returns the multiply-adds of `rows` rows of a forward pass that begin at position `first`, `outputs`
    /// of them with logits.
    pub fn pass(&self, first: usize, rows: usize, outputs: usize) -> f64 {
        let seen: f64 = self.layers.iter().map(|layer| layer.context(first, rows)).sum();
        rows as f64 * self.row + seen + products(outputs, self.vocab, self.hidden)
    }

    /// Returns the multiply-adds of one row with logits that sees no context.
    pub fn row(&self) -> f64 {
        self.row + products(1, self.vocab, self.hidden)
    }

    fn layer(&self, layer: usize) -> LayerWork {
        self.layers.get(layer).copied().unwrap_or_default()
    }

    /// Returns the work in one layer's attention for rows that begin at position `first`.
    pub fn attention(&self, layer: usize, first: usize, rows: usize) -> Work {
        let layer = self.layer(layer);
        Work::computed(rows as f64 * layer.projections + layer.context(first, rows))
    }

    /// Returns the work in one layer's feed-forward network.
    pub fn feed_forward(&self, layer: usize, rows: usize) -> Work {
        Work::computed(rows as f64 * self.layer(layer).feed_forward)
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
