//! A stream with several readers.

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex, MutexGuard};
use crate::wakers::Wakers;

/// A source of items. Dropping it tells the sender that no one reads.
pub trait Source {
    /// The type of the items.
    type Item;

    /// Polls for the next item; `None` after the last one. Wakes the context's waker when another poll is
    /// worthwhile.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::Item>>;

    /// Returns whether `item` is the last one.
    fn is_last(item: &Self::Item) -> bool;
}

/// A [`Source`] that several threads and tasks hold. Any of them may [`cancel`](Self::cancel) it while others
/// wait for its next item. Each item goes to one reader. The source is dropped after its last item, on a
/// cancel, and with the last clone, at once and on the thread that does so.
pub struct Shared<S: Source> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    state: Mutex<State<S>>,
    /// The readers that wait for an item. The source has this list as its waker, so the waker owns nothing
    /// that it wakes.
    waiting: std::sync::Arc<Wakers>,
}

struct State<S> {
    /// `None` after the end or a cancel.
    source: Option<S>,
    cancelled: bool,
}

impl<S: Source> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S: Source> From<S> for Shared<S> {
    fn from(source: S) -> Self {
        let state = State { source: Some(source), cancelled: false };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), waiting: std::sync::Arc::default() }) }
    }
}

impl<S: Source> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the source. Waiting readers receive `None`.
    pub fn cancel(&self) {
        let mut state = self.state();
        state.cancelled |= state.source.is_some();
        let source = state.source.take();
        drop(state);
        drop(source);
        self.inner.waiting.wake_all();
    }

    /// Returns whether the source was cancelled before its end.
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// Waits for the next item; `None` after the last one and after a [`cancel`](Self::cancel). Dropping the
    /// future loses no item.
    pub async fn next(&self) -> Option<S::Item> {
        self.inner.waiting.until(|| self.ask()).await
    }

    /// Polls for the [`next`](Self::next) item, for callers that keep no future. If there is none yet, the
    /// waker is woken once.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut item = self.ask();
        if item.is_pending() {
            let ticket = self.inner.waiting.wait_once(context.waker());
            item = self.ask();
            if item.is_ready() {
                self.inner.waiting.leave(ticket);
            }
        }
        item
    }

    fn ask(&self) -> Poll<Option<S::Item>> {
        let waker = Waker::from(std::sync::Arc::clone(&self.inner.waiting));
        let mut state = self.state();
        let Some(source) = &mut state.source else { return Poll::Ready(None) };
        let next = source.poll_next(&mut Context::from_waker(&waker));
        let ended = match &next {
            Poll::Ready(Some(item)) => S::is_last(item),
            Poll::Ready(None) => true,
            Poll::Pending => false,
        };
        let source = if ended { state.source.take() } else { None };
        drop(state);
        if source.is_some() {
            drop(source);
            // Other readers have to see the end.
            self.inner.waiting.wake_all();
        }
        next
    }
}
