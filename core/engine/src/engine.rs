//! The engine: one thread that steps a model for all tenants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use realm_compute::{CacheType, PAGE_TOKENS};
use realm_model::{AdapterWeights, Layerwise, Weights};
use realm_tokenizer::Tokenizer;

use crate::adapter::Applied;
use crate::answer::{self, Answer};
use crate::command::Command;
use crate::common::Common;
use crate::guide::Guides;
use crate::inbox::run;
use crate::kv::pages_for;
use crate::members::Members;
use crate::metrics::{Ledger, Meter};
use crate::queue::Queue;
use crate::request::MAX_LOGPROBS;
use crate::sampling::Scored;
use crate::scheduler::Scheduler;
use crate::sequence::check_length;
use crate::snapshot::SnapshotFormat;
use crate::speculate::{DraftModel, Speculator};
use crate::stop::check_stops;
use crate::task::embed::{Embed, Pooling};
use crate::task::generate::Generate;
use crate::task::score::Score;
use crate::task::{Task, Work};
use crate::{
    Adapter, Draft, EngineConfig, Error, Generation, Grammar, Guide, LayerwiseSession, MemoryKind, Metrics,
    Request, RunMeter, Sequence, Served, Speculation, StepHooks, Tenant,
};

/// Runs the requests of one model on a thread of its own.
pub struct Engine {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    common: Arc<Common>,
    channel: usize,
    cache_type: CacheType,
    guides: Guides,
}

impl Engine {
    /// Allocates the KV cache and starts the engine's thread.
    ///
    /// # Errors
    /// `LimitExceeded` if the KV cache can't be allocated or the thread can't be started, `Model` if the
    /// system has no random bytes for a snapshot key.
    pub fn new(
        weights: &dyn Weights,
        tokenizer: Arc<Tokenizer>,
        config: &EngineConfig,
    ) -> Result<Self, Error> {
        Self::with_draft(weights, tokenizer, config, None)
    }

    /// Creates an engine like [`new`](Self::new), with a draft model.
    ///
    /// # Errors
    /// Same as [`new`](Self::new), and `InvalidArgument` if the draft model has another vocabulary.
    pub fn with_draft(
        weights: &dyn Weights,
        tokenizer: Arc<Tokenizer>,
        config: &EngineConfig,
        draft: Option<Draft<'_>>,
    ) -> Result<Self, Error> {
        let longest = config.longest(weights.config().context_length)?;
        let draft = draft
            .map(|draft| {
                DraftModel::new(&draft, weights, &tokenizer, config.pages(weights), config.cache_type)
            })
            .transpose()?;
        let model = weights.config();
        let layout = model.cache_layout();
        let pages = config.pages(weights);
        let too_large = |e| Error::LimitExceeded(format!("{e}: load the model with fewer `kv_tokens`"));
        let runner = weights.runner(pages, config.cache_type).map_err(too_large)?;
        // The longest sequence that fits while it is alone.
        let fits = |tokens: usize| pages_for(&layout, tokens, config.prefill_chunk) <= pages;
        let most = (1..=longest.div_ceil(PAGE_TOKENS)).collect::<Vec<_>>();
        let context = most.partition_point(|n| fits(n * PAGE_TOKENS)) * PAGE_TOKENS;
        let ledger = Arc::new(Ledger::new(pages, weights.page_bytes(config.cache_type)));
        let members = Arc::<Members>::default();
        let (commands, inbox) = mpsc::channel();
        let guides = Guides::new(Arc::clone(&tokenizer), Arc::clone(&members));
        let (snapshots, draft_model) = (SnapshotFormat::new(weights, &*runner, config)?, draft.is_some());
        let (counters, parts) = (Arc::clone(&ledger), Arc::clone(&members));
        let scheduler = Scheduler::new(runner, tokenizer, config.clone(), counters, parts, draft);
        let common = Arc::new(Common {
            vocabulary: model.vocab,
            groups: layout.groups(),
            snapshots,
            context: context.min(longest),
            longest,
            trained: model.context_length,
            speculation: config.speculation,
            draft_model,
            ids: AtomicU64::new(0),
            adapters: Arc::default(),
            free_pages: AtomicUsize::new(pages),
            waiting: Arc::new(Queue::new(config.max_queued, Arc::clone(&members))),
            members,
            ledger,
            hooks: scheduler.hooks(),
        });
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
        })
    }

    /// Reserves a tenant's guaranteed parts, until the tenant is dropped: of the prefix cache, of compiled
    /// grammars and of places for waiting requests. Parts are in proportion to the tenants' weights. A
    /// tenant's first request does the same; calling this earlier spares the engine from taking something
    /// away from other tenants at that moment.
    pub fn reserve_parts(&self, tenant: &Arc<Tenant>) {
        self.common.members.add(tenant);
    }

    /// The longest context of one request, prompt and generation together, in tokens.
    pub fn context_length(&self) -> usize {
        self.common.context
    }

    /// The places in the engine's steps where programs compute.
    pub fn step_hooks(&self) -> &StepHooks {
        &self.common.hooks
    }

    /// The number type of keys and values in the KV cache.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Pages of the KV cache that no request uses, as of the last step. Pages that only the prefix cache
    /// holds count as free.
    pub fn free_pages(&self) -> usize {
        self.common.free_pages.load(Ordering::Acquire)
    }

    /// Returns counters and gauges of the engine. Takes no time of the engine's thread.
    pub fn metrics(&self) -> Metrics {
        self.common.ledger.read()
    }

    /// Returns one tenant's part of the [metrics](Self::metrics).
    pub fn tenant_metrics(&self, tenant: &Tenant) -> Served {
        self.common.ledger.read_tenant(tenant)
    }

    /// Loads an adapter that was made for this engine's weights, so that requests may name it. `name` is the
    /// one that `adapters` of tenants' limits lists. Blocks until the engine has the adapter.
    ///
    /// # Errors
    /// `InvalidArgument` if the adapter was made for other weights.
    pub fn add_adapter(
        &self,
        name: impl Into<String>,
        weights: Arc<dyn AdapterWeights>,
    ) -> Result<Adapter, Error> {
        let id = self.common.adapters.next_id();
        let (reply, answer) = realm_handover::channel(1);
        self.commands.send(Command::AddAdapter(id, weights, reply)).map_err(|_| Error::Stopped)?;
        answer.recv_blocking().ok_or(Error::Stopped)??;
        let commands = self.commands.clone();
        // A stopped engine has already freed the adapter.
        let release = move || drop(commands.send(Command::RemoveAdapter(id)));
        Ok(self.common.adapters.add(id, name.into(), release))
    }

    /// Returns the adapter of that name that was added last, if a handle of it still exists.
    pub fn adapter(&self, name: &str) -> Option<Adapter> {
        self.common.adapters.named(name)
    }

    /// Starts a request. Compiles its grammar if the tenant has not used it lately: this takes milliseconds
    /// for most grammars and up to seconds for a large one. A model's first grammar also waits for tables of
    /// the vocabulary.
    ///
    /// # Errors
    /// - `InvalidArgument` for an empty prompt, tokens outside the vocabulary, options that are out of range,
    ///   a grammar that has an error, and an adapter of another model.
    /// - `LimitExceeded` for a prompt that leaves no room in the context, a grammar that is too large, an
    ///   adapter that the tenant may not use, and a request beyond the tenant's memory or the number that it
    ///   may have waiting.
    /// - `Overloaded` if too many requests wait over all tenants.
    /// - `Stopped` if the engine has stopped.
    pub fn generate(&self, tenant: &Arc<Tenant>, mut request: Request) -> Result<Generation, Error> {
        let limit = self.common.check_prompt(tenant, &request.prompt, 1)?;
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

    /// Creates a guide through a grammar, for a program that chooses tokens itself. Compiles the grammar as
    /// [`generate`](Self::generate) does.
    ///
    /// # Errors
    /// `InvalidArgument` with the error in the grammar, `LimitExceeded` for a grammar that is too large.
    pub fn guide(&self, tenant: &Arc<Tenant>, grammar: &Grammar) -> Result<Guide, Error> {
        self.reserve_parts(tenant);
        self.guides.guide(tenant.id(), tenant.memory(), grammar)
    }

    /// Scores a given text: for each of `tokens` from index `first` on, returns the log-probability of the
    /// next token and the `top` likeliest tokens in its place. An adapter comes with a scale, a factor on
    /// what the adapter adds.
    ///
    /// # Errors
    /// Same as [`generate`](Self::generate), and `InvalidArgument` if `first` is no index of `tokens` or
    /// `top` is more than [`MAX_LOGPROBS`].
    pub fn score(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        tokens: Vec<u32>,
        first: usize,
        top: usize,
    ) -> Result<Answer<Vec<Scored>>, Error> {
        let limit = self.common.check_prompt(tenant, &tokens, 0)?;
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

    /// Returns one vector for a text, `[hidden]`: its last hidden states, pooled, and scaled to length 1 with
    /// `normalize`. An adapter comes with a scale, as for [`score`](Self::score).
    ///
    /// # Errors
    /// Same as [`generate`](Self::generate).
    pub fn embed(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        tokens: Vec<u32>,
        pooling: Pooling,
        normalize: bool,
    ) -> Result<Answer<Vec<f32>>, Error> {
        let limit = self.common.check_prompt(tenant, &tokens, 0)?;
        let adapter = adapter.map(|a| self.applied(tenant, a)).transpose()?;
        let (reply, answer) = answer::charged();
        self.add(tenant, tokens, limit, adapter, 0, 0, Work::Embed(Embed::new(pooling, normalize, reply)))?;
        Ok(answer)
    }

    /// Opens an empty sequence for a program that drives it itself. With an adapter, all its tokens are
    /// computed through it.
    ///
    /// # Errors
    /// `LimitExceeded` beyond the tenant's memory, `Stopped` if the engine has stopped; for the adapter, same
    /// as [`generate`](Self::generate).
    pub fn sequence(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        shared_prefix: usize,
    ) -> Result<Sequence, Error> {
        let adapter = adapter.map(|a| self.applied(tenant, a)).transpose()?;
        self.reserve_parts(tenant);
        let (engine, common) = (self.commands.clone(), Arc::clone(&self.common));
        Sequence::open(engine, common, Arc::clone(tenant), adapter, shared_prefix)
    }

    /// Creates the meter of a tenant's request that a program answers. The request counts as waiting from now
    /// on.
    pub fn run_meter(&self, tenant: &Arc<Tenant>) -> RunMeter {
        RunMeter::new(Meter::request(&self.common.ledger, tenant, "program", 0))
    }

    /// Opens a session that computes the forward pass layer by layer, for a tenant's program. `layerwise`
    /// belongs to this engine's weights ([`Weights::layerwise`]).
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn layerwise(
        &self,
        tenant: &Arc<Tenant>,
        layerwise: Box<dyn Layerwise>,
    ) -> Result<LayerwiseSession, Error> {
        LayerwiseSession::open(self.common.next_id(), self.commands.clone(), tenant, layerwise)
    }

    fn applied(&self, tenant: &Tenant, adapter: (Adapter, f32)) -> Result<Applied, Error> {
        Applied::new(adapter, &self.common.adapters, tenant)
    }

    /// Restores a sequence that [`Sequence::save`] wrote in an engine of the same
    /// [key](EngineConfig::snapshot_key). Takes the adapter and the scale that the sequence was saved with,
    /// or none.
    ///
    /// # Errors
    /// - `InvalidArgument` for bytes that were not signed with the key, were altered since, or belong to
    ///   another model, device, cache type or adapter.
    /// - `LimitExceeded` if the sequence is longer than the context, or beyond the tenant's memory.
    pub fn restore(
        &self,
        tenant: &Arc<Tenant>,
        adapter: Option<(Adapter, f32)>,
        bytes: &[u8],
    ) -> Result<Sequence, Error> {
        self.restored(tenant, adapter, bytes, false)
    }

    /// Restores a sequence like [`restore`](Self::restore), from bytes that an engine of another key saved.
    /// Checks their form in full, and no signature. The engine cannot verify that the keys and values are
    /// those that the model computes: the tenant's other requests therefore never use them, and saving the
    /// sequence again saves its tokens alone.
    ///
    /// # Errors
    /// - `InvalidArgument` for anything but a saved sequence of this model, device, cache type and adapter.
    /// - `LimitExceeded` if the sequence is longer than the context, or beyond the tenant's memory.
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
        self.reserve_parts(tenant);
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
        // Fails only if the thread has already ended.
        let _ = self.commands.send(Command::Stop);
        // A program, or a reader that is woken, may drop the last handle of the engine within a step. The
        // step's thread would then wait for itself, so it is not joined here; it ends by itself.
        if let Some(thread) = self.thread.take().filter(|_| !realm_handover::is_calling_out()) {
            // A thread that panicked has reported that on stderr.
            let _ = thread.join();
        }
    }
}
