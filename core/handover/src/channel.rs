//! A bounded channel with one sender.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::task::{Context, Poll};

use crate::block_on::block_on;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::wakers::{Ticket, Wakers};

/// A channel for `capacity` items, at least one. Items are sent and dropped, and readers woken, outside of its lock.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Queue { items: VecDeque::new(), capacity: capacity.max(1), sender: true, receiver: true };
    let channel =
        Arc::new(Channel { queue: Mutex::new(queue), readers: Wakers::default(), writer: Wakers::default() });
    (Sender { channel: Arc::clone(&channel) }, Receiver { channel, ticket: None })
}

/// A channel that is never full.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

struct Channel<T> {
    queue: Mutex<Queue<T>>,
    readers: Wakers,
    writer: Wakers,
}

struct Queue<T> {
    items: VecDeque<T>,
    capacity: usize,
    /// Whether more may come.
    sender: bool,
    /// Whether anyone reads.
    receiver: bool,
}

impl<T> Channel<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest item: `Ready(None)` if there will be none.
    fn take(&self) -> Poll<Option<T>> {
        let mut queue = self.queue();
        let item = queue.items.pop_front();
        let ended = !queue.sender || !queue.receiver;
        drop(queue);
        match item {
            Some(item) => {
                self.writer.wake_all();
                Poll::Ready(Some(item))
            }
            None if ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// The sender's end. Dropping it ends the channel: what was sent can still be read.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// Why an item was not sent, and the item.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// The reader is gone.
    Closed(T),
}

/// The reader is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl<T> Sender<T> {
    /// Sends an item, if there is room.
    ///
    /// # Errors
    /// There is no room, or the reader is gone.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.push(item).inspect(|()| self.wake())
    }

    /// As [`try_send`](Self::try_send) for callers that hold a lock: once it is released, [`wake`](Self::wake) has to follow.
    ///
    /// # Errors
    /// There is no room, or the reader is gone.
    pub fn push(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut queue = self.channel.queue();
        if !queue.receiver {
            return Err(TrySendError::Closed(item));
        }
        if queue.items.len() >= queue.capacity {
            return Err(TrySendError::Full(item));
        }
        queue.items.push_back(item);
        Ok(())
    }

    /// Wakes the reader, on this thread.
    pub fn wake(&self) {
        self.channel.readers.wake_all();
    }

    /// Sends an item even where there is no room: for the last one, which says why there are no more.
    ///
    /// # Errors
    /// The reader is gone: the item.
    pub fn send_anyway(&self, item: T) -> Result<(), T> {
        let mut queue = self.channel.queue();
        if !queue.receiver {
            return Err(item);
        }
        queue.items.push_back(item);
        drop(queue);
        self.wake();
        Ok(())
    }

    /// Sends an item when there is room.
    ///
    /// # Errors
    /// The reader is gone.
    pub async fn send(&self, item: T) -> Result<(), Closed> {
        let mut unsent = Some(item);
        let attempt = || {
            let Some(item) = unsent.take() else { return Poll::Ready(Ok(())) };
            match self.try_send(item) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Closed(_)) => Poll::Ready(Err(Closed)),
                Err(TrySendError::Full(item)) => {
                    unsent = Some(item);
                    Poll::Pending
                }
            }
        };
        self.channel.writer.until(attempt).await
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        !self.channel.queue().receiver
    }

    /// Whether there would be no room after `more` items.
    pub fn is_full_with(&self, more: usize) -> bool {
        let queue = self.channel.queue();
        queue.items.len().saturating_add(more) >= queue.capacity
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.queue().sender = false;
        self.wake();
    }
}

/// The reader's end. Dropping it closes the channel, and drops what was not read on this thread.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
    /// That of [`poll_recv`](Self::poll_recv).
    ticket: Option<Ticket>,
}

/// Why nothing was received.
#[derive(Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is there now.
    Empty,
    /// Nothing will come any more.
    Ended,
}

impl<T> Receiver<T> {
    /// The next item, if it is there.
    ///
    /// # Errors
    /// It is not there yet, or there will be none.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.channel.take() {
            Poll::Ready(Some(item)) => Ok(item),
            Poll::Ready(None) => Err(TryRecvError::Ended),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }

    /// The next item for the one task that polls; `None` after the last one. A waker that was noted stays noted when an item is
    /// there: it may stand for others, who wait for the next one.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        match self.channel.take() {
            Poll::Pending => {
                self.channel.readers.wait(&mut self.ticket, context.waker());
                // It may have come between the question and the note.
                self.channel.take()
            }
            ready => ready,
        }
    }

    /// The next item for a task; `None` after the last one. Any number may wait: each item goes to one of them. Dropping the
    /// future loses nothing.
    pub async fn recv(&self) -> Option<T> {
        self.channel.readers.until(|| self.channel.take()).await
    }

    /// As [`recv`](Self::recv), for threads. Blocks.
    pub fn recv_blocking(&self) -> Option<T> {
        block_on(self.recv())
    }

    /// Ends the channel: nothing is sent any more, and what was not read is dropped here.
    pub fn close(&self) {
        let mut queue = self.channel.queue();
        queue.receiver = false;
        let unread = std::mem::take(&mut queue.items);
        drop(queue);
        drop(unread);
        self.channel.writer.wake_all();
        self.channel.readers.wake_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}
