//! Checks every interleaving of small programs with loom: the files of `../src/` are compiled here against
//! loom's primitives. loom itself reports deadlocks, lost wake-ups (threads that stay parked) and leaks.
#![cfg(test)]
#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../../src/block_on.rs"]
mod block_on;
#[path = "../../src/calling_out.rs"]
mod calling_out;
#[path = "../../src/channel.rs"]
mod channel;
#[path = "../../src/shared.rs"]
mod shared;
#[path = "../../src/wakers.rs"]
mod wakers;

mod sync {
    pub(crate) use loom::sync::atomic::AtomicBool;
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use loom::thread_local;

    /// A thread that parks on a condition: loom forgets that a thread was unparked if the thread waits for a
    /// mutex afterwards.
    #[derive(Clone, Default)]
    pub(crate) struct Thread(std::sync::Arc<(Mutex<bool>, loom::sync::Condvar)>);

    thread_local! {
        static THREAD: Thread = Thread::default();
    }

    pub(crate) fn current() -> Thread {
        THREAD.with(Thread::clone)
    }

    pub(crate) fn park() {
        let Thread(thread) = current();
        let mut unparked = thread.0.lock().unwrap();
        while !*unparked {
            unparked = thread.1.wait(unparked).unwrap();
        }
        *unparked = false;
    }

    impl Thread {
        pub(crate) fn unpark(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }
}

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread::{self, ThreadId};

use block_on::block_on;
use channel::{Receiver, Sender, channel};
use shared::{Shared, Source};

/// Runs a program in every interleaving with at most `preemptions` preemptions.
fn explore(preemptions: usize, program: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(program);
}

/// A source like the engine's generation: it ends with an item of 0, and records which thread drops it.
struct Generation {
    items: Receiver<u32>,
    dropped: Arc<Mutex<Option<ThreadId>>>,
}

impl Source for Generation {
    type Item = u32;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<u32>> {
        self.items.poll_recv(context)
    }

    fn is_last(item: &u32) -> bool {
        *item == 0
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        *self.dropped.lock().unwrap() = Some(thread::current().id());
    }
}

type Dropped = Arc<Mutex<Option<ThreadId>>>;

fn generation(capacity: usize) -> (Sender<u32>, Shared<Generation>, Dropped) {
    let (sender, items) = channel(capacity);
    let dropped = Dropped::default();
    (sender, Generation { items, dropped: Arc::clone(&dropped) }.into(), dropped)
}

/// Starts a thread that sends like the engine's and returns its id.
fn engine(sender: Sender<u32>, items: &'static [u32]) -> thread::JoinHandle<ThreadId> {
    thread::spawn(move || {
        for &item in items {
            // Fails once the reader is gone.
            let _ = sender.try_send(item);
        }
        drop(sender);
        thread::current().id()
    })
}

/// Counts its wake-ups.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn read_all(shared: &Shared<Generation>) -> Vec<u32> {
    std::iter::from_fn(|| block_on(shared.next())).collect()
}

#[test]
fn a_reader_gets_every_item_and_the_end() {
    explore(3, || {
        let (sender, shared, _) = generation(2);
        let engine = engine(sender, &[2, 1]);
        assert_eq!(read_all(&shared), [2, 1]);
        engine.join().unwrap();
    });
}

#[test]
fn a_reader_that_leaves_in_mid_read_ends_the_source_on_its_own_thread() {
    explore(3, || {
        let (sender, shared, dropped) = generation(4);
        let engine = engine(sender, &[2, 1, 0]);
        // Like a cancelled task, it polls once, receives an item or has to wait, and then leaves.
        let waker = Waker::from(Arc::new(Count::default()));
        let _ = pin!(shared.next()).poll(&mut Context::from_waker(&waker));
        drop(shared);
        let own = thread::current().id();
        assert_eq!(*dropped.lock().unwrap(), Some(own), "dropped at once, and here");
        engine.join().unwrap();
    });
}

#[test]
fn a_cancel_from_another_thread_ends_every_wait() {
    explore(2, || {
        let (sender, shared, dropped) = generation(2);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || read_all(&shared).len())
        };
        let engine = engine(sender, &[1]);
        shared.cancel();
        assert!(reader.join().unwrap() <= 1);
        let engine = engine.join().unwrap();
        assert!(dropped.lock().unwrap().is_some_and(|thread| thread != engine));
    });
}

#[test]
fn two_readers_share_the_items_and_both_see_the_end() {
    explore(2, || {
        let (sender, shared, dropped) = generation(2);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || read_all(&shared))
        };
        let engine = engine(sender, &[1, 0]);
        let mut all = read_all(&shared);
        all.extend(other.join().unwrap());
        all.sort_unstable();
        assert_eq!(all, [0, 1]);
        let engine = engine.join().unwrap();
        assert!(dropped.lock().unwrap().is_some_and(|thread| thread != engine));
    });
}

#[test]
fn one_reader_leaves_and_the_other_loses_nothing() {
    explore(2, || {
        let (sender, shared, _) = generation(2);
        let leaving = {
            let shared = shared.clone();
            thread::spawn(move || {
                let waker = Waker::from(Arc::new(Count::default()));
                let polled = pin!(shared.next()).poll(&mut Context::from_waker(&waker));
                usize::from(matches!(polled, Poll::Ready(Some(_))))
            })
        };
        let engine = engine(sender, &[1, 0]);
        let left = read_all(&shared).len();
        assert_eq!(left + leaving.join().unwrap(), 2);
        engine.join().unwrap();
    });
}

#[test]
fn two_reads_of_one_task_have_wake_ups_of_their_own() {
    explore(3, || {
        let (sender, shared, _) = generation(2);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut first = Box::pin(shared.next());
        let mut second = Box::pin(shared.next());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        // The first future is dropped, as by a timeout.
        drop(first);
        let engine = engine(sender, &[1]);
        engine.join().unwrap();
        assert!(count.0.load(Ordering::SeqCst) > 0, "the second read is not woken");
        assert_eq!(second.as_mut().poll(&mut context), Poll::Ready(Some(1)));
    });
}

#[test]
fn a_wake_during_a_call_that_blocks_is_not_lost() {
    explore(3, || {
        let (outer, items) = channel(1);
        let (inner, others) = channel(1);
        let engine = thread::spawn(move || {
            let _ = outer.try_send(1);
            let _ = inner.try_send(2);
        });
        let item = block_on(async {
            let mut receive = pin!(items.recv());
            let mut polls = 0;
            std::future::poll_fn(|context| {
                let next = receive.as_mut().poll(context);
                polls += 1;
                // A callback that waits for something else, on this thread. The first poll has no waker to be
                // woken by.
                if next.is_pending() && polls == 2 {
                    assert_eq!(others.recv_blocking(), Some(2));
                }
                next
            })
            .await
        });
        assert_eq!(item, Some(1));
        engine.join().unwrap();
    });
}

#[test]
fn a_poll_without_a_future_is_woken() {
    explore(3, || {
        let (sender, shared, _) = generation(2);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let engine = engine(sender, &[0]);
        let polled = shared.poll_next(&mut Context::from_waker(&waker));
        engine.join().unwrap();
        match polled {
            Poll::Ready(item) => assert_eq!(item, Some(0)),
            Poll::Pending => {
                assert!(count.0.load(Ordering::SeqCst) > 0, "it is not woken");
                assert_eq!(shared.poll_next(&mut Context::from_waker(&waker)), Poll::Ready(Some(0)));
            }
        }
    });
}

/// A waker of an executor whose tasks belong to their wakers: dropping the last one drops the reader.
struct Owner(Mutex<Option<Shared<Generation>>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        // As in an executor that is gone.
        let reader = self.0.lock().unwrap().take();
        drop(reader);
        panic!("there is no executor");
    }
}

#[test]
fn a_waker_that_owns_its_reader_and_panics_does_not_stop_the_sender() {
    // The panics are expected, and there is one for each interleaving.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains("there is no executor") {
            hook(panic);
        }
    }));
    explore(3, || {
        let (sender, shared, dropped) = generation(4);
        let owner = Arc::new(Owner(Mutex::new(Some(shared.clone()))));
        let engine = engine(sender, &[2, 1]);
        let waker = Waker::from(owner);
        let _ = shared.poll_next(&mut Context::from_waker(&waker));
        drop(waker);
        drop(shared);
        engine.join().unwrap();
        assert!(dropped.lock().unwrap().is_some());
    });
}

#[test]
fn a_sender_waits_for_room_until_the_reader_reads_or_leaves() {
    explore(3, || {
        let (sender, items) = channel(1);
        let program = thread::spawn(move || {
            let mut sent = 0;
            for item in 0..3 {
                sent += usize::from(block_on(sender.send(item)).is_ok());
            }
            sent
        });
        assert_eq!(items.recv_blocking(), Some(0));
        drop(items);
        assert!((1..=2).contains(&program.join().unwrap()));
    });
}

#[test]
fn the_last_item_is_sent_where_there_is_no_room() {
    explore(3, || {
        let (sender, items) = channel(1);
        let engine = thread::spawn(move || {
            let _ = sender.try_send(1);
            let _ = sender.send_anyway(0);
        });
        assert_eq!(items.recv_blocking(), Some(1));
        assert_eq!(items.recv_blocking(), Some(0));
        assert_eq!(items.recv_blocking(), None);
        engine.join().unwrap();
    });
}
