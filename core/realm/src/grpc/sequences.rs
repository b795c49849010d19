//! Sequences of the server: one call holds those of a model.
//!
//! Commands are sent in the order in which they are made. A task reads the results and hands each to the call
//! that waits for it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use realm_engine::{Forwarded, Output};
use realm_handover::{Receiver, Sender};
use realm_rpc::v1;
use tokio::sync::oneshot;
use v1::sequence_command::Command;
use v1::sequence_result::Result as Outcome;

use super::{Client, convert, status};
use crate::Error;
use crate::error::ErrorCode;
use crate::remote::{Call, Saved, ServedSequence};

/// The bytes of a saved sequence that one command has.
const PART: usize = 1 << 20;

/// The most sequences that are opened in one call. Forks may be more.
const TOGETHER: usize = 1_000;

/// A call that holds sequences. It ends when the last of them is dropped.
struct Session {
    commands: Sender<v1::SequenceCommand>,
    waiting: Arc<Waiting>,
    /// The next command's id, and the next sequence's name.
    next: AtomicU64,
}

/// The calls that wait for results.
#[derive(Default)]
struct Waiting(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    by_id: HashMap<u64, Waiter>,
    /// The reason why no more results come.
    ended: Option<Error>,
}

struct Waiter {
    result: oneshot::Sender<Result<Outcome, Error>>,
    /// The parts of a result that have come.
    values: Vec<f32>,
    data: Vec<u8>,
}

/// The calls that hold a model's sequences: the current one, which later sequences join.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Weak<Session>>);

impl Sessions {
    /// Returns the current call, or starts one.
    fn join(&self, client: &Client) -> Result<Arc<Session>, Error> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting =
            |session: &Arc<Session>| Arc::strong_count(session) < TOGETHER && !session.waiting.has_ended();
        if let Some(session) = current.upgrade().filter(fitting) {
            return Ok(session);
        }
        let session = Session::start(client.clone())?;
        *current = Arc::downgrade(&session);
        Ok(session)
    }

    /// Opens a sequence.
    pub(super) fn open(
        &self,
        client: &Client,
        model: &str,
        adapter: Option<v1::AdapterUse>,
        saved: Option<Saved>,
    ) -> Result<impl Future<Output = Result<(RemoteSequence, Vec<u32>), Error>> + Send + use<>, Error> {
        let session = self.join(client)?;
        let (id, name) = (session.number(), session.number());
        let result = session.expect(id);
        // Made now, so that one whose caller leaves is closed.
        let mut sequence = RemoteSequence { session, name, context_length: 0 };
        let foreign = saved.as_ref().is_some_and(|saved| saved.foreign);
        let bytes = saved.map(|saved| saved.bytes);
        let parts: Vec<Option<&[u8]>> = match &bytes {
            None => vec![None],
            Some(bytes) if bytes.is_empty() => vec![Some(&[])],
            Some(bytes) => bytes.chunks(PART).map(Some).collect(),
        };
        for (at, part) in parts.iter().enumerate() {
            let open = v1::OpenSequence {
                model: model.to_owned(),
                adapter: adapter.clone(),
                saved: part.map(<[u8]>::to_vec),
                foreign,
                more: at + 1 < parts.len(),
            };
            sequence.session.send(id, name, Command::Open(open));
        }
        Ok(async move {
            match result.await? {
                Outcome::Opened(v1::Opened { context_length, tokens }) => {
                    sequence.context_length = convert::size(context_length);
                    Ok((sequence, tokens))
                }
                _ => Err(unexpected()),
            }
        })
    }
}

impl Session {
    /// Starts a call.
    fn start(mut client: Client) -> Result<Arc<Self>, Error> {
        let (commands, receiver) = realm_handover::unbounded();
        let waiting = Arc::new(Waiting::default());
        let reader = Arc::clone(&waiting);
        super::spawn(async move {
            let ended = match client.sequences(Commands(receiver)).await {
                Err(error) => status::error(error),
                Ok(results) => reader.read(results.into_inner()).await,
            };
            reader.end(ended);
        })?;
        Ok(Arc::new(Self { commands, waiting, next: AtomicU64::new(0) }))
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn send(&self, id: u64, sequence: u64, command: Command) {
        // If the call has ended, whoever waits for a result gets its error.
        let _ = self.commands.try_send(v1::SequenceCommand { id, sequence, command: Some(command) });
    }

    /// Returns the future result of a command that is about to be sent.
    fn expect(&self, id: u64) -> Expected {
        let (sender, receiver) = oneshot::channel();
        let mut calls = self.waiting.lock();
        match &calls.ended {
            Some(error) => {
                // Whoever sent it may have left.
                let _ = sender.send(Err(error.clone()));
            }
            None => {
                let waiter = Waiter { result: sender, values: Vec::new(), data: Vec::new() };
                calls.by_id.insert(id, waiter);
            }
        }
        Expected(receiver)
    }
}

/// The result of a command, when it comes.
struct Expected(oneshot::Receiver<Result<Outcome, Error>>);

impl Future for Expected {
    type Output = Result<Outcome, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.unwrap_or_else(|_| Err(unexpected())))
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// Hands out results until no more come, and returns the reason.
    async fn read(&self, mut results: tonic::Streaming<v1::SequenceResult>) -> Error {
        loop {
            match results.message().await {
                Ok(Some(result)) => self.take(result),
                Ok(None) => {
                    return Error::new(ErrorCode::Io, "the server has ended the call that held the sequence");
                }
                Err(error) => return status::error(error),
            }
        }
    }

    fn take(&self, v1::SequenceResult { id, result }: v1::SequenceResult) {
        let mut calls = self.lock();
        let Some(waiter) = calls.by_id.get_mut(&id) else { return };
        let outcome = match result {
            Some(Outcome::Forwarded(mut part)) => {
                waiter.values.append(&mut part.values);
                if part.more {
                    return;
                }
                part.values = std::mem::take(&mut waiter.values);
                Ok(Outcome::Forwarded(part))
            }
            Some(Outcome::Saved(mut part)) => {
                waiter.data.append(&mut part.data);
                if part.more {
                    return;
                }
                part.data = std::mem::take(&mut waiter.data);
                Ok(Outcome::Saved(part))
            }
            Some(Outcome::Failure(failure)) => {
                Err(Error::new(status::code(&failure.code).unwrap_or(ErrorCode::Internal), failure.message))
            }
            Some(outcome) => Ok(outcome),
            None => Err(unexpected()),
        };
        let waiter = calls.by_id.remove(&id);
        // A reader's waker is foreign code.
        drop(calls);
        if let Some(waiter) = waiter {
            let _ = waiter.result.send(outcome);
        }
    }

    /// Tells all that wait, and all later ones, that no more results come.
    fn end(&self, error: Error) {
        let waiters = {
            let mut calls = self.lock();
            calls.ended = Some(error.clone());
            std::mem::take(&mut calls.by_id)
        };
        for waiter in waiters.into_values() {
            let _ = waiter.result.send(Err(error.clone()));
        }
    }
}

/// The commands of a call, as gRPC takes them.
struct Commands(Receiver<v1::SequenceCommand>);

impl futures_core::Stream for Commands {
    type Item = v1::SequenceCommand;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::SequenceCommand>> {
        self.0.poll_recv(context)
    }
}

/// A sequence of the server.
pub(super) struct RemoteSequence {
    session: Arc<Session>,
    /// The number by which commands name it.
    name: u64,
    context_length: usize,
}

impl RemoteSequence {
    /// Sends a command at once; the call waits for its result.
    fn command<T: 'static>(
        &self,
        command: Command,
        read: impl FnOnce(Outcome) -> Option<T> + Send + 'static,
    ) -> Call<T> {
        let id = self.session.number();
        let result = self.session.expect(id);
        self.session.send(id, self.name, command);
        Box::pin(async move { read(result.await?).ok_or_else(unexpected) })
    }
}

impl ServedSequence for RemoteSequence {
    fn context_length(&self) -> usize {
        self.context_length
    }

    fn append(&self, tokens: Vec<u32>) -> Call<()> {
        self.command(Command::Append(v1::AppendTokens { tokens }), done)
    }

    fn forward(&self, output: Output, length: usize) -> Call<Forwarded> {
        let (id, session, name) = (self.session.number(), Arc::clone(&self.session), self.name);
        let result = session.expect(id);
        let forward = v1::ForwardSequence { output: convert::output(output), length: Some(length as u64) };
        session.send(id, name, Command::Forward(forward));
        let running = RunningForward { session, name, id, ended: false };
        Box::pin(async move {
            let result = result.await;
            running.end();
            match result? {
                Outcome::Forwarded(mut last) => {
                    let values = std::mem::take(&mut last.values);
                    Ok(convert::forwarded(last, values))
                }
                _ => Err(unexpected()),
            }
        })
    }

    fn fork(&self) -> Call<Box<dyn ServedSequence>> {
        let (session, context_length) = (Arc::clone(&self.session), self.context_length);
        let name = session.number();
        // Made now, so that a fork whose caller leaves is closed.
        let fork = Self { session, name, context_length };
        self.command(Command::Fork(v1::ForkSequence { fork: name }), |outcome| {
            done(outcome)?;
            Some(Box::new(fork) as Box<dyn ServedSequence>)
        })
    }

    fn truncate(&self, length: usize) -> Call<()> {
        self.command(Command::Truncate(v1::TruncateSequence { length: length as u64 }), done)
    }

    fn save(&self) -> Call<Vec<u8>> {
        self.command(Command::Save(v1::SaveSequence {}), |outcome| match outcome {
            Outcome::Saved(saved) => Some(saved.data),
            _ => None,
        })
    }
}

impl Drop for RemoteSequence {
    fn drop(&mut self) {
        self.session.send(self.session.number(), self.name, Command::Close(v1::CloseSequence {}));
    }
}

/// A forward pass that may run. Dropping it before its end ends the pass.
struct RunningForward {
    session: Arc<Session>,
    name: u64,
    id: u64,
    ended: bool,
}

impl RunningForward {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for RunningForward {
    fn drop(&mut self) {
        if !self.ended {
            let waiter = self.session.waiting.lock().by_id.remove(&self.id);
            drop(waiter);
            let cancel = v1::CancelForward { forward: self.id };
            self.session.send(self.session.number(), self.name, Command::Cancel(cancel));
        }
    }
}

fn done(outcome: Outcome) -> Option<()> {
    matches!(outcome, Outcome::Done(_)).then_some(())
}

fn unexpected() -> Error {
    Error::new(ErrorCode::Internal, "the server answered a command with another one's result")
}
