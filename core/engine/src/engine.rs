//! The engine: one thread that steps a model for everybody.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use realm_compute::{CacheType, PAGE_TOKENS};
use realm_model::{AdapterWeights, Pieces, Weights};
use realm_tokenizer::Tokenizer;

use crate::adapter::{Applied, WeakAdapter};
use crate::answer::{self, Answer};
use crate::guide::Guides;
use crate::kv::pages_for;
use crate::members::Members;
use crate::metrics::{Ledger, Meter};
use crate::pieces::PieceCommand;
use crate::queue::Queue;
use crate::request::MAX_LOGPROBS;
use crate::sampling::Scored;
use crate::scheduler::sessions::SessionCommand;
use crate::scheduler::{Next, Scheduler};
use crate::sequence::check_length;
use crate::snapshot::SnapshotFormat;
use crate::speculate::{DraftModel, Speculator};
use crate::stop::check_stops;
use crate::task::embed::{Embed, Pooling};
use crate::task::generate::Generate;
use crate::task::score::Score;
use crate::task::{Task, Work};
use crate::tenant::Sent;
use crate::{
    Adapter, Draft, EngineConfig, Error, Generation, Grammar, Guide, MemoryKind, Metrics, PieceSession,
    Request, RunMeter, Sequence, Served, Speculation, Tenant,
};

/// Runs the requests of one model.
pub struct Engine {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    common: Arc<Common>,
    channel: usize,
    cache_type: CacheType,
    guides: Guides,
    /// For whoever names them.
    adapters: Mutex<Vec<WeakAdapter>>,
}

/// What handles know of their engine.
pub(crate) struct Common {
    pub(crate) vocabulary: usize,
    pub(crate) groups: usize,
    /// What saved sequences have to fit.
    pub(crate) snapshots: SnapshotFormat,
    /// Tokens that one request may have.
    context: usize,
    /// What that would be if the KV cache had room for anything.
    longest: usize,
    /// Tokens that the model was trained for.
    trained: usize,
    speculation: Speculation,
    draft_model: bool,
    ids: AtomicU64,
    adapters: AtomicU32,
    /// Pages that nobody uses, as of the last step.
    free_pages: AtomicUsize,
    /// Tenants that it has a part for.
    members: Arc<Members>,
    /// Requests that wait.
    waiting: Arc<Queue>,
    ledger: Arc<Ledger>,
}

pub(crate) enum Command {
    Add(Box<Task>),
    Session(Sent, SessionCommand),
    Pieces(PieceCommand),
    /// Requests may name an adapter from now on.
    AddAdapter(u32, Arc<dyn AdapterWeights>, realm_handover::Sender<Result<(), Error>>),
    /// Nobody names it any more.
    RemoveAdapter(u32),
    /// A reader has read, or left.
    Wake,
    /// The engine is dropped.
    Stop,
}

impl Common {
    /// Bytes of a page of the KV cache.
    pub(crate) fn page_bytes(&self) -> usize {
        self.ledger.page_bytes()
    }

    /// Ids are in order of arrival.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Tokens that a tenant's sequence may have.
    pub(crate) fn limit(&self, tenant: &Tenant) -> usize {
        tenant.read().kv_tokens.map_or(self.context, |tokens| tokens.min(self.context))
    }

    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), Error> {
        match tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            None => Ok(()),
            Some(token) => {
                let why = format!("token {token} is not in the vocabulary of {} tokens", self.vocabulary);
                Err(Error::InvalidArgument(why))
            }
        }
    }
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
        Self::with_draft(weights, tokenizer, config, None)
    }

    /// As [`new`](Self::new), with a draft model.
    ///
    /// # Errors
    /// As above, and `InvalidArgument` if the draft model has another vocabulary.
    pub fn with_draft(
        weights: &dyn Weights,
        tokenizer: Arc<Tokenizer>,
        config: &EngineConfig,
        draft: Option<Draft<'_>>,
    ) -> Result<Self, Error> {
        let longest = config.longest(weights.config().context_length)?;
        let draft = draft.map(|draft| DraftModel::new(&draft, weights, &tokenizer, config)).transpose()?;
        let model = weights.config();
        let layout = model.cache_layout();
        let pages = config.pages(weights);
        let too_large = |e| Error::LimitExceeded(format!("{e}: load the model with fewer `kv_tokens`"));
        let runner = weights.runner(pages, config.cache_type).map_err(too_large)?;
        // The longest sequence that has room when it is alone.
        let fits = |tokens: usize| pages_for(&layout, tokens, config.prefill_chunk) <= pages;
        let most = (1..=longest.div_ceil(PAGE_TOKENS)).collect::<Vec<_>>();
        let context = most.partition_point(|n| fits(n * PAGE_TOKENS)) * PAGE_TOKENS;
        let ledger = Arc::new(Ledger::new(pages, weights.page_bytes(config.cache_type)));
        let members = Arc::<Members>::default();
        let common = Arc::new(Common {
            vocabulary: model.vocab,
            groups: layout.groups(),
            snapshots: SnapshotFormat::new(weights, &*runner, config)?,
            context: context.min(longest),
            longest,
            trained: model.context_length,
            speculation: config.speculation,
            draft_model: draft.is_some(),
            ids: AtomicU64::new(0),
            adapters: AtomicU32::new(0),
            free_pages: AtomicUsize::new(pages),
            waiting: Arc::new(Queue::new(config.max_queued, Arc::clone(&members))),
            members: Arc::clone(&members),
            ledger: Arc::clone(&ledger),
        });
        let (commands, inbox) = mpsc::channel();
        let guides = Guides::new(Arc::clone(&tokenizer), Arc::clone(&members));
        let scheduler = Scheduler::new(runner, tokenizer, config.clone(), ledger, members, draft);
        let gauges = Arc::clone(&common);
        let thread = std::thread::Builder::new()
            .name("realm-engine".into())
            .spawn(move || run(scheduler, &inbox, &gauges))
            .map_err(|e| Error::LimitExceeded(format!("the engine's thread: {e}")))?;
        Ok(Self {
            commands,
            thread: Some(thread),
            common,
            channel: config.channel.max(1),
            cache_type: config.cache_type,
            guides,
            adapters: Mutex::default(),
        })
    }

    /// Has a part of what tenants share ready for a tenant, from now on until it is dropped: of remembered prompts, of compiled
    /// grammars and of places for requests that wait. Parts are by the tenants' weights. A tenant's first request does the same;
    /// told before, the engine need not take anything from others then.
    pub fn expect(&self, tenant: &Arc<Tenant>) {
        self.common.members.add(tenant);
    }

    /// Tokens that one request may have at most, prompt and generation together.
    pub fn context_length(&self) -> usize {
        self.common.context
    }

    /// How its KV cache holds numbers.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Pages of the KV cache that no request uses, as of the last step. What is only remembered of earlier ones
    /// counts as free.
    pub fn free_pages(&self) -> usize {
        self.common.free_pages.load(Ordering::Acquire)
    }

    /// What it has done and how it stands. Takes no time of the engine's thread.
    pub fn metrics(&self) -> Metrics {
        self.common.ledger.read()
    }

    /// One tenant's part of that.
    pub fn tenant_metrics(&self, tenant: &Tenant) -> Served {
        self.common.ledger.read_tenant(tenant)
    }

    /// Lets requests name an adapter that was made for this engine's weights. `name` is what tenants' limits know it by.
    /// Blocks until the engine has it.
    ///
    /// # Errors
    /// `InvalidArgument` if it was made for other weights.
    pub fn add_adapter(
        &self,
        name: impl Into<String>,
        weights: Arc<dyn AdapterWeights>,
    ) -> Result<Adapter, Error> {
        let id = self.common.adapters.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = realm_handover::channel(1);
        self.commands.send(Command::AddAdapter(id, weights, reply)).map_err(|_| Error::Stopped)?;
        answer.recv_blocking().ok_or(Error::Stopped)??;
        let adapter = Adapter::new(id, name.into(), self.commands.clone(), Arc::clone(&self.common));
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        adapters.retain(|adapter| adapter.upgrade().is_some());
        adapters.push(adapter.downgrade());
        Ok(adapter)
    }

    /// The adapter of that name that was added last, if somebody still holds it.
    pub fn adapter(&self, name: &str) -> Option<Adapter> {
        let adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        adapters.iter().rev().filter_map(WeakAdapter::upgrade).find(|adapter| adapter.name() == name)
    }

    /// Starts a request. If it has a grammar that its tenant did not use lately, this compiles it: mostly milliseconds, up
    /// to seconds for a large one; and a model's first grammar waits for tables of the vocabulary.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty prompt, tokens outside the vocabulary, sampling values that mean nothing and a
    /// grammar that can't be followed; `LimitExceeded` for a prompt that leaves no room in the context, a grammar that is
    /// too large and for one more request than the tenant may have waiting; `Overloaded` if too many wait over all tenants.
    pub fn generate(&self, tenant: &Arc<Tenant>, mut request: Request) -> Result<Generation, Error> {
        let limit = self.check_prompt(tenant, &request.prompt, 1)?;
        request.sampling.check(self.common.vocabulary)?;
        check_stops(&request.stop)?;
        if request.max_tokens == Some(0) {
            return Err(Error::InvalidArgument("max_tokens is 0; it must be at least 1".into()));
        }
        if request.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
            return Err(Error::InvalidArgument(format!("logprobs must be at most {MAX_LOGPROBS}")));
        }
        let adapter = request.adapter.take().map(|a| self.applied(tenant, a)).transpose()?;
        let speculation = request.speculation.unwrap_or(self.common.speculation);
        if speculation == Speculation::Draft && !self.common.draft_model {
            return Err(Error::InvalidArgument("the model was loaded without a draft model".into()));
        }
        let room = limit - request.prompt.len();
        let limit = request.prompt.len() + request.max_tokens.unwrap_or(room).min(room);
        let (send, receive) = realm_handover::channel(self.channel);
        let paused = Arc::new(AtomicBool::new(false));
        let guide = |grammar| self.guide(tenant, grammar);
        let guide = request.grammar.as_ref().map(guide).transpose()?;
        let speculator = Speculator::new(speculation, self.common.draft_model);
        let more = request.memory();
        let ledger = tenant.memory().clone();
        let work = Generate::new(&mut request, guide, speculator, send, ledger, Arc::clone(&paused));
        let (prompt, shared) = (request.prompt, request.shared_prefix);
        self.add(tenant, prompt, limit, adapter, shared, more, Work::Generate(Box::new(work)))?;
        Ok(Generation::new(receive, self.commands.clone(), paused))
    }

    /// A way through a grammar, for a program that chooses tokens itself. Takes the time that [`generate`](Self::generate)
    /// takes for it.
    ///
    /// # Errors
    /// `InvalidArgument` with the complaint about the grammar, `LimitExceeded` for one that is too large.
    pub fn guide(&self, tenant: &Arc<Tenant>, grammar: &Grammar) -> Result<Guide, Error> {
        self.expect(tenant);
        self.guides.guide(tenant.id(), tenant.memory(), grammar)
    }

    /// What the model says of a given text, for each of `tokens` from the `first` on: the log-probability of the next one,
    /// and the `top` likeliest tokens in its place. With an adapter and a factor on what it adds, what the changed model says.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn score(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        tokens: Vec<u32>,
        first: usize,
        top: usize,
    ) -> Result<Answer<Vec<Scored>>, Error> {
        let limit = self.check_prompt(tenant, &tokens, 0)?;
        if top > MAX_LOGPROBS {
            return Err(Error::InvalidArgument(format!("top must be at most {MAX_LOGPROBS}")));
        }
        if first >= tokens.len() {
            let why = format!("the first token to score is {first} of {}", tokens.len());
            return Err(Error::InvalidArgument(why));
        }
        let adapter = adapter.map(|a| self.applied(tenant, a)).transpose()?;
        let (reply, answer) = answer::charged();
        self.add(tenant, tokens, limit, adapter, 0, 0, Work::Score(Score::new(first, top, reply)))?;
        Ok(answer)
    }

    /// One vector for a text, `[hidden]`: its last hidden states, pooled, and with `normalize` of length 1. An adapter is as for
    /// [`score`](Self::score).
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn embed(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        tokens: Vec<u32>,
        pooling: Pooling,
        normalize: bool,
    ) -> Result<Answer<Vec<f32>>, Error> {
        let limit = self.check_prompt(tenant, &tokens, 0)?;
        let adapter = adapter.map(|a| self.applied(tenant, a)).transpose()?;
        let (reply, answer) = answer::charged();
        self.add(tenant, tokens, limit, adapter, 0, 0, Work::Embed(Embed::new(pooling, normalize, reply)))?;
        Ok(answer)
    }

    /// A sequence for a program that drives it itself, all of it seen through an adapter if there is one.
    ///
    /// # Errors
    /// The engine has stopped; for an adapter as [`generate`](Self::generate).
    pub fn sequence(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        shared_prefix: usize,
    ) -> Result<Sequence, Error> {
        let adapter = adapter.map(|a| self.applied(tenant, a)).transpose()?;
        self.expect(tenant);
        let (engine, common) = (self.commands.clone(), Arc::clone(&self.common));
        Sequence::open(engine, common, Arc::clone(tenant), adapter, shared_prefix)
    }

    /// Counts for a request of a tenant's that a program answers; it waits from now on.
    pub fn run_meter(&self, tenant: &Arc<Tenant>) -> RunMeter {
        RunMeter::new(Meter::request(&self.common.ledger, tenant, "program", 0))
    }

    /// The forward pass in pieces, for a program of a tenant's. `pieces` are of this engine's weights
    /// ([`Weights::pieces`]).
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn pieces(&self, tenant: &Arc<Tenant>, pieces: Box<dyn Pieces>) -> Result<PieceSession, Error> {
        PieceSession::open(self.common.next_id(), self.commands.clone(), tenant, pieces)
    }

    fn applied(&self, tenant: &Tenant, adapter: (Adapter, f32)) -> Result<Applied, Error> {
        Applied::new(adapter, &self.common, tenant)
    }

    /// A sequence from what [`Sequence::save`] wrote, in an engine of the same [key](EngineConfig::snapshot_key). With the adapter
    /// and the scale that it was saved with, or without one.
    ///
    /// # Errors
    /// `InvalidArgument` for bytes that were not signed with the key, were altered since, or are of another model, device, cache
    /// type or adapter; `LimitExceeded` if it is longer than the context.
    pub fn restore(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        bytes: &[u8],
    ) -> Result<Sequence, Error> {
        self.restored(tenant, adapter, bytes, false)
    }

    /// As [`restore`](Self::restore), for bytes that an engine of another key saved. Their form is checked in full and the signature
    /// is not. Whether keys and values are what the model computes, nobody can know: the tenant's other requests don't use them, and
    /// what is saved of the sequence again are the tokens alone.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but a saved sequence of this model, device, cache type and adapter, `LimitExceeded` as above.
    pub fn restore_foreign(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        bytes: &[u8],
    ) -> Result<Sequence, Error> {
        self.restored(tenant, adapter, bytes, true)
    }

    fn restored(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        bytes: &[u8],
        foreign: bool,
    ) -> Result<Sequence, Error> {
        let adapter = adapter.map(|a| self.applied(tenant, a)).transpose()?;
        let (format, limit) = (&self.common.snapshots, self.common.limit(tenant));
        if !foreign {
            format.authenticate(bytes)?;
        }
        let _copy = tenant.memory().charge(MemoryKind::Sequences, bytes.len())?;
        let snapshot = format.read(bytes, adapter.as_ref(), foreign, |len| check_length(len, limit))?;
        let (engine, common) = (self.commands.clone(), Arc::clone(&self.common));
        Sequence::open(engine, common, Arc::clone(tenant), adapter, 0)?.fill(snapshot, foreign)
    }

    /// Checks a prompt; returns how many tokens its sequence may have.
    fn check_prompt(&self, tenant: &Tenant, prompt: &[u32], room: usize) -> Result<usize, Error> {
        if prompt.is_empty() {
            return Err(Error::InvalidArgument("the prompt has no tokens".into()));
        }
        self.common.check_tokens(prompt)?;
        let (len, context, limit) = (prompt.len(), self.common.context, self.common.limit(tenant));
        if len + room <= limit {
            return Ok(limit);
        }
        let Common { longest, trained, .. } = *self.common;
        let what_to_do = if limit < context {
            format!("and tenant `{}` may have {limit}: shorten it, or raise `kv_tokens`", tenant.name())
        } else if context < longest {
            format!(
                "and the KV cache holds a context of {context}: shorten it, or load the model with more `kv_tokens`"
            )
        } else if longest == trained {
            format!(
                "and the model was trained for a context of {context}: shorten it, or load the model with a larger \
                 `context_length`, with which texts get worse from there on"
            )
        } else {
            format!(
                "and the model was loaded with a `context_length` of {context}: shorten it, or load it with a larger one"
            )
        };
        Err(Error::LimitExceeded(format!("the prompt has {len} tokens {what_to_do}")))
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        tenant: &Arc<Tenant>,
        tokens: Vec<u32>,
        limit: usize,
        adapter: Option<Applied>,
        shared_prefix: usize,
        more: usize,
        work: Work,
    ) -> Result<(), Error> {
        let ledger = &self.common.ledger;
        let fixed = Task::bytes(&work) + more;
        let bytes = fixed + tokens.capacity() * size_of::<u32>() + work.memory();
        let memory = tenant.memory().charge(MemoryKind::Requests, bytes);
        let memory = memory.inspect_err(|_| ledger.refused(tenant))?;
        self.expect(tenant);
        let place = tenant.enqueue(Some(&self.common.waiting)).inspect_err(|_| ledger.refused(tenant))?;
        let meter = Meter::request(ledger, tenant, work.kind(), tokens.len());
        let id = self.common.next_id();
        let deadline = tenant.read().request_timeout.map(|timeout| Instant::now() + timeout);
        let place = Some(place);
        let task = Task {
            place,
            tokens,
            adapter,
            shared_prefix,
            deadline,
            memory,
            fixed,
            ..Task::new(id, tenant, limit, self.common.groups, meter, work)
        };
        self.commands.send(Command::Add(Box::new(task))).map_err(|_| Error::Stopped)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A thread that has ended needs no telling.
        let _ = self.commands.send(Command::Stop);
        // A program, or a reader that is woken, may hold the engine last: within a step, whose thread would wait for itself. It
        // ends anyway.
        if let Some(thread) = self.thread.take().filter(|_| !realm_handover::is_calling_out()) {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

/// Commands that are received before a step at most. To receive one is to put it into its tenant's queue.
const MOST_RECEIVED: usize = 4096;

/// The thread: commands between steps, steps while there is work.
fn run(mut scheduler: Scheduler, inbox: &Receiver<Command>, gauges: &Common) {
    let mut next = Next::Wait(None);
    loop {
        let first = match next {
            Next::Go => inbox.try_recv(),
            Next::Wait(None) => inbox.recv().map_err(|_| TryRecvError::Disconnected),
            Next::Wait(Some(time)) => inbox.recv_timeout(time).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
        };
        let goes_on = receive(first, inbox, MOST_RECEIVED, |command| {
            match command {
                Command::Add(task) => scheduler.add(*task),
                Command::Session(sent, command) => scheduler.command(sent, command),
                Command::Pieces(command) => scheduler.piece(command),
                Command::AddAdapter(id, weights, reply) => {
                    // If the caller is gone, its handle is too, and nobody will name the adapter.
                    let _ = reply.try_send(scheduler.add_adapter(id, weights));
                }
                Command::RemoveAdapter(id) => scheduler.remove_adapter(id),
                Command::Wake => {}
                Command::Stop => return false,
            }
            true
        });
        if !goes_on {
            return;
        }
        next = scheduler.step();
        gauges.free_pages.store(scheduler.free_pages(), Ordering::Release);
    }
}

/// Hands out what came `first` and what has come since, `most` commands in all: those who send without end don't keep the engine
/// from its steps. `false` if one of them ends the engine, or if there will be no more.
fn receive<C>(
    first: Result<C, TryRecvError>,
    inbox: &Receiver<C>,
    most: usize,
    mut take: impl FnMut(C) -> bool,
) -> bool {
    let mut next = first;
    for received in 1.. {
        let goes_on = match next {
            Ok(command) => take(command),
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Disconnected) => false,
        };
        if !goes_on {
            return false;
        }
        // What is received from here on would be lost.
        if received == most {
            break;
        }
        next = inbox.try_recv();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_is_lost_where_more_wait_than_are_received_at_once() {
        let (sender, inbox) = mpsc::channel();
        (0..100).for_each(|command| sender.send(command).unwrap());
        let mut seen = Vec::new();
        for _ in 0..20 {
            let first = inbox.try_recv();
            assert!(receive(first, &inbox, 7, |command| {
                seen.push(command);
                true
            }));
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_engine_ends_where_it_is_told_to_or_nobody_is_left() {
        let (sender, inbox) = mpsc::channel();
        (0..3).for_each(|command| sender.send(command).unwrap());
        assert!(!receive(inbox.try_recv(), &inbox, 7, |command| command != 1));
        assert!(receive(inbox.try_recv(), &inbox, 7, |_| true));
        drop(sender);
        assert!(!receive(inbox.try_recv(), &inbox, 7, |_| true));
    }
}
