//! The way to whoever reads a run's answer.
//!
//! Waking a reader takes longer than choosing a token. A program that thinks between two steps of a GPU therefore leaves its
//! chunk here, and it is sent while the GPU computes; see [`realm_engine::during_next_pass`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use realm_engine::{Charged, Chunk, MemoryKind, MemoryLedger};
use realm_handover::{Receiver, Sender, TryRecvError};

use crate::Error;

/// Sends a run's chunks, in their order.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Inner>);

struct Inner {
    chunks: Sender<Unread>,
    /// What is sent a little later.
    waiting: Mutex<VecDeque<Unread>>,
    /// Where chunks count until they are read.
    ledger: MemoryLedger,
}

/// A chunk in a reply's channel.
type Unread = Charged<Result<Chunk, Error>>;

/// Chunks as they come.
pub struct Chunks(Receiver<Unread>);

impl Chunks {
    pub(crate) fn new(chunks: Receiver<Unread>) -> Self {
        Self(chunks)
    }

    /// The next one; `None` after the last. Blocks.
    pub fn recv_blocking(&self) -> Option<Result<Chunk, Error>> {
        self.0.recv_blocking().map(Unread::into_inner)
    }

    /// The next one, if it is there.
    ///
    /// # Errors
    /// It is not there yet, or there will be none.
    pub fn try_recv(&self) -> Result<Result<Chunk, Error>, TryRecvError> {
        self.0.try_recv().map(Unread::into_inner)
    }

    /// The next one for the one task that polls; `None` after the last.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(Unread::into_inner))
    }
}

/// Why a chunk was not sent.
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

    /// Sends a chunk, soon; waits for room.
    ///
    /// # Errors
    /// If the reader has left, or the tenant's memory is used up.
    pub(crate) async fn send(&self, chunk: Chunk) -> Result<(), Unsent> {
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
            let sent = realm_engine::during_next_pass(Box::new(move || later.flush()));
            if sent.is_err() {
                self.flush();
            }
            return Ok(());
        }
        self.flush();
        self.0.chunks.send(chunk).await.map_err(|_| Unsent::Gone)
    }

    /// Whether there is room for what waits and one more. Nobody else sends.
    fn has_room(&self) -> bool {
        let waiting = self.waiting().len();
        !self.0.chunks.is_full_with(waiting)
    }

    /// Sends the end of the answer, after all that waits; waits for room.
    pub(crate) async fn end(&self, last: Result<Chunk, Error>) {
        self.flush();
        // There is but one, which has to come.
        let charge = self.0.ledger.open(MemoryKind::Results);
        // If the reader has left, nobody wants to know.
        let _ = self.0.chunks.send(Charged::new(last, charge)).await;
    }

    /// Sends what waits.
    fn flush(&self) {
        let mut waiting = self.waiting();
        while let Some(chunk) = waiting.pop_front() {
            // There was room when it was put there. If the reader has left, the next chunk says so.
            let _ = self.0.chunks.push(chunk);
        }
        drop(waiting);
        self.0.chunks.wake();
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Unread>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
