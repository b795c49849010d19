//! A generation in several hands.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use futures_core::Stream;

use crate::completion::Collector;
use crate::{Chunk, Completion, Error, Generation};

/// A [`Generation`] that several threads and tasks hold: any of them may [`cancel`](Self::cancel) it while another waits
/// for its next chunk, which languages with signals and handles need. Each chunk goes to one reader. The request is
/// cancelled when the last clone is dropped.
#[derive(Clone)]
pub struct SharedGeneration {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    /// `None` once it has ended or was cancelled.
    generation: Option<Generation>,
    cancelled: bool,
    /// All who wait: the generation itself remembers only who asked last.
    waiting: Vec<Waker>,
}

impl From<Generation> for SharedGeneration {
    fn from(generation: Generation) -> Self {
        let state = State { generation: Some(generation), cancelled: false, waiting: Vec::new() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl SharedGeneration {
    /// Ends the request at once and frees its part of the KV cache; who waits for a chunk is told that there is none.
    pub fn cancel(&self) {
        let mut state = self.shared.lock();
        state.cancelled |= state.generation.is_some();
        let generation = state.generation.take();
        // Dropping it sends a message; nobody has to wait for that.
        drop(state);
        drop(generation);
        self.shared.wake_all();
    }

    /// Whether it was cancelled before it had ended.
    pub fn is_cancelled(&self) -> bool {
        self.shared.lock().cancelled
    }

    /// The next chunk; `None` after the last one and after [`cancel`](Self::cancel). Blocks.
    pub fn next_blocking(&self) -> Option<Result<Chunk, Error>> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.poll(&mut context) {
                Poll::Ready(next) => return next,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// As [`next_blocking`](Self::next_blocking), for tasks.
    pub async fn next_async(&self) -> Option<Result<Chunk, Error>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Waits for the end and puts the rest together. Blocks.
    ///
    /// # Errors
    /// What ended the request early; `cancelled` where that was [`cancel`](Self::cancel).
    pub fn finish(&self) -> Result<Completion, Error> {
        let mut collector = Collector::default();
        while let Some(chunk) = self.next_blocking() {
            collector.push(chunk?);
        }
        collector.finish()
    }

    /// As [`finish`](Self::finish), for tasks.
    ///
    /// # Errors
    /// As above.
    pub async fn finish_async(&self) -> Result<Completion, Error> {
        let mut collector = Collector::default();
        while let Some(chunk) = self.next_async().await {
            collector.push(chunk?);
        }
        collector.finish()
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        let mut state = self.shared.lock();
        let Some(generation) = &mut state.generation else { return Poll::Ready(None) };
        let waker = Waker::from(Arc::clone(&self.shared));
        let next = Pin::new(generation).poll_next(&mut Context::from_waker(&waker));
        match &next {
            Poll::Pending => {
                if !state.waiting.iter().any(|waiting| waiting.will_wake(context.waker())) {
                    state.waiting.push(context.waker().clone());
                }
            }
            Poll::Ready(chunk) => {
                let more = matches!(chunk, Some(Ok(Chunk { finish: None, .. })));
                let ended = if more { None } else { state.generation.take() };
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                drop(ended);
                waiting.into_iter().for_each(Waker::wake);
            }
        }
        next
    }
}
