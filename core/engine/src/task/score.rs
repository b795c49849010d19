//! Scores a given text.

use super::Rows;
use crate::answer::Reply;
use crate::sampling::{Scored, finite, score_row};
use crate::{Error, MemoryCharge};

/// Log-probabilities of a text's own tokens, and the likeliest tokens in their place.
pub(crate) struct Score {
    /// The first row whose logits are wanted.
    first_row: usize,
    /// The number of likeliest tokens for each row.
    top: usize,
    rows: Vec<Scored>,
    failed: Option<Error>,
    reply: Reply<Vec<Scored>>,
}

impl Score {
    pub(crate) fn new(first_row: usize, top: usize, reply: Reply<Vec<Scored>>) -> Self {
        Self { first_row, top, rows: Vec::new(), failed: None, reply }
    }

    /// Bytes of memory that the results take.
    pub(super) fn memory(&self) -> usize {
        self.rows.capacity() * (size_of::<Scored>() + self.top * size_of::<crate::TokenLogprob>())
    }

    pub(super) fn first_row(&self) -> usize {
        self.first_row
    }

    /// Takes rows of logits, the last of which stands before token `end`.
    pub(super) fn advance(&mut self, results: &Rows<'_>, end: usize, tokens: &[u32]) {
        let rows = results.host().chunks_exact(results.vocab);
        let first = end - rows.len();
        for (i, row) in rows.enumerate() {
            if let Err(error) = finite(row, || format!("token {}", first + i + 1)) {
                self.failed.get_or_insert(error);
            }
            self.rows.push(score_row(row, tokens.get(first + i + 1).copied(), self.top));
        }
    }

    pub(super) fn restart(&mut self) {
        self.rows.clear();
        self.failed = None;
    }

    /// Sends the answer and puts it on the account of `charge`.
    pub(super) fn finish(&mut self, charge: MemoryCharge) -> bool {
        let bytes = self.memory();
        let scores = std::mem::take(&mut self.rows);
        self.reply.send(self.failed.take().map_or(Ok(scores), Err), bytes, charge);
        true
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(super) fn fail(&self, error: Error) {
        self.reply.fail(error);
    }
}
