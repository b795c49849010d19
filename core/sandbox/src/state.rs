//! The data of one instance's store, which host functions work on.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use realm_engine::{Chunk, MemoryCharge, Token, Usage};
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;

use crate::budget::Charge;
use crate::context::Context;
use crate::error::HostError;
use crate::handles::Layerwise;
use crate::reader::{Reader, Unsent};
use crate::turn::Turn;
use crate::wasi::Wasi;
use crate::{Error, ErrorKind};

/// The destination of a program's text.
pub(crate) enum Sink {
    /// The reader of the request.
    Reader(Reader),
    /// The program that ran this one, `depth` programs deep.
    Caller { text: String, depth: usize, charge: MemoryCharge },
}

/// The data of an instance's store.
pub(crate) struct State {
    pub(crate) context: Arc<Context>,
    pub(crate) table: ResourceTable,
    pub(crate) sink: Sink,
    pub(crate) usage: Usage,
    /// True if `usage` includes the prompt.
    pub(crate) prompted: bool,
    pub(crate) first_token: Option<Instant>,
    /// The bytes of linear memories and tables that were taken from the budget.
    grown: usize,
    /// The charge for these bytes and the instance itself, on the tenant's account.
    held: MemoryCharge,
    /// True if the program asked for more than was left.
    over_limit: bool,
    /// The error, if the tenant's memory was used up.
    out_of_memory: Option<Error>,
    wasi: Option<Box<Wasi>>,
    /// One for each model whose layers the program has used.
    pub(crate) layerwise: Vec<Arc<Layerwise>>,
    /// The memory of dropped logits, for those of the next forward pass.
    pub(crate) spare: Vec<(Vec<f32>, Charge)>,
    /// The error of a core module's last failed call, and the handles of its model and its sampler.
    pub(crate) raw_error: Option<Error>,
    pub(crate) raw_model: Option<u32>,
    pub(crate) raw_sampler: Option<u32>,
    /// The number of blocks of seeded random numbers so far.
    pub(crate) random_blocks: u64,
}

impl State {
    /// `held` is the charge for the instance.
    pub(crate) fn new(context: Arc<Context>, sink: Sink, held: MemoryCharge) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(context.budget.limits().handles);
        Self {
            context,
            table,
            sink,
            usage: Usage::default(),
            prompted: false,
            first_token: None,
            grown: 0,
            held,
            over_limit: false,
            out_of_memory: None,
            wasi: None,
            layerwise: Vec::new(),
            spare: Vec::new(),
            raw_error: None,
            raw_model: None,
            raw_sampler: None,
            random_blocks: 0,
        }
    }

    /// Returns the context of WASI, which only programs made with a WASI toolchain need, and the table of its
    /// handles.
    pub(crate) fn wasi(&mut self) -> (&mut Wasi, &mut ResourceTable) {
        let context = &self.context;
        let new = || Box::new(Wasi::new(context));
        (self.wasi.get_or_insert_with(new), &mut self.table)
    }

    /// Counts a forward pass of `tokens` new tokens, after `cached` known ones.
    pub(crate) fn count_forward(&mut self, tokens: usize, cached: usize) {
        if !std::mem::replace(&mut self.prompted, true) {
            self.usage.prompt_tokens = tokens;
            self.usage.cached_tokens = cached.min(tokens);
        }
    }

    /// Sends a part of the answer.
    pub(crate) async fn send(&mut self, text: String, tokens: &[u32]) -> Result<(), HostError> {
        self.send_part(text, tokens, tokens.len()).await
    }

    /// Sends a part of the answer that took `generated` tokens; readers are shown `tokens`, which may differ.
    pub(crate) async fn send_part(
        &mut self,
        text: String,
        tokens: &[u32],
        generated: usize,
    ) -> Result<(), HostError> {
        self.context.budget.send(text.len() + 4 * generated)?;
        self.usage.generated_tokens += generated;
        self.first_token.get_or_insert_with(Instant::now);
        match &mut self.sink {
            Sink::Caller { text: collected, charge, .. } => {
                charge.grow(text.len()).map_err(Error::from)?;
                collected.push_str(&text);
                Ok(())
            }
            Sink::Reader(reader) => {
                if generated > 0 {
                    self.context.meter.lock().unwrap_or_else(PoisonError::into_inner).sent(generated);
                }
                if text.is_empty() && tokens.is_empty() {
                    return Ok(());
                }
                if text.len() <= PIECE_BYTES && tokens.len() <= PIECE_TOKENS {
                    return deliver(reader, &self.context.budget.turn, text, tokens).await;
                }
                // A text that waits here for the reader is the tenant's memory, too.
                let _waiting = self.context.budget.charge_transfer(text.len() + size_of_val(tokens))?;
                let (mut text, mut tokens) = (text.as_str(), tokens);
                while !text.is_empty() || !tokens.is_empty() {
                    let end = text.floor_char_boundary(PIECE_BYTES.min(text.len()));
                    let (piece, rest) = text.split_at(end);
                    let (ids, others) = tokens.split_at(PIECE_TOKENS.min(tokens.len()));
                    deliver(reader, &self.context.budget.turn, piece.to_owned(), ids).await?;
                    (text, tokens) = (rest, others);
                }
                Ok(())
            }
        }
    }

    /// For a host function that computes: returns an error if the run's time is used up, and lets other runs
    /// have their turn.
    pub(crate) async fn yield_if_due(&mut self) -> Result<(), HostError> {
        let time = &self.context.budget.time;
        if time.poll() < crate::clock::TICK {
            return Ok(());
        }
        self.context.budget.check_time().map_err(|error| HostError::Fatal(error.into()))?;
        let mut yielded = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        Ok(())
    }

    /// Returns the number of programs that wait for this one.
    pub(crate) fn depth(&self) -> usize {
        match self.sink {
            Sink::Reader(_) => 0,
            Sink::Caller { depth, .. } => depth,
        }
    }

    /// Returns the times from the run's start to the first token, and from there.
    pub(crate) fn timings(&self) -> realm_engine::Timings {
        let (now, started) = (Instant::now(), self.context.started);
        let first = self.first_token.unwrap_or(now);
        realm_engine::Timings {
            queued: started - self.context.submitted,
            prefill: first.saturating_duration_since(started),
            decode: now.saturating_duration_since(first),
        }
    }
}

impl State {
    /// Returns the reason why an instance could not be created.
    pub(crate) fn start_failure(&self, error: &wasmtime::Error) -> Error {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Error::new(
                ErrorKind::Overloaded,
                "as many programs run as there is room for; try again later",
            );
        }
        if let Some(out_of_memory) = &self.out_of_memory {
            return out_of_memory.clone();
        }
        if self.over_limit {
            let limit = self.context.budget.limits().memory;
            return Error::limit(format!(
                "the program needs more memory than its limit `program.memory` of {limit} bytes: {error:#}"
            ));
        }
        if !error.is::<Error>() && !error.is::<wasmtime::Trap>() {
            // The types of its functions are compared when the instance is created.
            return Error::new(ErrorKind::InvalidProgram, format!("the program can't be started: {error:#}"));
        }
        self.failure(error)
    }

    /// Returns the reason why a call did not return.
    pub(crate) fn failure(&self, error: &wasmtime::Error) -> Error {
        let error = Error::of_call(error);
        match self.wasi.as_ref().and_then(|wasi| wasi.stderr_end()) {
            Some(stderr) if error.kind() == ErrorKind::Trap => {
                Error::new(ErrorKind::Trap, format!("{error}\nit wrote: {stderr}"))
            }
            _ => error,
        }
    }
}

/// The most bytes of text and the most tokens in one chunk: a reader's channel holds 64, so the chunks that a
/// program is ahead of its reader take less than 2 MiB, however much it sends at once.
const PIECE_BYTES: usize = 16 << 10;
const PIECE_TOKENS: usize = 256;

/// Sends one chunk.
async fn deliver(reader: &Reader, turn: &Turn, text: String, tokens: &[u32]) -> Result<(), HostError> {
    let token = |&id| Token { id, logprob: None, top: Vec::new() };
    let chunk = Chunk { text, tokens: tokens.iter().map(token).collect(), finish: None };
    reader.send(turn, chunk).await.map_err(|unsent| match unsent {
        Unsent::Gone => {
            HostError::Fatal(Error::new(ErrorKind::Cancelled, "the request was cancelled").into())
        }
        Unsent::Refused(error) => HostError::Seen(error),
    })
}

impl Drop for State {
    fn drop(&mut self) {
        self.context.budget.give_back(self.grown);
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(size_of::<usize>())))
    }
}

impl State {
    fn grow(&mut self, bytes: usize) -> bool {
        if !self.context.budget.take(bytes) {
            self.over_limit = true;
            return false;
        }
        if let Err(error) = self.held.grow(bytes) {
            self.context.budget.give_back(bytes);
            self.out_of_memory = Some(error.into());
            return false;
        }
        self.grown += bytes;
        true
    }
}
