//! Threads that compute masks while the forward pass runs.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use llguidance::toktrie::SimpleVob;
use llguidance::{TokenParser, panic_utils};
use realm_handover::{Receiver, Sender, TrySendError};

use super::cache::Entry;

/// A parser on its way to a thread and back, with its grammar.
pub(super) struct Job {
    pub(super) parser: Box<TokenParser>,
    pub(super) entry: Arc<Entry>,
    pub(super) reply: Sender<Done>,
}

pub(super) struct Done {
    pub(super) parser: Box<TokenParser>,
    /// The result, or llguidance's error.
    pub(super) next: Result<Ahead, String>,
}

/// The continuations that a grammar allows.
pub(super) enum Ahead {
    /// These tokens, in order.
    Forced(Vec<u32>),
    /// One of these tokens.
    Mask(SimpleVob),
}

/// Threads that compute masks. They start with the first job and end when the pool is dropped.
#[derive(Default)]
pub(super) struct MaskPool {
    jobs: OnceLock<Sender<Job>>,
}

impl MaskPool {
    /// Computes the mask of `job` on another thread; returns the job if there is none.
    pub(super) fn submit(&self, job: Job) -> Result<(), Job> {
        self.jobs.get_or_init(start).try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Closed(job) => job,
        })
    }
}

/// Starts the threads. Without any thread the channel is closed, and jobs are returned.
fn start() -> Sender<Job> {
    let (send, jobs) = realm_handover::unbounded();
    let jobs = Arc::new(jobs);
    // A mask takes much less time than a step, so one thread keeps up with the batches of a small machine;
    // more would only take cores from the forward pass.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for index in 0..if cores > 8 { 2 } else { 1 } {
        let jobs = Arc::clone(&jobs);
        let thread = std::thread::Builder::new().name(format!("realm-mask-{index}"));
        if let Err(error) = thread.spawn(move || work(&jobs)) {
            tracing::warn!(%error, "no thread for masks");
        }
    }
    send
}

fn work(jobs: &Receiver<Job>) {
    while let Some(Job { mut parser, entry, reply }) = jobs.recv_blocking() {
        let next = compute(&mut parser, &entry);
        // Fails if the generation is gone, which then needs no mask.
        let _ = reply.try_send(Done { parser, next });
    }
}

/// Computes the tokens that must come next or, if there are none, the mask of the next one. Any failure is an
/// error, including a panic. Counts the growth of the grammar.
pub(super) fn compute(parser: &mut TokenParser, entry: &Entry) -> Result<Ahead, String> {
    let next = panic_utils::catch_unwind(AssertUnwindSafe(|| {
        let forced = parser.compute_ff_tokens();
        if forced.is_empty() { parser.compute_mask().map(Ahead::Mask) } else { Ok(Ahead::Forced(forced)) }
    }));
    entry.count(parser);
    next.map_err(|error| super::cache::brief(&error))
}
