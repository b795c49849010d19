//! Sends chunks to the reader of a run's answer.
//!
//! Waking a reader takes longer than choosing a token. A program that computes between two steps of a GPU
//! therefore leaves its chunk here, and it is sent while the GPU computes; see
//! [`Turn::during_next_pass`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use realm_engine::{Charged, Chunk, MemoryKind, MemoryLedger};
use realm_handover::{Receiver, Sender, TryRecvError};

use crate::Error;
use crate::turn::Turn;

/// Sends a run's chunks, in order.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Inner>);

struct Inner {
    chunks: Sender<Unread>,
    /// The chunks that are sent a little later.
    waiting: Mutex<VecDeque<Unread>>,
    /// The account of chunks until they are read.
    ledger: MemoryLedger,
}

/// A chunk in a reply's channel.
type Unread = Charged<Result<Chunk, Error>>;

/// The chunks of a run, as they arrive.
pub struct Chunks(Receiver<Unread>);

impl Chunks {
    pub(crate) fn new(chunks: Receiver<Unread>) -> Self {
        Self(chunks)
    }

    /// Returns the next chunk; `None` after the last. Blocks.
    pub fn recv_blocking(&self) -> Option<Result<Chunk, Error>> {
        self.0.recv_blocking().map(Unread::into_inner)
    }

    /// Returns the next chunk, if there is one now.
    ///
    /// # Errors
    /// There is none yet, or there are no more.
    pub fn try_recv(&self) -> Result<Result<Chunk, Error>, TryRecvError> {
        self.0.try_recv().map(Unread::into_inner)
    }

    /// Polls for the next chunk, for one task; `None` after the last.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(Unread::into_inner))
    }
}

/// The reason why a chunk was not sent.
pub(crate) enum Unsent {
    /// The reader has left.
    Gone,
    /// The tenant's memory is used up.
    Refused(Error),
}

impl Reader {
    pub(crate) fn new(chunks: Sender<Unread>, ledger: MemoryLedger) -> Self {
        Self(Arc::new(Inner { chunks, waiting: Mutex::default(), ledger }))
    }

    /// Sends a chunk in a program's turn, soon; waits for room.
    ///
    /// # Errors
    /// `Gone` if the reader has left, `Refused` if the tenant's memory is used up.
    pub(crate) async fn send(&self, turn: &Turn, chunk: Chunk) -> Result<(), Unsent> {
        if self.0.chunks.is_closed() {
            return Err(Unsent::Gone);
        }
        let bytes = size_of::<Unread>() + chunk.memory();
        let charge = self.0.ledger.charge(MemoryKind::Results, bytes);
        let charge = charge.map_err(|error| Unsent::Refused(error.into()))?;
        let chunk = Charged::new(Ok(chunk), charge);
        if self.has_room() {
            self.waiting().push_back(chunk);
            let later = self.clone();
            let sent = turn.during_next_pass(Box::new(move || later.flush()));
            if sent.is_err() {
                self.flush();
            }
            return Ok(());
        }
        self.flush();
        self.0.chunks.send(chunk).await.map_err(|_| Unsent::Gone)
    }

    /// Returns whether there is room for the waiting chunks and one more. There is no other sender.
    fn has_room(&self) -> bool {
        let waiting = self.waiting().len();
        !self.0.chunks.is_full_with(waiting)
    }

    /// Sends the end of the answer, after all waiting chunks; waits for room.
    pub(crate) async fn end(&self, last: Result<Chunk, Error>) {
        self.flush();
        // There is only one end, and the reader needs it, so it is not charged for.
        let charge = self.0.ledger.open(MemoryKind::Results);
        // If the reader has left, the end is not needed.
        let _ = self.0.chunks.send(Charged::new(last, charge)).await;
    }

    /// Sends the waiting chunks.
    fn flush(&self) {
        let mut waiting = self.waiting();
        while let Some(chunk) = waiting.pop_front() {
            // The room was reserved when the chunk was queued. If the reader has left, the next chunk says
            // so.
            let _ = self.0.chunks.push(chunk);
        }
        drop(waiting);
        self.0.chunks.wake();
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Unread>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
