//! What a forward pass computed for one task.

use std::ops::Range;

use realm_model::{Forward, TopK};

use crate::{Error, Logits};

/// The results of a forward pass for one task.
pub(crate) struct Rows<'a> {
    /// Logits of the rows that wanted them, `[rows * vocab]`; empty where only the likeliest are on the host.
    pub(crate) logits: &'a [f32],
    /// The likeliest tokens of these rows, where the others are still on the device.
    pub(crate) top_k: Option<(&'a dyn Forward, Range<usize>)>,
    /// Hidden states of the rows that wanted them, `[rows * hidden]`.
    pub(crate) hidden: &'a [f32],
    /// The number of elements in a row of logits, and in one of hidden states.
    pub(crate) vocab: usize,
    pub(crate) width: usize,
}

impl Rows<'_> {
    /// The number of rows with logits.
    pub(crate) fn len(&self) -> usize {
        match &self.top_k {
            Some((_, rows)) => rows.len(),
            None => self.logits.len() / self.vocab,
        }
    }

    /// The likeliest tokens of row `i`, where no more are on the host.
    pub(crate) fn top_k(&self, i: usize) -> Option<TopK<'_>> {
        self.top_k.as_ref().and_then(|(runner, rows)| runner.top_k(rows.start + i))
    }

    /// The logits of row `i`, to keep: the likeliest tokens where only they are on the host, and otherwise a
    /// copy, which may use `spare`.
    pub(crate) fn logits(&self, i: usize, spare: &mut Vec<f32>) -> Logits {
        if let Some((runner, rows)) = &self.top_k
            && let Some(top_k) = runner.top_k(rows.start + i)
            && let Some(row) = runner.kept(rows.start + i)
        {
            return Logits::on_device(self.vocab, row, top_k);
        }
        let mut values = std::mem::take(spare);
        values.clear();
        values.extend_from_slice(&self.logits[i * self.vocab..][..self.vocab]);
        Logits::new(values)
    }

    /// All logits of row `i`, fetched into `space` if they are on the device.
    pub(crate) fn all<'s>(&'s self, i: usize, space: &'s mut Vec<f32>) -> Result<&'s [f32], Error> {
        let Some((runner, rows)) = &self.top_k else {
            return Ok(&self.logits[i * self.vocab..][..self.vocab]);
        };
        runner.read_logits(rows.start + i, space).map_err(|e| Error::Model(e.to_string()))?;
        Ok(space)
    }
}
