//! Requests with logits processors.
//!
//! The engine's thread never waits for the application's functions: a thread of its own drives a request with
//! such functions, one forward pass at a time, as it does for a policy program. These forward passes share
//! batches with other requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use realm_engine::{
    Finish, FinishReason, MAX_LOGPROBS, Output, Place, RunEnd, RunMeter, Sequence, Timings, Writing,
};
use realm_handover::Sender;

use crate::answer::AnswerReader;
use crate::background::grammar_bytes;
use crate::error::ErrorCode;
use crate::model::LocalModel;
use crate::task::Task;
use crate::{Chunk, Error, Generation, LogitsProcessor};

/// The most chunks that a reader may be behind before the request waits for it.
const CHANNEL: usize = 64;

/// Starts a request with logits processors.
pub(crate) fn start(
    model: &LocalModel,
    mut request: realm_engine::Request,
    processors: Vec<LogitsProcessor>,
    answer: AnswerReader,
) -> Result<Generation, Error> {
    let submitted = Instant::now();
    let engine = &model.loaded.engine;
    let invalid = |why: &str| Error::new(ErrorCode::InvalidArgument, why);
    if request.prompt.is_empty() {
        return Err(invalid("the prompt is empty; it needs at least one token"));
    }
    if request.max_tokens == Some(0) {
        return Err(invalid("max_tokens is 0; it must be at least 1"));
    }
    if request.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
        return Err(invalid(&format!("logprobs must be at most {MAX_LOGPROBS}")));
    }
    request.sampling.check(model.loaded.vocabulary())?;
    realm_engine::check_stops(&request.stop)?;
    let tenant = &model.tenant.inner;
    tenant.ready_blocking();
    let mut sequence = engine.sequence(tenant, request.adapter.take(), request.shared_prefix)?;
    sequence.append(&request.prompt)?;
    let room = sequence.context_length() - sequence.len();
    if room == 0 {
        let why = format!("the prompt's {} tokens leave no room in the context", sequence.len());
        return Err(Error::new(ErrorCode::LimitExceeded, why));
    }
    let compile = |grammar| model.prepare(grammar_bytes(Some(grammar)), || engine.guide(tenant, grammar));
    let guide = request.grammar.as_ref().map(compile).transpose()?;
    let (place, meter) = (tenant.enter()?, engine.run_meter(tenant));
    let (send, receive) = realm_handover::channel(CHANNEL);
    let run = Run {
        model: model.clone(),
        room: request.max_tokens.map_or(room, |most| most.min(room)),
        writing: Writing::new(&mut request, guide),
        sequence,
        processors,
        reader: answer,
        submitted,
        timeout: tenant.limits().request_timeout,
    };
    let task = Task::spawn("realm-logits", run.answer(place, meter, send))?;
    Ok(Generation::of_task(receive, task, Some(Arc::clone(&model.loaded))))
}

struct Run {
    model: LocalModel,
    sequence: Sequence,
    writing: Writing,
    processors: Vec<LogitsProcessor>,
    reader: AnswerReader,
    /// The most tokens to generate.
    room: usize,
    submitted: Instant,
    timeout: Option<Duration>,
}

impl Run {
    async fn answer(mut self, mut place: Place, mut meter: RunMeter, chunks: Sender<Result<Chunk, Error>>) {
        place.started().await;
        meter.started();
        let started = Instant::now();
        let mut first = None;
        let end = loop {
            let (mut chunk, reason) = match self.step().await {
                Ok(step) => step,
                Err(error) => break Err(error),
            };
            meter.sent(1);
            let first = *first.get_or_insert_with(Instant::now);
            chunk.finish = reason.map(|reason| {
                let timings = Timings {
                    queued: started - self.submitted,
                    prefill: first - started,
                    decode: first.elapsed(),
                };
                Finish { reason, usage: self.writing.usage(), timings }
            });
            let mut chunk = Chunk::from(chunk);
            self.reader.read(&mut chunk);
            if reason.is_some() {
                break Ok(chunk);
            }
            if chunks.send(Ok(chunk)).await.is_err() {
                return;
            }
        };
        // The reader of the last chunk may read the counters at once, or need this request's place.
        meter.ended(if end.is_ok() { RunEnd::Finished } else { RunEnd::Failed });
        drop(self);
        drop(place);
        let _ = chunks.send(end).await;
    }

    /// Generates one token.
    async fn step(&mut self) -> Result<(realm_engine::Chunk, Option<FinishReason>), Error> {
        if self.timeout.is_some_and(|most| self.submitted.elapsed() > most) {
            let why = format!(
                "the request took longer than tenant `{}` may (`request_timeout`)",
                self.model.tenant.inner.name()
            );
            return Err(Error::new(ErrorCode::LimitExceeded, why));
        }
        self.writing.prepare();
        let forwarded = self.sequence.forward_async(Output::LastLogits).await?;
        if self.writing.usage().generated_tokens == 0 {
            self.writing.found_cached(forwarded.cached);
        }
        let tokenizer = &self.model.loaded.tokenizer;
        let mut logits = forwarded.values;
        let raw = if self.writing.has_logprobs() { logits.clone() } else { Vec::new() };
        self.writing.rule_out(&mut logits, tokenizer)?;
        for processor in &self.processors {
            logits = processor.process(self.sequence.tokens(), logits).await?;
        }
        if logits.iter().all(|&logit| logit == f32::NEG_INFINITY) {
            let why = "every token is ruled out here: by the logits processors, or by them and the grammar";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        let token = self.writing.choose(&logits, tokenizer)?;
        let mut chunk = realm_engine::Chunk { text: String::new(), tokens: Vec::new(), finish: None };
        let last = self.writing.usage().generated_tokens + 1 >= self.room;
        let reason = self.writing.push(token, &raw, tokenizer, last, &mut chunk);
        if reason.is_none() {
            self.sequence.append(&[token])?;
        }
        self.sequence.recycle(logits);
        Ok((chunk, reason))
    }
}
