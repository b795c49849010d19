//! The logits of a pass, wherever they are.

use super::kept::KeptRow;
use super::top_k::TopK;
use crate::Error;

/// The logits of the last batch's output rows.
#[derive(Clone, Copy)]
pub enum Outputs<'a> {
    /// On the host, `[outputs, vocab]`.
    Host(&'a [f32]),
    /// On a device. The host has the likeliest tokens of each row, because the batch asked
    /// [for no more](realm_compute::Batch::top_k).
    Device(&'a dyn DeviceOutputs),
}

/// Logits on a device; rows are numbered in the order of the batch's output rows.
pub trait DeviceOutputs: Sync {
    /// The likeliest tokens of a row.
    ///
    /// # Errors
    /// `InvalidBatch` for a row that the batch did not have.
    fn top_k(&self, row: usize) -> Result<TopK<'_>, Error>;

    /// Copies a row to the host, `[vocab]`, replacing the contents of `out`. May be called on the threads of
    /// [`Forward::on_host_threads`](super::Forward::on_host_threads).
    ///
    /// # Errors
    /// `InvalidBatch` for a row that the batch did not have, and the device's errors.
    fn read(&self, row: usize, out: &mut Vec<f32>) -> Result<(), Error>;

    /// Returns a handle that holds a row beyond the next batch, if this one asked to
    /// [keep](realm_compute::Batch::keep) them. Must be called before the next batch.
    fn keep(&self, row: usize) -> Option<Box<dyn KeptRow>>;
}

impl<'a> Outputs<'a> {
    /// Returns the logits if they are on the host, `[outputs, vocab]`; empty otherwise.
    pub fn host(self) -> &'a [f32] {
        match self {
            Self::Host(logits) => logits,
            Self::Device(_) => &[],
        }
    }
}
