//! A sequence that a program drives itself, forward by forward.

use async_channel::Sender;
use realm_compute::Want;

use super::Rows;
use crate::Error;

/// Which results of a forward are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Only keys and values: what comes later wants the results.
    Nothing,
    /// The logits after the last token, `[vocab]`.
    LastLogits,
    /// The logits after every new token, `[new tokens, vocab]`.
    Logits,
    /// The last hidden state of every new token, `[new tokens, hidden]`.
    Hidden,
}

/// The results of a forward, row by row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forwarded {
    /// `[rows * width]`.
    pub values: Vec<f32>,
    /// Numbers in a row; 0 if nothing was wanted.
    pub width: usize,
    /// How many of the sequence's tokens were found in the prefix cache for this forward.
    pub cached: usize,
}

impl Forwarded {
    /// Row by row.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &[f32]> + ExactSizeIterator {
        self.values.chunks_exact(self.width.max(1))
    }

    /// The last row; empty if nothing was wanted.
    pub fn last(&self) -> &[f32] {
        self.rows().next_back().unwrap_or_default()
    }
}

/// A forward that waits for its results.
pub(crate) struct Pending {
    pub(crate) output: Output,
    /// The first of the new tokens.
    pub(crate) first: usize,
    pub(crate) results: Forwarded,
    pub(crate) reply: Sender<Result<Forwarded, Error>>,
}

/// A program's sequence; it rests while the program thinks.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) pending: Option<Pending>,
}

impl Session {
    /// Whether every new token's result is wanted.
    pub(super) fn every_row(&self) -> bool {
        matches!(&self.pending, Some(Pending { output: Output::Logits | Output::Hidden, .. }))
    }

    pub(super) fn silent(&self, tokens: usize) -> usize {
        match &self.pending {
            Some(Pending { output: Output::Logits | Output::Hidden, first, .. }) => *first,
            Some(Pending { output: Output::LastLogits, .. }) => tokens.saturating_sub(1),
            Some(Pending { output: Output::Nothing, .. }) | None => tokens,
        }
    }

    pub(super) fn want(&self, cached: usize, tokens: usize, whole: bool) -> Want {
        match self.pending.as_ref().map(|p| p.output) {
            Some(Output::Logits) if cached >= self.silent(tokens) => Want::Logits,
            Some(Output::Hidden) if cached >= self.silent(tokens) => Want::Hidden,
            Some(Output::LastLogits) if whole => Want::LastLogits,
            _ => Want::Nothing,
        }
    }

    pub(super) fn advance(&mut self, results: &Rows<'_>) {
        let Some(pending) = &mut self.pending else { return };
        let (values, width) = match pending.output {
            Output::Hidden => (results.hidden, results.width),
            _ => (results.logits, results.vocab),
        };
        if !values.is_empty() {
            pending.results.values.extend_from_slice(values);
            pending.results.width = width;
        }
    }

    /// So many tokens were computed by somebody else already.
    pub(crate) fn found_cached(&mut self, tokens: usize) {
        if let Some(pending) = &mut self.pending {
            pending.results.cached += tokens;
        }
    }

    pub(super) fn restart(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.results = Forwarded::default();
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(pending) = self.pending.take() {
            // If the caller is gone, nobody wants to know.
            let _ = pending.reply.try_send(Ok(pending.results));
        }
    }

    /// A session itself ends when its handle says so, not when nobody waits for a forward.
    pub(super) fn is_abandoned(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.reply.is_closed())
    }

    pub(super) fn fail(&mut self, error: Error) {
        if let Some(pending) = self.pending.take() {
            drop(pending.reply.force_send(Err(error)));
        }
    }
}
