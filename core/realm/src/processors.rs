//! Functions of the application's that change logits before a token is chosen.
//!
//! The engine's thread never waits for them: a thread of its own drives a request with such functions, one
//! forward pass at a time, as it does for a policy program. These forward passes share batches with other
//! requests.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use realm_engine::{
    Finish, FinishReason, MAX_LOGPROBS, Output, Place, RunEnd, RunMeter, Sequence, Timings, Writing,
};

use crate::error::ErrorCode;
use realm_handover::Sender;

use crate::answer::AnswerReader;
use crate::task::Task;
use crate::{Chunk, Error, Generation, Model};

/// The most chunks that a reader may be behind before the request waits for it.
const CHANNEL: usize = 64;

type Processed = Pin<Box<dyn Future<Output = Result<Vec<f32>, String>> + Send>>;

/// A function that receives the tokens so far, prompt included, and the logits of the next one,
/// `[vocabulary]`, and may change the logits. It is called once for each token, before penalties, temperature
/// and the other sampling options; a logit of -infinity excludes a token. With a grammar, the tokens that it
/// forbids are -infinity already. An error ends the request.
#[derive(Clone)]
pub struct LogitsProcessor(Arc<dyn Fn(Vec<u32>, Vec<f32>) -> Processed + Send + Sync>);

impl LogitsProcessor {
    /// Creates a processor from a function that changes logits in place.
    pub fn new(process: impl Fn(&[u32], &mut [f32]) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self::new_async(move |tokens, mut logits| {
            let processed = process(&tokens, &mut logits);
            std::future::ready(processed.map(|()| logits))
        })
    }

    /// Creates a processor from an async function that takes tokens and logits and returns the same number of
    /// logits.
    pub fn new_async<F>(process: impl Fn(Vec<u32>, Vec<f32>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<f32>, String>> + Send + 'static,
    {
        Self(Arc::new(move |tokens, logits| Box::pin(process(tokens, logits))))
    }

    async fn process(&self, tokens: &[u32], logits: Vec<f32>) -> Result<Vec<f32>, Error> {
        let expected = logits.len();
        let processed = (self.0)(tokens.to_vec(), logits).await;
        let logits = processed
            .map_err(|why| Error::new(ErrorCode::Failed, format_args!("a logits processor failed: {why}")))?;
        if logits.len() != expected {
            let why = format!(
                "a logits processor returned {} logits; it must be {expected}, one for each token",
                logits.len()
            );
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        if let Some(token) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            let why = format!(
                "a logits processor made the logit of token {token} {}; it must be a number or -infinity",
                logits[token]
            );
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        Ok(logits)
    }
}

impl fmt::Debug for LogitsProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogitsProcessor")
    }
}

/// Starts a request with logits processors.
pub(crate) fn start(
    model: &Model,
    mut request: realm_engine::Request,
    processors: Vec<LogitsProcessor>,
    answer: AnswerReader,
) -> Result<Generation, Error> {
    let submitted = Instant::now();
    let engine = &model.shared.engine;
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
    request.sampling.check(model.shared.vocabulary())?;
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
    let guide = request.grammar.as_ref().map(|grammar| engine.guide(tenant, grammar)).transpose()?;
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
    Ok(Generation::of_task(receive, task, Arc::clone(&model.shared)))
}

struct Run {
    model: Model,
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
        let tokenizer = &self.model.shared.tokenizer;
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
