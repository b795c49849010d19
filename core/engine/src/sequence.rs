//! A token sequence with its KV cache, driven by its owner forward by forward.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use realm_compute::PAGE_TOKENS;

use crate::adapter::Applied;
use crate::answer::Answer;
use crate::command::{Command, SessionCommand};
use crate::common::Common;
use crate::snapshot::Snapshot;
use crate::task::Task;
use crate::task::session::{Computed, Forwarded, Output, Results};
use crate::tenant::Sent;
use crate::{Error, MemoryCharge, MemoryKind, Tenant};

/// A token sequence with its KV cache. Its forwards share passes with the work of all tenants. While the
/// sequence rests, the engine may give its pages to others and computes them again when they are needed.
/// Dropping the sequence frees its pages.
pub struct Sequence {
    id: u64,
    engine: Sender<Command>,
    common: Arc<Common>,
    tenant: Arc<Tenant>,
    adapter: Option<Applied>,
    limit: usize,
    tokens: Vec<u32>,
    /// The number of tokens that were sent to the engine.
    sent: usize,
    /// A buffer for the next results.
    spare: Vec<f32>,
    /// The charge for this sequence and for the engine's record of it, without the tokens there.
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

    /// Fills a sequence that was just opened. Keys and values that are `foreign` are not trusted.
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

    /// The sequence's tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns whether the sequence has no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The most tokens that the sequence may have.
    pub fn context_length(&self) -> usize {
        self.limit
    }

    /// The owner of the sequence.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Appends tokens; the next forward computes them.
    ///
    /// # Errors
    /// `InvalidArgument` for tokens outside the vocabulary, `LimitExceeded` beyond the context or the
    /// tenant's memory. The sequence then stays as it was.
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

    /// Computes the tokens that were appended since the last forward, or the last token again if there are
    /// none. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty sequence; otherwise the error that ended the forward early.
    pub fn forward(&mut self, output: Output) -> Result<Forwarded, Error> {
        self.start_forward(output)?.wait()
    }

    /// Computes a [`forward`](Self::forward) without blocking the thread, for tasks. Dropping the future
    /// cancels the forward; the tokens stay appended.
    ///
    /// # Errors
    /// Same as [`forward`](Self::forward).
    pub async fn forward_async(&mut self, output: Output) -> Result<Forwarded, Error> {
        self.start_forward(output)?.wait_async().await
    }

    /// Starts a [`forward`](Self::forward) and returns without waiting, so that a caller can advance several
    /// sequences in one step.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped. The answer reports errors of the forward.
    pub fn start_forward(&mut self, output: Output) -> Result<Answer<Forwarded>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        let tokens = self.unsent();
        let results = Results::Values(Forwarded { values: self.memory(), ..Forwarded::default() }, reply);
        self.send(SessionCommand::Forward { id: self.id, tokens, output, results })?;
        Ok(Answer::new(answer))
    }

    /// Starts a forward like [`start_forward`](Self::start_forward), for the logits after the last token or,
    /// with `every`, after each new one. Most of the logits may stay on the device until the caller asks for
    /// them.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped. The answer reports errors of the forward.
    pub fn start_logits(&mut self, every: bool) -> Result<Answer<Computed>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        let tokens = self.unsent();
        let output = if every { Output::Logits } else { Output::LastLogits };
        let results = Results::Logits(Computed::default(), self.memory(), reply);
        self.send(SessionCommand::Forward { id: self.id, tokens, output, results })?;
        Ok(Answer::new(answer))
    }

    /// Returns an empty buffer for the next results.
    fn memory(&mut self) -> Vec<f32> {
        let mut spare = std::mem::take(&mut self.spare);
        spare.clear();
        self.count_memory();
        spare
    }

    /// Takes a result's buffer back for reuse: the next results then need no newly mapped memory.
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

    /// Makes another sequence with the same tokens. Both share computed pages until their tokens differ.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped; `LimitExceeded` beyond the tenant's memory.
    pub fn fork(&self) -> Result<Self, Error> {
        let id = self.common.next_id();
        // Twice, since the engine keeps a copy too.
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

    /// Removes the tokens from index `len` on.
    ///
    /// # Errors
    /// `Stopped` if the engine has stopped.
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        self.tokens.truncate(len);
        if len < self.sent {
            self.sent = len;
            self.send(SessionCommand::Truncate { id: self.id, len })?;
        }
        Ok(())
    }

    /// Returns tokens, keys and values as bytes, for [`Engine::restore`](crate::Engine::restore) with the
    /// same model on the same kind of device. They are signed with the engine's
    /// [key](crate::EngineConfig::snapshot_key). Tokens that were appended after the last forward are left
    /// out. Blocks.
    ///
    /// # Errors
    /// `Model` if the device could not be read; `LimitExceeded` if the copy does not fit the tenant's memory.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        let (reply, answer) = realm_handover::channel(1);
        // Twice: as a copy of the pages, and as bytes.
        let pages = self.sent.div_ceil(PAGE_TOKENS) * self.common.groups * self.common.page_bytes();
        let _copies = self.tenant.memory().charge(MemoryKind::Sequences, 2 * pages)?;
        self.send(SessionCommand::Save { id: self.id, reply, begun: None })?;
        let snapshot = answer.recv_blocking().ok_or(Error::Stopped)??;
        self.common.snapshots.write(&snapshot, self.adapter.as_ref())
    }
}

/// Refuses a sequence of `len` tokens if it may have only `limit`.
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
        // A stopped engine has already freed the sequence.
        let _ = self.send(SessionCommand::Close { id: self.id });
    }
}
