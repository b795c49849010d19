//! The commands that an engine's handles send to its thread.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use realm_handover::Sender;
use realm_model::{ActivationId, AdapterWeights, Layerwise, Slice};

use crate::adapter::Applied;
use crate::snapshot::Snapshot;
use crate::task::Task;
use crate::task::session::{Output, Results};
use crate::tenant::Sent;
use crate::{Error, Tenant};

pub(crate) enum Command {
    Add(Box<Task>),
    Session(Sent, SessionCommand),
    Layerwise(LayerwiseCommand),
    /// Loads an adapter that later requests may name.
    AddAdapter(u32, Arc<dyn AdapterWeights>, Sender<Result<(), Error>>),
    /// Unloads an adapter: no handle and no request uses it any more.
    RemoveAdapter(u32),
    /// A reader has taken chunks or left.
    Wake,
    /// The engine was dropped.
    Stop,
}

/// A program's command to one of its sequences.
pub(crate) enum SessionCommand {
    /// Opens a sequence.
    Open { id: u64, tenant: Arc<Tenant>, adapter: Option<Applied>, limit: usize, shared_prefix: usize },
    /// Appends tokens and computes those that are due.
    Forward { id: u64, tokens: Vec<u32>, output: Output, results: Results },
    /// Opens another sequence with the same tokens.
    Fork { id: u64, to: u64 },
    /// Removes the tokens from index `len` on.
    Truncate { id: u64, len: usize },
    /// Copies tokens, keys and values, from where the last slice ended.
    Save { id: u64, reply: Sender<Result<Snapshot, Error>>, begun: Option<Snapshot> },
    /// Fills a sequence that was just opened. Earlier slices have filled `done` of the pages. Keys and values
    /// that are `foreign` are not trusted.
    Restore { id: u64, snapshot: Snapshot, foreign: bool, done: usize },
    /// Closes a sequence: the program has dropped it.
    Close { id: u64 },
}

/// A command of a layerwise session.
pub(crate) enum LayerwiseCommand {
    /// Opens a session. The engine counts `queued` down by one for each operation that is done.
    Open { id: u64, tenant: Arc<Tenant>, layerwise: Box<dyn Layerwise>, queued: Arc<AtomicUsize> },
    /// Computes an operation after those before it.
    Compute { id: u64, operation: Operation },
    /// Closes a session with its tensors and caches.
    Close { id: u64 },
}

/// Computes one slice of an operation and appends the numbers for its answer to a list.
pub(crate) type Compute = Box<
    dyn FnMut(&mut dyn Layerwise, &mut Slice<'_>, &mut Vec<f32>) -> Result<(), realm_model::Error> + Send,
>;

/// Takes the numbers of an operation's answer, or an error.
pub(crate) type TakeAnswer = Box<dyn FnOnce(Result<Vec<f32>, Error>) + Send>;

/// An operation of a layerwise session.
pub(crate) struct Operation {
    pub(crate) compute: Compute,
    /// The tensor that the operation makes.
    pub(crate) makes: Option<ActivationId>,
    /// Takes the numbers once the operation is done, or an error of the operations so far.
    pub(crate) answer: Option<TakeAnswer>,
}
