//! Sequences that a caller drives.
//!
//! A task reads the call's commands and gives each to the worker of its sequence. Workers run at the same
//! time, each one command after the other; while a forward pass runs, its worker looks for the command that
//! ends it. All of it ends when the client leaves.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use realm::ErrorCode;
use realm_protocol::ApiError;
use realm_rpc::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::{Status, Streaming};
use v1::sequence_command::Command;

use super::context::Calls;
use super::worker::{COMMANDS, Origin, Sender, Work, Worker, invalid, unknown};

/// The most sequences of one call.
const SEQUENCES: usize = 4096;

/// The most results that wait for the client.
const RESULTS: usize = 16;

/// The results of a call. Dropping it, as the client leaves, ends the call's sequences.
pub(super) struct Results {
    results: mpsc::Receiver<Result<v1::SequenceResult, Status>>,
    _session: JoinSet<()>,
}

impl futures_core::Stream for Results {
    type Item = Result<v1::SequenceResult, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.results.poll_recv(context)
    }
}

/// A call, as the task that reads its commands has it.
pub(super) struct Session {
    calls: Calls,
    results: Sender,
    /// The workers by the caller's names of their sequences.
    sequences: HashMap<u64, mpsc::Sender<Work>>,
    workers: JoinSet<()>,
    /// Saved sequences of which parts are missing, by the commands' ids.
    restored: HashMap<u64, Vec<u8>>,
}

impl Session {
    /// Starts the task of a call.
    pub(super) fn start(calls: Calls, commands: Streaming<v1::SequenceCommand>) -> Results {
        let (sender, results) = mpsc::channel(RESULTS);
        let this = Self {
            calls,
            results: Sender(sender),
            sequences: HashMap::new(),
            workers: JoinSet::new(),
            restored: HashMap::new(),
        };
        let mut session = JoinSet::new();
        session.spawn(this.run(commands));
        Results { results, _session: session }
    }

    async fn run(mut self, mut commands: Streaming<v1::SequenceCommand>) {
        let mut draining = self.calls.draining.clone();
        let drained = loop {
            let command = tokio::select! {
                command = commands.message() => command,
                _ = draining.wait_for(|&draining| draining) => break true,
            };
            // A client that breaks off has no use for results.
            let Ok(Some(v1::SequenceCommand { id, sequence, command })) = command else { break false };
            let taken = match command {
                None => Err(invalid("the command is empty; this server may be older than its client")),
                Some(command) => self.take(id, sequence, command).await,
            };
            if let Err(error) = taken {
                self.results.failed(id, error, &self.calls).await;
            }
            while self.workers.try_join_next().is_some() {}
        };
        // Workers end when their senders are gone, after the commands that they have.
        self.sequences.clear();
        while self.workers.join_next().await.is_some() {}
        if drained {
            let why = "the server ends, and its sequences with it; save them in time, or open new ones at another server";
            let error = ApiError::new(503, "server_error", ErrorCode::Io, why);
            self.results.end(&error, &self.calls).await;
        }
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
                worker.send(Work::Do(id, command)).await.map_err(|_| unknown(name))
            }
        }
    }

    /// Takes a part of a saved sequence, or opens one.
    fn open(&mut self, id: u64, name: u64, mut open: v1::OpenSequence) -> Result<(), ApiError> {
        let saved = match (self.restored.remove(&id), open.saved.take()) {
            (Some(mut saved), Some(part)) => {
                saved.extend_from_slice(&part);
                Some(saved)
            }
            (before, part) => before.or(part),
        };
        let most = self.calls.max_body;
        let all = saved.as_ref().map_or(0, Vec::len) + self.restored.values().map(Vec::len).sum::<usize>();
        if all > most {
            let why = format!(
                "the saved sequences have more than {most} bytes, the most that this server takes at once"
            );
            return Err(ApiError::new(413, "invalid_request_error", ErrorCode::LimitExceeded, why));
        }
        if open.more {
            self.restored.insert(id, saved.unwrap_or_default());
            return Ok(());
        }
        self.begin(name, Origin::Open { id, open, saved })
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
