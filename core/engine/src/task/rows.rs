//! What a forward pass computed for one task.

use std::ops::Range;

use realm_model::{Outputs, TopK};

use crate::{Error, Logits};

/// The results of a forward pass for one task.
pub(crate) struct Rows<'a> {
    /// The logits of all tasks.
    pub(crate) outputs: Outputs<'a>,
    /// The rows among them that are this task's.
    pub(crate) range: Range<usize>,
    /// Hidden states of the rows that wanted them, `[rows * hidden]`.
    pub(crate) hidden: &'a [f32],
    /// The number of elements in a row of logits, and in one of hidden states.
    pub(crate) vocab: usize,
    pub(crate) width: usize,
}

impl Rows<'_> {
    /// The number of rows with logits.
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// The logits of all rows, `[rows * vocab]`; empty where only the likeliest are on the host.
    pub(crate) fn host(&self) -> &[f32] {
        match self.outputs {
            Outputs::Host(all) => &all[self.range.start * self.vocab..self.range.end * self.vocab],
            Outputs::Device(_) => &[],
        }
    }

    /// The likeliest tokens of row `i`, where no more are on the host.
    pub(crate) fn top_k(&self, i: usize) -> Option<TopK<'_>> {
        match self.outputs {
            Outputs::Device(rows) => rows.top_k(self.range.start + i).ok(),
            Outputs::Host(_) => None,
        }
    }

    /// The logits of row `i`, to keep: the likeliest tokens where only they are on the host, and otherwise a
    /// copy, which may use `spare`.
    pub(crate) fn logits(&self, i: usize, spare: &mut Vec<f32>) -> Result<Logits, Error> {
        if let Outputs::Device(rows) = self.outputs
            && let Some(row) = rows.keep(self.range.start + i)
        {
            let top_k = rows.top_k(self.range.start + i).map_err(|e| Error::Model(e.to_string()))?;
            return Ok(Logits::on_device(self.vocab, row, top_k));
        }
        let mut values = std::mem::take(spare);
        values.clear();
        match self.outputs {
            Outputs::Host(all) => values.extend_from_slice(self.row(all, i)),
            Outputs::Device(rows) => {
                rows.read(self.range.start + i, &mut values).map_err(|e| Error::Model(e.to_string()))?;
            }
        }
        Ok(Logits::new(values))
    }

    /// All logits of row `i`, fetched into `space` if they are on the device.
    pub(crate) fn all<'s>(&'s self, i: usize, space: &'s mut Vec<f32>) -> Result<&'s [f32], Error> {
        match self.outputs {
            Outputs::Host(all) => Ok(self.row(all, i)),
            Outputs::Device(rows) => {
                rows.read(self.range.start + i, space).map_err(|e| Error::Model(e.to_string()))?;
                Ok(space)
            }
        }
    }

    fn row<'s>(&self, all: &'s [f32], i: usize) -> &'s [f32] {
        &all[(self.range.start + i) * self.vocab..][..self.vocab]
    }
}
