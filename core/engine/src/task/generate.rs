//! Generates text, token by token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use realm_handover::{Sender, TrySendError};
use realm_tokenizer::Tokenizer;

use super::Rows;
use crate::chunk::{Chunk, Finish, FinishReason, Timings, Unread};
use crate::guide::Guide;
use crate::metrics::Outcome;
use crate::request::Request;
use crate::sampling::finite;
use crate::speculate::Speculator;
use crate::writing::Writing;
use crate::{Charged, Error, MemoryKind, MemoryLedger};

/// A request for text.
pub(crate) struct Generate {
    writing: Writing,
    /// The source of drafts, if the request may have any.
    speculator: Option<Speculator>,
    chunks: Sender<Unread>,
    /// The account of chunks that are not read.
    memory: MemoryLedger,
    /// The chunk of the last step for the reader; see [`deliver`](Self::deliver).
    outbox: Option<Chunk>,
    paused: Arc<AtomicBool>,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

/// The tokens that a forward pass added to a text.
pub(crate) struct Step {
    pub(crate) tokens: Vec<u32>,
    pub(crate) ended: bool,
}

impl Generate {
    pub(crate) fn new(
        request: &mut Request,
        guide: Option<Guide>,
        speculator: Option<Speculator>,
        chunks: Sender<Unread>,
        memory: MemoryLedger,
        paused: Arc<AtomicBool>,
    ) -> Self {
        Self {
            writing: Writing::new(request, guide),
            speculator,
            chunks,
            memory,
            outbox: None,
            paused,
            submitted: Instant::now(),
            started: None,
            first_token: None,
        }
    }

    /// Records a place in the batch, and the number of prompt tokens that were cached. A request that was
    /// preempted starts only once.
    pub(crate) fn start(&mut self, cached: usize) {
        if self.started.is_none() {
            self.started = Some(Instant::now());
            self.writing.found_cached(cached);
        }
    }

    /// Records that more of the prompt was found in the prefix cache after the start.
    pub(crate) fn found_cached(&mut self, tokens: usize) {
        if self.first_token.is_none() {
            self.writing.usage.cached_tokens += tokens;
        }
    }

    /// Starts to compute the grammar's mask while the next forward pass computes its logits.
    pub(crate) fn prepare(&mut self) {
        self.writing.prepare();
    }

    /// Looks for tokens that may follow `tokens` without a forward pass, at most `room` of them. Returns
    /// `None` if the request may have no drafts.
    pub(crate) fn look_ahead(&mut self, tokens: &[u32], room: usize) -> Option<&mut Speculator> {
        let speculator = self.speculator.as_mut()?;
        speculator.look_up(tokens);
        if self.writing.is_guided() {
            speculator.force(|| self.writing.forced_tokens().into_iter().take(room).collect());
        }
        Some(speculator)
    }

    /// Returns whether the likeliest tokens mostly suffice to choose from.
    pub(crate) fn top_k_suffices(&self) -> bool {
        self.writing.top_k_suffices()
    }

    /// The number of times that choosing a token scans the vocabulary.
    pub(crate) fn looks(&self) -> usize {
        self.writing.looks()
    }

    /// Returns whether the request has to wait for a slow reader. The reader then wakes the engine.
    pub(crate) fn waits_for_reader(&self) -> bool {
        if !self.is_full() {
            return false;
        }
        self.paused.store(true, Ordering::Release);
        // The reader may have read between the check and the flag.
        self.is_full()
    }

    fn is_full(&self) -> bool {
        self.chunks.is_full_with(usize::from(self.outbox.is_some()))
    }

    /// Sends the text that the last step added.
    pub(crate) fn deliver(&mut self) {
        let Some(chunk) = self.outbox.take() else { return };
        match self.chunks.try_send(self.unread(Ok(chunk))) {
            // If the reader is gone, the next step notices.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            // `waits_for_reader` was false when the step began, and there is no other sender.
            Err(TrySendError::Full(_)) => unreachable!("the step began with room for a chunk"),
        }
    }

    /// Bytes of memory that change while the request runs.
    pub(super) fn memory(&self) -> usize {
        self.writing.memory() + self.speculator.as_ref().map_or(0, Speculator::memory)
    }

    /// Charges for a chunk until it is read. The charge may exceed the limit, since no more chunks wait than
    /// the channel holds.
    fn unread(&self, chunk: Result<Chunk, Error>) -> Unread {
        let mut charge = self.memory.open(MemoryKind::Results);
        charge.add(size_of::<Unread>() + chunk.as_ref().map_or(0, Chunk::memory));
        Charged::new(chunk, charge)
    }

    /// Chooses tokens for [delivery](Self::deliver): one after the last token, and one more for each draft
    /// that was right. There is room for `room` tokens. Before the reader can see them, calls `before` with
    /// the number of tokens, the number of accepted drafts, and the outcome if they are the last, so that a
    /// reader that looks at metrics at once finds them counted.
    pub(crate) fn advance(
        &mut self,
        results: &Rows<'_>,
        drafts: &[u32],
        tokenizer: &Tokenizer,
        room: usize,
        before: impl FnOnce(usize, usize, Option<Outcome>),
    ) -> Step {
        let mut step = Step { tokens: Vec::with_capacity(1 + drafts.len()), ended: false };
        let mut chunk = Chunk { text: String::new(), tokens: Vec::new(), finish: None };
        self.writing.usage.draft_tokens += drafts.len();
        let (mut failed, mut accepted) = (None, 0);
        let mut space = Vec::new();
        for i in 0..results.len() {
            let sampled = self.sample(results, i, tokenizer, &mut space);
            let (token, row) = match sampled {
                Ok(sampled) => sampled,
                Err(error) => {
                    failed = Some(error);
                    step.ended = true;
                    break;
                }
            };
            let right = drafts.get(i) == Some(&token);
            accepted += usize::from(right);
            self.writing.usage.accepted_tokens += usize::from(right);
            step.tokens.push(token);
            self.first_token.get_or_insert_with(Instant::now);
            let finish = self.writing.push(token, row, tokenizer, step.tokens.len() >= room, &mut chunk);
            if let Some(reason) = finish {
                chunk.finish = Some(self.finish(reason));
                step.ended = true;
                break;
            }
            if !right {
                break;
            }
        }
        if let Some(speculator) = &mut self.speculator {
            speculator.observe(drafts, &step.tokens);
        }
        let outcome = if failed.is_some() { Outcome::Failed } else { Outcome::Finished };
        before(step.tokens.len(), accepted, step.ended.then_some(outcome));
        self.deliver();
        if !chunk.tokens.is_empty() {
            self.outbox = Some(chunk);
        }
        if step.ended {
            self.deliver();
        }
        step.ended |= self.is_abandoned();
        if let Some(error) = failed {
            self.fail(error);
        }
        step
    }

    /// Chooses the token after row `i`. Returns it with the row's logits, if they were needed.
    fn sample<'s>(
        &mut self,
        results: &'s Rows<'_>,
        i: usize,
        tokenizer: &Tokenizer,
        space: &'s mut Vec<f32>,
    ) -> Result<(u32, &'s [f32]), Error> {
        if !self.writing.has_logprobs()
            && let Some(top_k) = results.top_k(i)
            && let Some(token) = self.writing.choose_from_top_k(top_k, tokenizer)?
        {
            return Ok((token, &[]));
        }
        let row = results.all(i, space)?;
        finite(row, || format!("generated token {}", self.writing.usage.generated_tokens + 1))?;
        Ok((self.writing.choose(row, tokenizer)?, row))
    }

    fn finish(&self, reason: FinishReason) -> Finish {
        let now = Instant::now();
        let started = self.started.unwrap_or(self.submitted);
        let first = self.first_token.unwrap_or(now);
        let timings =
            Timings { queued: started - self.submitted, prefill: first - started, decode: now - first };
        Finish { reason, usage: self.writing.usage, timings }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.chunks.is_closed()
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.deliver();
        // Fails if the reader is gone, who then needs no error.
        drop(self.chunks.send_anyway(self.unread(Err(error))));
    }
}
