//! The reader's end of a running request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use realm_handover::Receiver;

use crate::Error;
use crate::chunk::{Chunk, Unread};
use crate::command::Command;

/// A running request: an iterator for threads, a [`Stream`] for tasks. Dropping it cancels the request and
/// frees its pages of the KV cache.
pub struct Generation {
    chunks: Receiver<Unread>,
    engine: Sender<Command>,
    /// Set by the engine while it waits for this reader.
    paused: Arc<AtomicBool>,
    done: bool,
}

impl Generation {
    pub(crate) fn new(chunks: Receiver<Unread>, engine: Sender<Command>, paused: Arc<AtomicBool>) -> Self {
        Self { chunks, engine, paused, done: false }
    }

    /// Cancels the request. The generation yields no more chunks.
    pub fn cancel(&mut self) {
        self.done = true;
        self.chunks.close();
        // Fails if the engine has stopped, which then needs no waking.
        let _ = self.engine.send(Command::Wake);
    }

    fn received(&mut self, chunk: Option<Unread>) -> Option<Result<Chunk, Error>> {
        if self.paused.swap(false, Ordering::AcqRel) {
            let _ = self.engine.send(Command::Wake);
        }
        // The channel closes before the last chunk only if the engine is gone.
        let chunk = chunk.map_or(Err(Error::Stopped), Unread::into_inner);
        self.done = chunk.as_ref().map_or(true, |chunk| chunk.finish.is_some());
        Some(chunk)
    }
}

impl Iterator for Generation {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let chunk = self.chunks.recv_blocking();
        self.received(chunk)
    }
}

impl Stream for Generation {
    type Item = Result<Chunk, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.chunks.poll_recv(context));
        Poll::Ready(self.received(chunk))
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.done {
            self.cancel();
        }
    }
}
