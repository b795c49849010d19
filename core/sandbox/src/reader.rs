//! The way to whoever reads a run's answer.
//!
//! Waking a reader takes longer than choosing a token. A program that thinks between two steps of a GPU therefore leaves its
//! chunk here, and it is sent while the GPU computes; see [`realm_engine::during_next_pass`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use realm_engine::Chunk;
use realm_handover::Sender;

use crate::Error;

/// Sends a run's chunks, in their order.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Inner>);

struct Inner {
    chunks: Sender<Result<Chunk, Error>>,
    /// What is sent a little later.
    waiting: Mutex<VecDeque<Result<Chunk, Error>>>,
}

/// The reader has left.
pub(crate) struct Gone;

impl Reader {
    pub(crate) fn new(chunks: Sender<Result<Chunk, Error>>) -> Self {
        Self(Arc::new(Inner { chunks, waiting: Mutex::default() }))
    }

    /// Sends a chunk, soon; waits for room.
    ///
    /// # Errors
    /// If the reader has left.
    pub(crate) async fn send(&self, chunk: Chunk) -> Result<(), Gone> {
        if self.0.chunks.is_closed() {
            return Err(Gone);
        }
        if self.has_room() {
            self.waiting().push_back(Ok(chunk));
            let later = self.clone();
            let sent = realm_engine::during_next_pass(Box::new(move || later.flush()));
            if sent.is_err() {
                self.flush();
            }
            return Ok(());
        }
        self.flush();
        self.0.chunks.send(Ok(chunk)).await.map_err(|_| Gone)
    }

    /// Whether there is room for what waits and one more. Nobody else sends.
    fn has_room(&self) -> bool {
        let waiting = self.waiting().len();
        !self.0.chunks.is_full_with(waiting)
    }

    /// Sends the end of the answer, after all that waits; waits for room.
    pub(crate) async fn end(&self, last: Result<Chunk, Error>) {
        self.flush();
        // If the reader has left, nobody wants to know.
        let _ = self.0.chunks.send(last).await;
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

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Result<Chunk, Error>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
