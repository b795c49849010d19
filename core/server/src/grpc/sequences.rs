//! Sequences that a caller drives.
//!
//! A task reads the call's commands and gives each to the worker of its sequence. Workers run at the same
//! time, each one command after the other; while a forward pass runs, its worker looks for the command that
//! ends it. All of it ends when the client leaves. What waits for either side is on the tenant's account.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use realm::{ErrorCode, MemoryKind};
use realm_protocol::ApiError;
use realm_rpc::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};
use v1::sequence_command::Command;

use super::context::{Bytes, Calls};
use super::worker::{COMMANDS, Origin, Sender, Sent, Work, Worker, invalid, unknown};

/// The most sequences of one call, and the most saved ones of which parts are missing.
const SEQUENCES: usize = 4096;

/// The most results that wait for the client.
const RESULTS: usize = 16;

/// The results of a call. Dropping it, as the client leaves, ends the call's sequences.
pub(super) struct Results {
    results: mpsc::Receiver<Sent>,
    _session: JoinSet<()>,
}

impl futures_core::Stream for Results {
    type Item = Result<v1::SequenceResult, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.results.poll_recv(context).map(|sent| sent.map(|Sent { result, .. }| result))
    }
}

/// A call, as the task that reads its commands has it.
pub(super) struct Session {
    calls: Calls,
    results: Sender,
    /// The model that the first sequence has named.
    model: Option<String>,
    /// The workers by the caller's names of their sequences.
    sequences: HashMap<u64, mpsc::Sender<Work>>,
    workers: JoinSet<()>,
    /// Saved sequences of which parts are missing, by the commands' ids.
    restored: HashMap<u64, Bytes>,
}

impl Session {
    /// Starts the task of a call.
    pub(super) fn start(calls: Calls, commands: Streaming<v1::SequenceCommand>) -> Results {
        let (sender, results) = mpsc::channel(RESULTS);
        let this = Self {
            calls,
            results: Sender(sender),
            model: None,
            sequences: HashMap::new(),
            workers: JoinSet::new(),
            restored: HashMap::new(),
        };
        let mut session = JoinSet::new();
        session.spawn(this.run(commands));
        Results { results, _session: session }
    }

    async fn run(mut self, mut commands: Streaming<v1::SequenceCommand>) {
        let ended = loop {
            let v1::SequenceCommand { id, sequence, command } = match self.next(&mut commands).await {
                Ok(Some(command)) => command,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            let taken = match command {
                None => Err(invalid("the command is empty; this server may be older than its client")),
                Some(command) => self.take(id, sequence, command).await,
            };
            if let Err(error) = taken {
                self.results.failed(id, error, &self.calls).await;
            }
            // Closed sequences may still run. Before they become too many, no further commands are read.
            while self.workers.try_join_next().is_some() {}
            while self.workers.len() > SEQUENCES && self.workers.len() > self.sequences.len() {
                self.workers.join_next().await;
            }
        };
        // Workers end when their senders are gone, after the commands that they have.
        self.sequences.clear();
        while self.workers.join_next().await.is_some() {}
        if let Some(error) = ended {
            self.results.end(&error, &self.calls).await;
        }
    }

    /// Returns the next command; `None` if the client sends no more.
    async fn next(
        &self,
        commands: &mut Streaming<v1::SequenceCommand>,
    ) -> Result<Option<v1::SequenceCommand>, ApiError> {
        let mut draining = self.calls.draining.clone();
        let command = tokio::select! {
            command = commands.message() => command.map_err(|status| self.unreadable(&status))?,
            _ = draining.wait_for(|&draining| draining) => {
                let why = "the server ends, and its sequences with it; save them in time, or open new ones at another server";
                return Err(ApiError::new(503, "server_error", ErrorCode::Io, why));
            }
        };
        self.calls.call.is_still_allowed()?;
        Ok(command)
    }

    /// The failure of a command that can't be read. A client that broke off gets it never.
    fn unreadable(&self, status: &Status) -> ApiError {
        let most = self.calls.max_body;
        if status.code() == Code::OutOfRange {
            let why = format!(
                "a command has more than {most} bytes, the most that this server takes at once; send it in parts"
            );
            return ApiError::new(413, "invalid_request_error", ErrorCode::LimitExceeded, why);
        }
        invalid(format!("a command can't be read: {}", status.message()))
    }

    async fn take(&mut self, id: u64, name: u64, command: Command) -> Result<(), ApiError> {
        match command {
            Command::Open(open) => self.open(id, name, open),
            Command::Fork(v1::ForkSequence { fork }) => {
                let worker = self.sequences.get(&name).ok_or_else(|| unknown(name))?.clone();
                // The fork's own worker waits for it, so that commands to it may follow at once.
                let (hand, made) = oneshot::channel();
                self.begin(fork, Origin::Fork(made))?;
                worker.send(Work::Fork(id, hand)).await.map_err(|_| unknown(name))
            }
            Command::Close(_) => {
                // What was sent before still runs.
                self.sequences.remove(&name);
                Ok(())
            }
            command => {
                let worker = self.sequences.get(&name).ok_or_else(|| unknown(name))?;
                let tokens = match &command {
                    Command::Append(append) => size_of_val(&append.tokens[..]),
                    _ => 0,
                };
                let charge = self.calls.charge(MemoryKind::Requests, tokens)?;
                worker.send(Work::Do(id, command, charge)).await.map_err(|_| unknown(name))
            }
        }
    }

    /// Takes a part of a saved sequence, or opens one.
    fn open(&mut self, id: u64, name: u64, mut open: v1::OpenSequence) -> Result<(), ApiError> {
        let first = self.model.get_or_insert_with(|| open.model.clone());
        if *first != open.model {
            let why = format!(
                "a call's sequences are all of one model, and this one has begun with `{first}`; begin another call for `{}`",
                open.model
            );
            return Err(invalid(why));
        }
        let saved = self.saved(id, &mut open)?;
        if !open.more {
            return self.begin(name, Origin::Open { id, open, saved });
        }
        if self.restored.len() >= SEQUENCES {
            let why = format!("{SEQUENCES} saved sequences wait for further parts; send those first");
            return Err(ApiError::new(429, "rate_limit_error", ErrorCode::LimitExceeded, why));
        }
        self.restored.insert(id, saved.map_or_else(|| self.calls.bytes(Vec::new()), Ok)?);
        Ok(())
    }

    /// Returns the bytes of a saved sequence that came with this and earlier commands.
    fn saved(&mut self, id: u64, open: &mut v1::OpenSequence) -> Result<Option<Bytes>, ApiError> {
        let before = self.restored.remove(&id);
        let Some(part) = open.saved.take() else { return Ok(before) };
        let held = before.iter().chain(self.restored.values()).map(|bytes| bytes.bytes.len()).sum::<usize>();
        let most = self.calls.max_body;
        if held + part.len() > most {
            let why = format!(
                "the saved sequences have more than {most} bytes, the most that this server takes at once"
            );
            return Err(ApiError::new(413, "invalid_request_error", ErrorCode::LimitExceeded, why));
        }
        let Some(mut saved) = before else { return self.calls.bytes(part).map(Some) };
        saved.charge.grow(part.len()).map_err(realm::Error::from)?;
        saved.bytes.extend_from_slice(&part);
        Ok(Some(saved))
    }

    /// Starts the worker of a new sequence.
    fn begin(&mut self, name: u64, origin: Origin) -> Result<(), ApiError> {
        if self.sequences.contains_key(&name) {
            return Err(invalid(format!("there is a sequence {name} already; choose another number")));
        }
        if self.sequences.len() >= SEQUENCES {
            let why = format!("a call holds at most {SEQUENCES} sequences; close one, or begin another call");
            return Err(ApiError::new(429, "rate_limit_error", ErrorCode::LimitExceeded, why));
        }
        let (sender, commands) = mpsc::channel(COMMANDS);
        self.sequences.insert(name, sender);
        let worker = Worker::new(&self.calls, &self.results, commands);
        self.workers.spawn(worker.run(name, origin));
        Ok(())
    }
}
