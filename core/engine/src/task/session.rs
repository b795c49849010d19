//! A sequence that a program drives itself, forward by forward.

use realm_compute::Want;
use realm_handover::Sender;

use super::Rows;
use crate::{Error, Logits};

/// The results that a forward returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// No results: only keys and values, for a later forward.
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
    /// The rows, `[rows * width]`.
    pub values: Vec<f32>,
    /// The number of elements in a row; 0 for [`Output::Nothing`].
    pub width: usize,
    /// The number of the sequence's tokens that this forward found in the prefix cache.
    pub cached: usize,
}

impl Forwarded {
    /// Iterates over the rows.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &[f32]> + ExactSizeIterator {
        self.values.chunks_exact(self.width.max(1))
    }

    /// The last row; empty for [`Output::Nothing`].
    pub fn last(&self) -> &[f32] {
        self.rows().next_back().unwrap_or_default()
    }
}

/// The result of [`Sequence::start_logits`](crate::Sequence::start_logits).
#[derive(Default)]
pub struct Computed {
    /// The logits after the last new token, or after every new one.
    pub rows: Vec<Logits>,
    /// The number of the sequence's tokens that this forward found in the prefix cache.
    pub cached: usize,
}

/// The results of a forward so far, and the sender to its caller.
pub(crate) enum Results {
    /// All numbers, on the host.
    Values(Forwarded, Sender<Result<Forwarded, Error>>),
    /// Logits that may stay on the device. The buffer is for the first ones that do not.
    Logits(Computed, Vec<f32>, Sender<Result<Computed, Error>>),
}

/// A forward that waits for its results.
pub(crate) struct Pending {
    pub(crate) output: Output,
    /// The index of the first new token.
    pub(crate) first: usize,
    pub(crate) results: Results,
}

impl Results {
    /// Discards earlier results.
    fn clear(&mut self) {
        match self {
            Self::Values(forwarded, _) => *forwarded = Forwarded::default(),
            Self::Logits(computed, ..) => *computed = Computed::default(),
        }
    }

    pub(crate) fn fail(&self, error: Error) {
        // Fails if the caller is gone, who then needs no error.
        match self {
            Self::Values(_, reply) => drop(reply.send_anyway(Err(error))),
            Self::Logits(.., reply) => drop(reply.send_anyway(Err(error))),
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Values(_, reply) => reply.is_closed(),
            Self::Logits(.., reply) => reply.is_closed(),
        }
    }

    fn send(self) {
        // Fails if the caller is gone, who then needs no result.
        match self {
            Self::Values(forwarded, reply) => drop(reply.try_send(Ok(forwarded))),
            Self::Logits(computed, _, reply) => drop(reply.try_send(Ok(computed))),
        }
    }
}

/// A program's sequence. It rests until the program's next command.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) pending: Option<Pending>,
}

impl Session {
    /// Bytes of memory that incomplete results take.
    pub(super) fn memory(&self) -> usize {
        match self.pending.as_ref().map(|pending| &pending.results) {
            Some(Results::Values(forwarded, _)) => forwarded.values.capacity() * size_of::<f32>(),
            Some(Results::Logits(computed, spare, _)) => {
                let rows: usize = computed.rows.iter().map(|row| row.vocabulary()).sum();
                (rows + spare.capacity()) * size_of::<f32>()
            }
            None => 0,
        }
    }

    /// Returns whether every new token's result is wanted.
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
        let mut failed = None;
        match &mut pending.results {
            Results::Values(forwarded, _) => {
                let (values, width) = match pending.output {
                    Output::Hidden => (results.hidden, results.width),
                    _ => (results.host(), results.vocab),
                };
                if !values.is_empty() {
                    forwarded.values.extend_from_slice(values);
                    forwarded.width = width;
                }
            }
            Results::Logits(computed, spare, _) => {
                for i in 0..results.len() {
                    match results.logits(i, spare) {
                        Ok(row) => computed.rows.push(row),
                        Err(error) => failed = Some(error),
                    }
                }
            }
        }
        if let Some(error) = failed {
            self.fail(error);
        }
    }

    /// Returns whether its rows of logits may stay on the device.
    pub(super) fn keeps_rows(&self) -> bool {
        matches!(&self.pending, Some(Pending { results: Results::Logits(..), .. }))
    }

    /// Adds tokens that were found in the prefix cache.
    pub(crate) fn found_cached(&mut self, tokens: usize) {
        if let Some(pending) = &mut self.pending {
            match &mut pending.results {
                Results::Values(forwarded, _) => forwarded.cached += tokens,
                Results::Logits(computed, ..) => computed.cached += tokens,
            }
        }
    }

    pub(super) fn restart(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.results.clear();
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(pending) = self.pending.take() {
            pending.results.send();
        }
    }

    /// Returns whether the caller of the forward has stopped waiting. The session itself ends with its
    /// handle.
    pub(super) fn is_abandoned(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.results.is_abandoned())
    }

    pub(super) fn fail(&mut self, error: Error) {
        if let Some(pending) = self.pending.take() {
            pending.results.fail(error);
        }
    }
}
