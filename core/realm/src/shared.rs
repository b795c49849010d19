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
    /// All who wait: the generation itself remembers only who asked last. Apart from `state`, which a reader holds while it
    /// polls: who sends a chunk wakes readers with the channel's lock held, and a poll wants that lock.
    waiting: Mutex<Vec<Waker>>,
}

struct State {
    /// `None` once it has ended or was cancelled.
    generation: Option<Generation>,
    cancelled: bool,
}

impl From<Generation> for SharedGeneration {
    fn from(generation: Generation) -> Self {
        let state = State { generation: Some(generation), cancelled: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), waiting: Mutex::default() }) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Adds `waker` to those who wait, which must be before a poll: what is sent after it wakes `waker`. Returns whether
    /// it was not among them.
    fn wait(&self, waker: &Waker) -> bool {
        let mut waiting = self.waiting();
        let new = !waiting.iter().any(|other| other.will_wake(waker));
        if new {
            waiting.push(waker.clone());
        }
        new
    }

    /// Takes `waker` out of those who wait.
    fn wait_no_more(&self, waker: &Waker) {
        self.waiting().retain(|other| !other.will_wake(waker));
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
        let new = self.shared.wait(context.waker());
        let waker = Waker::from(Arc::clone(&self.shared));
        let next = Pin::new(generation).poll_next(&mut Context::from_waker(&waker));
        if let Poll::Ready(chunk) = &next {
            let more = matches!(chunk, Some(Ok(Chunk { finish: None, .. })));
            let ended = if more { None } else { state.generation.take() };
            drop(state);
            drop(ended);
            // One that was there before may belong to another part of the same task, which still waits.
            if new {
                self.shared.wait_no_more(context.waker());
            }
            self.shared.wake_all();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn shared() -> Arc<Shared> {
        let state = State { generation: None, cancelled: false };
        Arc::new(Shared { state: Mutex::new(state), waiting: Mutex::default() })
    }

    #[test]
    fn who_wakes_waits_for_nobody_who_polls() {
        let shared = shared();
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        assert!(shared.wait(&Waker::from(Arc::clone(&flag))));

        let polling = shared.lock();
        let (woken, wait) = mpsc::channel();
        let engine = Waker::from(Arc::clone(&shared));
        std::thread::spawn(move || {
            engine.wake();
            woken.send(())
        });
        wait.recv_timeout(Duration::from_secs(20)).expect("it waited for the reader, who may wait for it");
        assert!(flag.0.load(Ordering::SeqCst));
        drop(polling);
    }

    #[test]
    fn who_waits_twice_is_remembered_once() {
        let shared = shared();
        let waker = Waker::from(Arc::new(Flag(AtomicBool::new(false))));
        assert!(shared.wait(&waker));
        assert!(!shared.wait(&waker));
        assert_eq!(shared.waiting().len(), 1);
        shared.wait_no_more(&waker);
        assert!(shared.waiting().is_empty());
    }
}
