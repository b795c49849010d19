//! A request inside the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_channel::{Sender, TrySendError};
use realm_tokenizer::{Tokenizer, Utf8Stream};

use crate::Error;
use crate::request::{Chunk, Finish, FinishReason, Request, Timings, Token, Usage};
use crate::sampling::{Sampler, TokenLogprob, logprobs, top_logprobs};
use crate::stop::StopMatcher;

/// A token sequence, its pages of the KV cache, and what it is for.
pub(crate) struct Sequence {
    /// Prompt and what was generated.
    pub(crate) tokens: Vec<u32>,
    /// How many of them the KV cache holds.
    pub(crate) cached: usize,
    /// Tokens that it may grow to.
    pub(crate) limit: usize,
    pub(crate) pages: Vec<u32>,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Generate(Box<Generating>),
    Score(Scoring),
}

impl Sequence {
    /// Whether nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Generate(work) => work.chunks.is_closed(),
            Work::Score(work) => work.reply.is_closed(),
        }
    }

    pub(crate) fn fail(&self, error: Error) {
        // If the reader is gone, nobody wants to know.
        match &self.work {
            Work::Generate(work) => drop(work.chunks.force_send(Err(error))),
            Work::Score(work) => drop(work.reply.force_send(Err(error))),
        }
    }
}

pub(crate) struct Generating {
    sampler: Sampler,
    decoder: Utf8Stream,
    stop: StopMatcher,
    chunks: Sender<Result<Chunk, Error>>,
    paused: Arc<AtomicBool>,
    prompt_tokens: usize,
    logprobs: Option<usize>,
    ignore_eos: bool,
    special: bool,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Generating {
    pub(crate) fn new(
        request: &mut Request,
        chunks: Sender<Result<Chunk, Error>>,
        paused: Arc<AtomicBool>,
    ) -> Self {
        Self {
            sampler: Sampler::new(std::mem::take(&mut request.sampling), &request.prompt),
            decoder: Utf8Stream::new(),
            stop: StopMatcher::new(std::mem::take(&mut request.stop)),
            chunks,
            paused,
            prompt_tokens: request.prompt.len(),
            logprobs: request.logprobs,
            ignore_eos: request.ignore_eos,
            special: request.special,
            submitted: Instant::now(),
            started: None,
            first_token: None,
        }
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// It has a place in the batch. A sequence that was pre-empted starts but once.
    pub(crate) fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// Whether the reader is so slow that the request has to wait for it. The reader then wakes the engine.
    pub(crate) fn waits_for_reader(&self) -> bool {
        if !self.chunks.is_full() {
            return false;
        }
        self.paused.store(true, Ordering::Release);
        // The reader may have read between the question and the flag.
        self.chunks.is_full()
    }

    /// Chooses a token from `logits`, sends it, and returns it unless the generation has ended. `last` says
    /// that there is no room for another one.
    pub(crate) fn advance(
        &mut self,
        logits: &[f32],
        tokenizer: &Tokenizer,
        generated: usize,
        last: bool,
    ) -> Option<u32> {
        let id = self.sampler.sample(logits);
        let now = Instant::now();
        let first = *self.first_token.get_or_insert(now);
        let started = self.started.unwrap_or(self.submitted);
        let (logprob, top) = self.logprobs.map(|n| logprobs(logits, id, n)).unzip();
        let token = Token { id, logprob, top: top.unwrap_or_default() };
        let ended = !self.ignore_eos && tokenizer.end_tokens().contains(&id);
        let mut bytes = Vec::new();
        if !ended {
            // A model may have more logits than its vocabulary has tokens: those spell nothing.
            let _ = tokenizer.push_bytes(id, self.special, &mut bytes);
        }
        let (mut text, stopped) = self.stop.push(&self.decoder.push(&bytes));
        let reason =
            if ended || stopped { Some(FinishReason::Stop) } else { last.then_some(FinishReason::Length) };
        if reason.is_some() && !stopped {
            let (rest, found) = self.stop.push(&self.decoder.finish());
            text += &rest;
            if !found {
                text += &self.stop.finish();
            }
        }
        let finish = reason.map(|reason| Finish {
            reason,
            usage: Usage { prompt_tokens: self.prompt_tokens, generated_tokens: generated + 1 },
            timings: Timings {
                queued: started - self.submitted,
                prefill: first - started,
                decode: now - first,
            },
        });
        let ended = finish.is_some();
        match self.chunks.try_send(Ok(Chunk { text, tokens: vec![token], finish })) {
            Ok(()) if !ended => Some(id),
            Ok(()) | Err(TrySendError::Closed(_)) => None,
            // `waits_for_reader` was false when the step began, and nobody else sends.
            Err(TrySendError::Full(_)) => unreachable!("the step began with room for a chunk"),
        }
    }
}

/// Scores a text: the likeliest tokens after each of its tokens.
pub(crate) struct Scoring {
    pub(crate) top: usize,
    pub(crate) rows: Vec<Vec<TokenLogprob>>,
    pub(crate) reply: Sender<Result<Vec<Vec<TokenLogprob>>, Error>>,
}

impl Scoring {
    pub(crate) fn advance(&mut self, logits: &[f32]) {
        self.rows.push(top_logprobs(logits, self.top));
    }

    pub(crate) fn finish(&mut self) {
        // If the caller is gone, nobody wants to know.
        let _ = self.reply.try_send(Ok(std::mem::take(&mut self.rows)));
    }
}
