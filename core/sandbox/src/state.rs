//! What host functions work on: the data of one instance's store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use realm_engine::{Chunk, MemoryCharge, RunMeter, Token, Usage};
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;

use crate::bindings::realm::tenant::types as wit;
use crate::budget::{Budget, Charge};
use crate::error::HostError;
use crate::grants::Grants;
use crate::host::layers::Workshop;
use crate::model::{Model, Request};
use crate::program::Programs;
use crate::reader::{Reader, Unsent};
use crate::run::FindModel;
use crate::sandbox::Core;
use crate::wasi::Wasi;
use crate::{Error, ErrorKind};

/// What a run is about: the same, but for the input, for the program that answers and those that it runs in turn.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) core: Arc<Core>,
    pub(crate) model: Arc<Model>,
    /// Other models that the application has loaded.
    pub(crate) models: FindModel,
    pub(crate) tenant: Arc<realm_engine::Tenant>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) programs: Arc<Programs>,
    pub(crate) request: Request,
    pub(crate) budget: Arc<Budget>,
    pub(crate) meter: Arc<Mutex<RunMeter>>,
    pub(crate) submitted: Instant,
    pub(crate) started: Instant,
}

/// Where a program's text goes.
pub(crate) enum Sink {
    /// To whoever made the request.
    Reader(Reader),
    /// To the program that ran this one, `depth` programs deep.
    Caller { text: String, depth: usize, charge: MemoryCharge },
}

/// The data of an instance's store.
pub(crate) struct State {
    pub(crate) context: Arc<Context>,
    pub(crate) table: ResourceTable,
    pub(crate) sink: Sink,
    pub(crate) usage: Usage,
    /// Whether `usage` has its prompt.
    pub(crate) prompted: bool,
    pub(crate) first_token: Option<Instant>,
    /// Bytes of linear memories and tables that were taken from the budget.
    grown: usize,
    /// These, and the instance itself, on the tenant's account.
    held: MemoryCharge,
    /// Whether more was asked for than there was.
    pub(crate) refused: bool,
    /// Whether it was the tenant's memory that there was no more of.
    pub(crate) short: Option<Error>,
    wasi: Option<Box<Wasi>>,
    /// One for each model whose layers the program has asked for.
    pub(crate) workshops: Vec<Arc<Workshop>>,
    /// Memory of logits that were dropped, for those of the next forward.
    pub(crate) spare: Vec<(Vec<f32>, Charge)>,
    /// What a core module's last failed call said, and the handles of its model and its sampler.
    pub(crate) raw_error: Option<Error>,
    pub(crate) raw_model: Option<u32>,
    pub(crate) raw_sampler: Option<u32>,
    /// Blocks of seeded random numbers so far.
    pub(crate) random_blocks: u64,
}

impl State {
    /// `held` is charged for the instance.
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
            refused: false,
            short: None,
            wasi: None,
            workshops: Vec::new(),
            spare: Vec::new(),
            raw_error: None,
            raw_model: None,
            raw_sampler: None,
            random_blocks: 0,
        }
    }

    /// The context of WASI, which only programs made with a WASI toolchain ask for, and the table of its handles.
    pub(crate) fn wasi(&mut self) -> (&mut Wasi, &mut ResourceTable) {
        let context = &self.context;
        let new = || Box::new(Wasi::new(context));
        (self.wasi.get_or_insert_with(new), &mut self.table)
    }

    /// What the program wrote to its standard error last, if it has one.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.wasi.as_ref().and_then(|wasi| wasi.complaint())
    }

    /// A forward of so many new tokens was made, of whose sequence so many tokens were known.
    pub(crate) fn forwarded(&mut self, tokens: usize, cached: usize) {
        if !std::mem::replace(&mut self.prompted, true) {
            self.usage.prompt_tokens = tokens;
            self.usage.cached_tokens = cached.min(tokens);
        }
    }

    /// Sends a piece of the answer.
    pub(crate) async fn send(&mut self, text: String, tokens: &[u32]) -> Result<(), HostError> {
        self.send_part(text, tokens, tokens.len()).await
    }

    /// Sends a piece of the answer for which as many tokens were `generated`, of which readers are shown others.
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
                    return deliver(reader, text, tokens).await;
                }
                // What waits here for the reader is the tenant's, too.
                let _waiting = self.context.budget.carry(text.len() + size_of_val(tokens))?;
                let (mut text, mut tokens) = (text.as_str(), tokens);
                while !text.is_empty() || !tokens.is_empty() {
                    let end = text.floor_char_boundary(PIECE_BYTES.min(text.len()));
                    let (piece, rest) = text.split_at(end);
                    let (ids, others) = tokens.split_at(PIECE_TOKENS.min(tokens.len()));
                    deliver(reader, piece.to_owned(), ids).await?;
                    (text, tokens) = (rest, others);
                }
                Ok(())
            }
        }
    }

    /// For what the host computes in a call: says if the run has had its time, and lets others have theirs.
    pub(crate) async fn breathe(&mut self) -> Result<(), HostError> {
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

    /// Programs that wait for this one.
    pub(crate) fn depth(&self) -> usize {
        match self.sink {
            Sink::Reader(_) => 0,
            Sink::Caller { depth, .. } => depth,
        }
    }

    /// Time since the run's start that has gone until the first token, and from there.
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

/// Bytes of text and tokens in one chunk at most: a reader's channel holds 64, so what a program is ahead of its reader takes less
/// than 2 MiB, whatever it sends at once.
const PIECE_BYTES: usize = 16 << 10;
const PIECE_TOKENS: usize = 256;

/// Sends one chunk.
async fn deliver(reader: &Reader, text: String, tokens: &[u32]) -> Result<(), HostError> {
    let token = |&id| Token { id, logprob: None, top: Vec::new() };
    let chunk = Chunk { text, tokens: tokens.iter().map(token).collect(), finish: None };
    reader.send(chunk).await.map_err(|unsent| match unsent {
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
            self.refused = true;
            return false;
        }
        if let Err(error) = self.held.grow(bytes) {
            self.context.budget.give_back(bytes);
            self.short = Some(error.into());
            return false;
        }
        self.grown += bytes;
        true
    }
}

impl crate::bindings::realm::tenant::types::Host for State {
    fn convert_error(&mut self, error: HostError) -> wasmtime::Result<wit::Error> {
        error.into_wit()
    }
}
