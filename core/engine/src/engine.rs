//! The engine: one thread that steps a model for everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use async_channel::{Receiver, Sender};
use realm_compute::{CacheType, PAGE_TOKENS};
use realm_model::Weights;
use realm_tokenizer::Tokenizer;

use crate::request::MAX_LOGPROBS;
use crate::sampling::TokenLogprob;
use crate::scheduler::Scheduler;
use crate::sequence::{Generating, Scoring, Sequence, Work};
use crate::{Error, Generation, Request};

/// How an engine is built.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Tokens that the KV cache holds, over all requests; `None` for 16,384, or what fits in 2 GiB.
    pub kv_tokens: Option<usize>,
    /// How the KV cache holds numbers.
    pub cache_type: CacheType,
    /// Rows of prompts in one forward pass at most.
    pub prefill_chunk: usize,
    /// Chunks that a generation's channel holds before the request waits for its reader.
    pub channel: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { kv_tokens: None, cache_type: CacheType::F32, prefill_chunk: 512, channel: 64 }
    }
}

/// Runs the requests of one model.
pub struct Engine {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    free_pages: Arc<AtomicUsize>,
    channel: usize,
    vocabulary: usize,
    context: usize,
}

pub(crate) enum Command {
    Add(Sequence),
    /// A reader has read, or left.
    Wake,
}

impl Engine {
    /// Allocates the KV cache and starts the thread.
    ///
    /// # Errors
    /// The KV cache can't be allocated.
    pub fn new(
        weights: &dyn Weights,
        tokenizer: Arc<Tokenizer>,
        config: &EngineConfig,
    ) -> Result<Self, Error> {
        let model = weights.config();
        let page_bytes = weights.page_bytes(config.cache_type);
        let page_bytes = page_bytes * model.cache_layout().groups();
        let affordable = ((2 << 30) / page_bytes.max(1)).max(1) * PAGE_TOKENS;
        let kv_tokens = config.kv_tokens.unwrap_or_else(|| 16_384.min(affordable));
        let groups = model.cache_layout().groups();
        let pages = groups * kv_tokens.div_ceil(PAGE_TOKENS).max(1);
        let runner =
            weights.runner(pages, config.cache_type).map_err(|e| Error::LimitExceeded(e.to_string()))?;
        let (commands, inbox) = async_channel::unbounded();
        let free_pages = Arc::new(AtomicUsize::new(pages));
        let scheduler = Scheduler::new(runner, tokenizer, config.prefill_chunk.max(1));
        let gauge = Arc::clone(&free_pages);
        let thread = std::thread::Builder::new()
            .name("realm-engine".into())
            .spawn(move || run(scheduler, &inbox, &gauge))
            .map_err(|e| Error::LimitExceeded(format!("the engine's thread: {e}")))?;
        Ok(Self {
            commands,
            thread: Some(thread),
            free_pages,
            channel: config.channel.max(1),
            vocabulary: model.vocab,
            context: model.context_length.min(pages / groups * PAGE_TOKENS),
        })
    }

    /// Tokens that one request may have at most, prompt and generation together.
    pub fn context_length(&self) -> usize {
        self.context
    }

    /// Pages of the KV cache that no request holds, as of the last step.
    pub fn free_pages(&self) -> usize {
        self.free_pages.load(Ordering::Acquire)
    }

    /// Starts a request.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty prompt, tokens outside the vocabulary or sampling values that mean nothing;
    /// `LimitExceeded` for a prompt that leaves no room in the context.
    pub fn generate(&self, mut request: Request) -> Result<Generation, Error> {
        self.check_prompt(&request.prompt, 1)?;
        request.sampling.check(self.vocabulary)?;
        if request.max_tokens == Some(0) {
            return Err(Error::InvalidArgument("max_tokens is 0; it must be at least 1".into()));
        }
        if request.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
            return Err(Error::InvalidArgument(format!("logprobs must be at most {MAX_LOGPROBS}")));
        }
        let room = self.context - request.prompt.len();
        let limit = request.prompt.len() + request.max_tokens.unwrap_or(room).min(room);
        let (send, receive) = async_channel::bounded(self.channel);
        let paused = Arc::new(AtomicBool::new(false));
        let work = Generating::new(&mut request, send, Arc::clone(&paused));
        self.add(request.prompt, limit, Work::Generate(Box::new(work)))?;
        Ok(Generation::new(receive, self.commands.clone(), paused))
    }

    /// The `top` likeliest tokens after each of `tokens`, `[tokens][top]`.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), or that the forward pass failed.
    pub fn score(&self, tokens: Vec<u32>, top: usize) -> Result<Vec<Vec<TokenLogprob>>, Error> {
        self.check_prompt(&tokens, 0)?;
        if !(1..=MAX_LOGPROBS).contains(&top) {
            return Err(Error::InvalidArgument(format!("top must be from 1 to {MAX_LOGPROBS}")));
        }
        let (reply, answer) = async_channel::bounded(1);
        let limit = tokens.len();
        self.add(tokens, limit, Work::Score(Scoring { top, rows: Vec::new(), reply }))?;
        answer.recv_blocking().map_err(|_| Error::Stopped)?
    }

    fn check_prompt(&self, prompt: &[u32], room: usize) -> Result<(), Error> {
        if prompt.is_empty() {
            return Err(Error::InvalidArgument("the prompt has no tokens".into()));
        }
        if let Some(token) = prompt.iter().find(|&&t| t as usize >= self.vocabulary) {
            let why = format!("token {token} is not in the vocabulary of {} tokens", self.vocabulary);
            return Err(Error::InvalidArgument(why));
        }
        if prompt.len() + room > self.context {
            let (len, context) = (prompt.len(), self.context);
            return Err(Error::LimitExceeded(format!(
                "the prompt has {len} tokens and the context holds {context}: shorten it, or load the model with a longer context"
            )));
        }
        Ok(())
    }

    fn add(&self, tokens: Vec<u32>, limit: usize, work: Work) -> Result<(), Error> {
        let sequence = Sequence { tokens, cached: 0, limit, pages: Vec::new(), work };
        self.commands.try_send(Command::Add(sequence)).map_err(|_| Error::Stopped)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.commands.close();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

fn run(mut scheduler: Scheduler, inbox: &Receiver<Command>, free_pages: &AtomicUsize) {
    let mut idle = true;
    while !inbox.is_closed() {
        let first = if idle { inbox.recv_blocking().ok() } else { inbox.try_recv().ok() };
        let mut command = first;
        while let Some(now) = command {
            if let Command::Add(sequence) = now {
                scheduler.add(sequence);
            }
            command = inbox.try_recv().ok();
        }
        idle = !scheduler.step();
        free_pages.store(scheduler.free_pages(), Ordering::Release);
    }
}
