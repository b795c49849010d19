//! A token sequence with its KV cache, driven by its owner forward by forward.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use realm_compute::PAGE_TOKENS;

use crate::adapter::Applied;
use crate::answer::Answer;
use crate::engine::{Command, Common};
use crate::scheduler::sessions::SessionCommand;
use crate::snapshot::Snapshot;
use crate::task::Task;
use crate::task::session::{Computed, Forwarded, Output, Results};
use crate::tenant::Sent;
use crate::{Error, MemoryCharge, MemoryKind, Tenant};

/// A token sequence with its KV cache. Its forwards share passes with everybody else's work. While it rests its part of
/// the cache may be given to others; it is computed again when it is needed. Dropping it frees its part.
pub struct Sequence {
    id: u64,
    engine: Sender<Command>,
    common: Arc<Common>,
    tenant: Arc<Tenant>,
    adapter: Option<Applied>,
    limit: usize,
    tokens: Vec<u32>,
    /// How many of the tokens the engine knows.
    sent: usize,
    /// Memory for the next results.
    spare: Vec<f32>,
    /// For this, and for what the engine knows of it beside its tokens.
    memory: MemoryCharge,
}

/// Bytes of memory of a sequence without tokens.
const BYTES: usize = size_of::<Sequence>() + Task::SESSION_BYTES;

impl Sequence {
    pub(crate) fn open(
        engine: Sender<Command>,
        common: Arc<Common>,
        tenant: Arc<Tenant>,
        adapter: Option<Applied>,
        shared_prefix: usize,
    ) -> Result<Self, Error> {
        let id = common.next_id();
        let limit = common.limit(&tenant);
        let seen_through = adapter.clone();
        let memory = tenant.memory().charge(MemoryKind::Sequences, BYTES)?;
        let open = SessionCommand::Open { id, tenant: Arc::clone(&tenant), adapter, limit, shared_prefix };
        let this = Self {
            id,
            engine,
            common,
            tenant,
            adapter: seen_through,
            limit,
            tokens: Vec::new(),
            sent: 0,
            spare: Vec::new(),
            memory,
        };
        this.send(open)?;
        Ok(this)
    }

    /// Fills a sequence that was just opened; nobody vouches for `foreign` keys and values.
    pub(crate) fn fill(mut self, snapshot: Snapshot, foreign: bool) -> Result<Self, Error> {
        self.tokens.clone_from(&snapshot.tokens);
        self.count_memory();
        self.sent = self.tokens.len();
        self.send(SessionCommand::Restore { id: self.id, snapshot, foreign, done: 0 })?;
        Ok(self)
    }

    fn send(&self, command: SessionCommand) -> Result<(), Error> {
        self.engine.send(Command::Session(Sent::new(&self.tenant), command)).map_err(|_| Error::Stopped)
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens that it may have at most.
    pub fn context_length(&self) -> usize {
        self.limit
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Adds tokens at the end; the next forward computes them.
    ///
    /// # Errors
    /// `InvalidArgument` for tokens outside the vocabulary, `LimitExceeded` beyond the context and the tenant's memory; then nothing
    /// was added.
    pub fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.common.check_tokens(tokens)?;
        check_length(self.tokens.len() + tokens.len(), self.limit)?;
        if self.tokens.len() + tokens.len() > self.tokens.capacity() {
            self.memory.grow(size_of_val(tokens))?;
        }
        self.tokens.extend_from_slice(tokens);
        self.count_memory();
        Ok(())
    }

    /// Computes what was appended since the last forward, or the last token again if nothing was. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty sequence, and what ended the forward early.
    pub fn forward(&mut self, output: Output) -> Result<Forwarded, Error> {
        self.start_forward(output)?.wait()
    }

    /// As [`forward`](Self::forward), for tasks. Dropping the future gives the forward up; the tokens stay appended.
    ///
    /// # Errors
    /// As above.
    pub async fn forward_async(&mut self, output: Output) -> Result<Forwarded, Error> {
        self.start_forward(output)?.wait_async().await
    }

    /// As [`forward`](Self::forward), without waiting: for whoever advances several sequences in one step.
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn start_forward(&mut self, output: Output) -> Result<Answer<Forwarded>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        let tokens = self.unsent();
        let results = Results::Values(Forwarded { values: self.memory(), ..Forwarded::default() }, reply);
        self.send(SessionCommand::Forward { id: self.id, tokens, output, results })?;
        Ok(Answer::new(answer))
    }

    /// As [`start_forward`](Self::start_forward), for the logits after the last token or, with `every`, after each new one. Most of
    /// them may stay on the device until somebody asks.
    ///
    /// # Errors
    /// As above.
    pub fn start_logits(&mut self, every: bool) -> Result<Answer<Computed>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        let tokens = self.unsent();
        let output = if every { Output::Logits } else { Output::LastLogits };
        let results = Results::Logits(Computed::default(), self.memory(), reply);
        self.send(SessionCommand::Forward { id: self.id, tokens, output, results })?;
        Ok(Answer::new(answer))
    }

    /// Memory for the next results.
    fn memory(&mut self) -> Vec<f32> {
        let mut spare = std::mem::take(&mut self.spare);
        spare.clear();
        self.count_memory();
        spare
    }

    /// Takes results back that are needed no more: the next ones go where they were, and no memory has to be mapped for
    /// them.
    pub fn recycle(&mut self, values: Vec<f32>) {
        self.spare = values;
        self.count_memory();
    }

    fn count_memory(&mut self) {
        let spare = self.spare.capacity() * size_of::<f32>();
        let bytes = BYTES + self.tokens.capacity() * size_of::<u32>() + spare;
        if bytes != self.memory.bytes() {
            self.memory.set(bytes);
        }
    }

    fn unsent(&mut self) -> Vec<u32> {
        let tokens = self.tokens[self.sent..].to_vec();
        self.sent = self.tokens.len();
        tokens
    }

    /// Another sequence with the same tokens. Both share what is computed until they differ.
    ///
    /// # Errors
    /// The engine has stopped; `LimitExceeded` beyond the tenant's memory.
    pub fn fork(&self) -> Result<Self, Error> {
        let id = self.common.next_id();
        // Twice, since the engine copies them too.
        let tokens = size_of_val(&self.tokens[..]);
        let memory = self.tenant.memory().charge(MemoryKind::Sequences, BYTES + 2 * tokens)?;
        let mut fork = Self {
            id,
            engine: self.engine.clone(),
            common: Arc::clone(&self.common),
            tenant: Arc::clone(&self.tenant),
            adapter: self.adapter.clone(),
            limit: self.limit,
            tokens: self.tokens.clone(),
            sent: self.sent,
            spare: Vec::new(),
            memory,
        };
        fork.count_memory();
        self.send(SessionCommand::Fork { id: self.id, to: id })?;
        Ok(fork)
    }

    /// Drops the tokens from the `len`th on.
    ///
    /// # Errors
    /// The engine has stopped.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        self.tokens.truncate(len);
        if len < self.sent {
            self.sent = len;
            self.send(SessionCommand::Truncate { id: self.id, len })?;
        }
        Ok(())
    }

    /// Tokens, keys and values as bytes, for [`Engine::restore`](crate::Engine::restore) with the same model on the same
    /// kind of device. They are signed with the engine's [key](crate::EngineConfig::snapshot_key). What was appended after the last
    /// forward is not part of them. Blocks.
    ///
    /// # Errors
    /// The device could not be read; `LimitExceeded` if the copy is more than the tenant's memory.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        // As a copy of the pages, and as bytes.
        let pages = self.sent.div_ceil(PAGE_TOKENS) * self.common.groups * self.common.page_bytes();
        let _copies = self.tenant.memory().charge(MemoryKind::Sequences, 2 * pages)?;
        self.send(SessionCommand::Save { id: self.id, reply, begun: None })?;
        let snapshot = answer.recv_blocking().ok_or(Error::Stopped)??;
        self.common.snapshots.write(&snapshot, self.adapter.as_ref())
    }
}

/// Refuses a sequence of `len` tokens that may have `limit`.
pub(crate) fn check_length(len: usize, limit: usize) -> Result<(), Error> {
    if len <= limit {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "the sequence would have {len} tokens and may have {limit}: truncate it, or load the model with a longer context"
    )))
}

impl Drop for Sequence {
    fn drop(&mut self) {
        // A stopped engine has freed everything.
        let _ = self.send(SessionCommand::Close { id: self.id });
    }
}
