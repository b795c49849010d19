//! The forward pass, which all architectures share.
//!
//! - [`Forward`]: batches over one KV cache.
//! - `runner`: the pass on a backend; `check` refuses batches that kernels could not compute.
//! - `buffers`: the activations of a pass.
//! - `output`: the logits of a pass, on the host or on the device; `kept`, `top_k`: rows that stay on the
//!   device, and their likeliest tokens on the host.

mod buffers;
mod check;
mod kept;
mod output;
mod runner;
mod top_k;

use std::sync::Arc;
use std::time::Instant;

use realm_compute::{AdapterUse, Batch, CacheLayout, PageFormat};

use crate::adapter::AdapterWeights;
use crate::{Error, ModelConfig};

pub(crate) use buffers::{Buffers, ByWidth, LatentBuffers};
pub use kept::KeptRow;
pub use output::{DeviceOutputs, Outputs};
pub use runner::Runner;
pub(crate) use runner::{logits, rotate};
pub use top_k::TopK;

/// Runs batches over one KV cache: the object-safe interface of a [`Runner`].
pub trait Forward: Send + Sync {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// Returns how layers share the pages of the KV cache.
    fn layout(&self) -> &CacheLayout;

    /// Number of pages in the KV cache.
    fn pages(&self) -> usize;

    /// Checks rows of one sequence before they go into a batch: `tokens` at positions `past ..` with that
    /// page table for every group of layers, and that adapter. If all rows of a batch pass,
    /// [`start`](Self::start) refuses the batch only for its own structure.
    ///
    /// # Errors
    /// `InvalidBatch` for a token outside the vocabulary, a page that is not in the cache or the page table,
    /// and an adapter that is not loaded.
    fn check_rows(
        &self,
        tokens: &[u32],
        past: usize,
        tables: &[Vec<u32>],
        adapter: Option<AdapterUse>,
    ) -> Result<(), Error>;

    /// Runs a batch. Afterwards the keys and values of all rows are in the cache, and
    /// [`outputs`](Self::outputs) and [`hidden`](Self::hidden) hold the results that the batch wanted.
    fn forward(&mut self, batch: &Batch) -> Result<(), Error> {
        self.start(batch)?;
        self.finish()
    }

    /// Starts a batch: the first half of [`forward`](Self::forward). If this runner
    /// [overlaps](Self::overlaps), the device is still at work when the call returns.
    fn start(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Waits for the batch and copies the results that it wanted to the host: the second half of
    /// [`forward`](Self::forward).
    fn finish(&mut self) -> Result<(), Error>;

    /// Returns whether the host is free between `start` and `finish`.
    fn overlaps(&self) -> bool;

    /// The logits of the last batch's output rows.
    fn outputs(&self) -> Outputs<'_>;

    /// The last hidden states, after the output norm, of the last batch's hidden rows,
    /// `[hidden rows, hidden]`.
    fn hidden(&self) -> &[f32];

    /// Copies page `from` over page `to`.
    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), Error>;

    /// Appends a page's contents to `out`; see [`export_page`](realm_compute::Backend::export_page).
    fn export_page(&self, page: u32, out: &mut Vec<u8>) -> Result<(), Error>;

    /// Returns the layout of the bytes that `export_page` writes for a page.
    fn page_format(&self) -> PageFormat;

    /// Fills a page with bytes that `export_page` wrote.
    fn import_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), Error>;

    /// Calls `each(i)` for every `i < count` on the backend's host threads.
    fn on_host_threads(&self, count: usize, each: &(dyn Fn(usize) + Sync));

    /// Announces `count` such calls at about the time `at`; see
    /// [`wake_hint`](realm_compute::Backend::wake_hint).
    fn wake_hint(&self, count: usize, at: Instant);

    /// Makes spans of adapter `id` use `adapter`, which must have been made for this model; `None` removes
    /// the adapter.
    fn set_adapter(&mut self, id: u32, adapter: Option<Arc<dyn AdapterWeights>>) -> Result<(), Error>;
}
