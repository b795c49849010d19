//! A bounded channel with one sender.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::task::{Context, Poll};

use crate::block_on::block_on;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::wakers::{Ticket, Wakers};

/// Creates a channel for `capacity` items, at least one. Items are sent and dropped, and readers woken,
/// outside of its lock.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Queue { items: VecDeque::new(), capacity: capacity.max(1), sender: true, receiver: true };
    let channel =
        Arc::new(Channel { queue: Mutex::new(queue), readers: Wakers::default(), writer: Wakers::default() });
    (Sender { channel: Arc::clone(&channel) }, Receiver { channel, ticket: None })
}

/// Creates a channel that is never full.
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
    /// True while the sender exists.
    sender: bool,
    /// True while the receiver exists and is open.
    receiver: bool,
}

impl<T> Channel<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest item. `Ready(None)` if no item can come any more.
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

/// The sender's end. Dropping it ends the channel; the reader still receives the items that were sent.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// The reason why an item was not sent, with the item.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The channel is full.
    Full(T),
    /// The reader is gone.
    Closed(T),
}

/// The error for a channel whose reader is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl<T> Sender<T> {
    /// Sends an item if there is room.
    ///
    /// # Errors
    /// `Full` if there is no room, `Closed` if the reader is gone.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.push(item).inspect(|()| self.wake())
    }

    /// Sends like [`try_send`](Self::try_send) without waking the reader, for callers that hold a lock. The
    /// caller has to call [`wake`](Self::wake) after releasing it.
    ///
    /// # Errors
    /// `Full` if there is no room, `Closed` if the reader is gone.
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

    /// Wakes the reader. Its waker runs on this thread.
    pub fn wake(&self) {
        self.channel.readers.wake_all();
    }

    /// Sends an item even if there is no room. It is meant for the last item, such as the error that ends the
    /// stream.
    ///
    /// # Errors
    /// The item, if the reader is gone.
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

    /// Waits for room and sends an item.
    ///
    /// # Errors
    /// `Closed` if the reader is gone.
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

    /// Returns whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        !self.channel.queue().receiver
    }

    /// Returns whether the channel would be full after `more` items.
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

/// The reader's end. Dropping it closes the channel and drops unread items on this thread.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
    /// The ticket of [`poll_recv`](Self::poll_recv).
    ticket: Option<Ticket>,
}

/// The reason why no item was received.
#[derive(Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// The channel is empty now.
    Empty,
    /// The sender is gone and all items were received.
    Ended,
}

impl<T> Receiver<T> {
    /// Returns the next item if there is one.
    ///
    /// # Errors
    /// `Empty` if no item has come yet, `Ended` after the last one.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.channel.take() {
            Poll::Ready(Some(item)) => Ok(item),
            Poll::Ready(None) => Err(TryRecvError::Ended),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }

    /// Polls for the next item, from one task only; `None` after the last one. A registered waker stays
    /// registered when an item is there: it may stand for other readers that wait for the next item.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        match self.channel.take() {
            Poll::Pending => {
                self.channel.readers.wait(&mut self.ticket, context.waker());
                // An item may have come between the check and the registration.
                self.channel.take()
            }
            ready => ready,
        }
    }

    /// Waits for the next item; `None` after the last one. Any number of tasks may wait: each item goes to
    /// one of them. Dropping the future loses no item.
    pub async fn recv(&self) -> Option<T> {
        self.channel.readers.until(|| self.channel.take()).await
    }

    /// Waits for the next item like [`recv`](Self::recv), for threads. Blocks.
    pub fn recv_blocking(&self) -> Option<T> {
        block_on(self.recv())
    }

    /// Closes the channel: no item can be sent any more, and unread items are dropped here.
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
