//! The worker of one sequence, which runs its commands one after the other.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use realm::{ErrorCode, Forwarded, MemoryCharge, MemoryKind, Output, Sequence, unblock};
use realm_protocol::ApiError;
use realm_rpc::v1;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use v1::sequence_command::Command;
use v1::sequence_result::Result as Outcome;

use super::context::{Bytes, Calls};
use super::{convert, status};

/// The most commands to one sequence that wait. Then no further commands of the call are read.
pub(super) const COMMANDS: usize = 64;

/// The most bytes of a result in one message.
const PART: usize = 1 << 20;

/// What a worker is asked to do, with the command's id.
pub(super) enum Work {
    /// With the charge for the command's memory.
    Do(u64, Command, MemoryCharge),
    /// Hands a fork to the worker that waits for it.
    Fork(u64, oneshot::Sender<Held>),
}

/// A sequence, and how many of its tokens were computed, and counted, since it was opened.
pub(super) struct Held {
    sequence: Sequence,
    computed: usize,
}

/// Where a worker's sequence comes from.
pub(super) enum Origin {
    Open { id: u64, open: v1::OpenSequence, saved: Option<Bytes> },
    Fork(oneshot::Receiver<Held>),
}

/// A result on its way to the client, with the charge for the memory of all its parts.
pub(super) struct Sent {
    pub(super) result: Result<v1::SequenceResult, Status>,
    _charge: Option<Arc<MemoryCharge>>,
}

/// Sends results to the client.
#[derive(Clone)]
pub(super) struct Sender(pub(super) mpsc::Sender<Sent>);

impl Sender {
    async fn send(&self, id: u64, result: Outcome) {
        self.part(id, result, None).await;
    }

    async fn part(&self, id: u64, result: Outcome, charge: Option<Arc<MemoryCharge>>) {
        let result = Ok(v1::SequenceResult { id, result: Some(result) });
        // Without a client the session ends.
        let _ = self.0.send(Sent { result, _charge: charge }).await;
    }

    /// Ends the call with a failure.
    pub(super) async fn end(&self, error: &ApiError, calls: &Calls) {
        let result = Err(status::of(error, &calls.call.id));
        let _ = self.0.send(Sent { result, _charge: None }).await;
    }

    async fn done(&self, id: u64, done: Result<(), ApiError>, calls: &Calls) {
        match done {
            Ok(()) => self.send(id, Outcome::Done(v1::Done {})).await,
            Err(error) => self.failed(id, error, calls).await,
        }
    }

    pub(super) async fn failed(&self, id: u64, error: ApiError, calls: &Calls) {
        let error = calls.gate.shown(error);
        let (code, message) = (error.realm_code().to_owned(), error.message().to_owned());
        self.send(id, Outcome::Failure(v1::Failure { code, message })).await;
    }

    async fn forwarded(&self, id: u64, forwarded: Forwarded, calls: &Calls) {
        let charge = match calls.charge(MemoryKind::Results, size_of_val(&forwarded.values[..])) {
            Ok(charge) => Arc::new(charge),
            Err(error) => return self.failed(id, error, calls).await,
        };
        let (width, cached) = (forwarded.width as u64, forwarded.cached as u64);
        let mut parts = forwarded.values.chunks(PART / size_of::<f32>()).peekable();
        loop {
            let values = parts.next().unwrap_or_default().to_vec();
            let more = parts.peek().is_some();
            let part = v1::Forwarded { values, width, cached, more };
            self.part(id, Outcome::Forwarded(part), Some(Arc::clone(&charge))).await;
            if !more {
                return;
            }
        }
    }

    async fn saved(&self, id: u64, Bytes { bytes, charge }: Bytes) {
        let charge = Arc::new(charge);
        let mut parts = bytes.chunks(PART).peekable();
        while let Some(part) = parts.next() {
            let more = parts.peek().is_some();
            let part = v1::Saved { data: part.to_vec(), more };
            self.part(id, Outcome::Saved(part), Some(Arc::clone(&charge))).await;
        }
    }
}

/// Runs the commands to one sequence.
pub(super) struct Worker {
    calls: Calls,
    results: Sender,
    commands: mpsc::Receiver<Work>,
    /// Commands that came while a forward pass ran.
    waiting: VecDeque<Work>,
}

impl Worker {
    pub(super) fn new(calls: &Calls, results: &Sender, commands: mpsc::Receiver<Work>) -> Self {
        Self { calls: calls.clone(), results: results.clone(), commands, waiting: VecDeque::new() }
    }

    /// Gets the sequence, and runs its commands until no more come.
    pub(super) async fn run(mut self, name: u64, origin: Origin) {
        let mut held = match origin {
            Origin::Fork(made) => made.await.ok(),
            Origin::Open { id, open, saved } => match self.opened(open, saved).await {
                Ok(held) => {
                    let tokens = held.sequence.tokens().to_vec();
                    let context_length = held.sequence.context_length() as u64;
                    self.results.send(id, Outcome::Opened(v1::Opened { context_length, tokens })).await;
                    Some(held)
                }
                Err(error) => {
                    self.results.failed(id, error, &self.calls).await;
                    None
                }
            },
        };
        while let Some(work) = self.next().await {
            held = match (work, held) {
                (Work::Do(id, ..) | Work::Fork(id, _), None) => {
                    self.results.failed(id, unknown(name), &self.calls).await;
                    None
                }
                (Work::Do(id, command, _charge), Some(held)) => self.perform(id, command, held).await,
                (Work::Fork(id, hand), Some(held)) => self.fork(id, hand, held).await,
            };
        }
    }

    async fn next(&mut self) -> Option<Work> {
        match self.waiting.pop_front() {
            Some(work) => Some(work),
            None => self.commands.recv().await,
        }
    }

    async fn opened(&self, open: v1::OpenSequence, saved: Option<Bytes>) -> Result<Held, ApiError> {
        let model = self.calls.model(&open.model, open.adapter).await?;
        let make = move || match (saved, open.foreign) {
            (None, _) => model.sequence(),
            (Some(saved), false) => model.restore_sequence(&saved.bytes),
            (Some(saved), true) => model.restore_foreign_sequence(&saved.bytes),
        };
        let sequence = unblock(make).await?;
        // Saved bytes may hold tokens alone, and then all of them are computed. Only the engine knows how
        // many.
        Ok(Held { computed: 0, sequence })
    }

    /// Runs a command; returns the sequence unless it was lost.
    async fn perform(&mut self, id: u64, command: Command, mut held: Held) -> Option<Held> {
        match command {
            Command::Append(v1::AppendTokens { tokens }) => {
                let appended = held.sequence.append(&tokens).map_err(ApiError::from);
                self.results.done(id, appended, &self.calls).await;
            }
            Command::Forward(forward) => self.forward(id, &forward, &mut held).await,
            Command::Truncate(v1::TruncateSequence { length }) => {
                let length = convert::size(length);
                let truncated = blocking(held, move |held| held.sequence.truncate(length)).await;
                let (mut rest, done) = truncated?;
                rest.computed = rest.computed.min(rest.sequence.len());
                self.results.done(id, done.map_err(ApiError::from), &self.calls).await;
                return Some(rest);
            }
            Command::Save(_) => {
                let (rest, saved) = blocking(held, |held| held.sequence.save()).await?;
                match saved.map_err(ApiError::from).and_then(|bytes| self.calls.bytes(bytes)) {
                    Ok(saved) => self.results.saved(id, saved).await,
                    Err(error) => self.results.failed(id, error, &self.calls).await,
                }
                return Some(rest);
            }
            // The pass has ended, or its worker has taken this before.
            Command::Cancel(_) => {}
            // The session takes these.
            Command::Open(_) | Command::Fork(_) | Command::Close(_) => {}
        }
        Some(held)
    }

    async fn fork(&self, id: u64, hand: oneshot::Sender<Held>, held: Held) -> Option<Held> {
        let (held, forked) = blocking(held, |held| held.sequence.fork()).await?;
        let done = forked.map_err(ApiError::from).map(|sequence| {
            // Its worker waits as long as the call is there.
            let _ = hand.send(Held { sequence, computed: held.computed });
        });
        self.results.done(id, done, &self.calls).await;
        Some(held)
    }

    async fn forward(&mut self, id: u64, asked: &v1::ForwardSequence, held: &mut Held) {
        match self.admitted(asked, held) {
            Err(error) => self.results.failed(id, error, &self.calls).await,
            Ok(output) => {
                let Self { commands, waiting, .. } = self;
                let forwarded =
                    unless_cancelled(id, held.sequence.forward_async(output), commands, waiting).await;
                match forwarded {
                    None => {}
                    Some(Ok(forwarded)) => {
                        held.computed = held.sequence.len();
                        self.results.forwarded(id, forwarded, &self.calls).await;
                    }
                    Some(Err(error)) => self.results.failed(id, error.into(), &self.calls).await,
                }
            }
        }
    }

    /// Counts the rows of a forward pass against the limits of the caller.
    fn admitted(&self, asked: &v1::ForwardSequence, held: &Held) -> Result<Output, ApiError> {
        let output = convert::output(asked.output)?;
        let length = held.sequence.len();
        if let Some(taken) = asked.length.filter(|&taken| taken != length as u64) {
            return Err(invalid(format!(
                "the sequence has {length} tokens, and the caller takes it to have {taken}"
            )));
        }
        if length > 0 {
            // What was computed stays so: nothing is given back.
            drop(self.calls.gate.admit((length - held.computed).max(1), 0)?);
        }
        Ok(output)
    }
}

/// Waits for a forward pass; `None` if its client ended it. Other commands wait meanwhile.
async fn unless_cancelled<T>(
    id: u64,
    forward: impl Future<Output = T>,
    commands: &mut mpsc::Receiver<Work>,
    waiting: &mut VecDeque<Work>,
) -> Option<T> {
    let mut forward = pin!(forward);
    loop {
        if waiting.len() >= COMMANDS {
            return Some(forward.await);
        }
        tokio::select! {
            biased;
            result = &mut forward => return Some(result),
            work = commands.recv() => match work {
                // The sequence was closed; what was sent before still runs.
                None => return Some(forward.await),
                Some(Work::Do(_, Command::Cancel(v1::CancelForward { forward }), _)) if forward == id => return None,
                Some(Work::Do(_, Command::Cancel(v1::CancelForward { forward }), _)) => {
                    waiting.retain(|work| !matches!(work, Work::Do(other, Command::Forward(_), _) if *other == forward));
                }
                Some(work) => waiting.push_back(work),
            },
        }
    }
}

/// Runs a call of a sequence that may block on a thread of its own.
async fn blocking<T: Send + 'static>(
    mut held: Held,
    call: impl FnOnce(&mut Held) -> Result<T, realm::Error> + Send + 'static,
) -> Option<(Held, Result<T, realm::Error>)> {
    let work = move || {
        let result = call(&mut held);
        Ok((held, result))
    };
    match unblock(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::error!("a sequence was lost: {error}");
            None
        }
    }
}

pub(super) fn invalid(why: impl Into<String>) -> ApiError {
    ApiError::new(400, "invalid_request_error", ErrorCode::InvalidArgument, why)
}

pub(super) fn unknown(name: u64) -> ApiError {
    invalid(format!("there is no sequence {name} in this call; open it first"))
}
