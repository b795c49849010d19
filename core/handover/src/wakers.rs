//! A list of waiting tasks and threads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Wake, Waker};

use crate::calling_out::call_out;
use crate::sync::{Mutex, MutexGuard};

/// Wakers of tasks and threads that wait for the same event. A waiter adds its waker *before* it checks for
/// the event, and the event's cause calls [`wake_all`](Self::wake_all) *afterwards*, so that no wake-up is
/// lost.
///
/// Every wait has a [`Ticket`] of its own, even if two of them share a waker, as two reads of one task do:
/// the end of one wait never removes the other's wake-up.
#[derive(Default)]
pub struct Wakers {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    next: u64,
    waiting: Vec<Waiting>,
}

struct Waiting {
    id: u64,
    /// True if the waiter keeps no ticket.
    once: bool,
    waker: Waker,
}

impl List {
    fn add(&mut self, waker: Waker, once: bool) -> Ticket {
        let id = self.next;
        self.next += 1;
        self.waiting.push(Waiting { id, once, waker });
        Ticket(id)
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|other| other.id == id)?;
        Some(self.waiting.swap_remove(at))
    }
}

/// One wait. It is over once [`Wakers::wake_all`] has been called.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Wakers {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a wait, or renews the wait of `ticket`.
    pub fn wait(&self, ticket: &mut Option<Ticket>, waker: &Waker) {
        let before = ticket.as_ref().map(|ticket| ticket.0);
        let same = |other: &Waiting| Some(other.id) == before && other.waker.will_wake(waker);
        if before.is_some() && self.list().waiting.iter().any(same) {
            return;
        }
        let waker = waker.clone();
        let mut list = self.list();
        let old = before.and_then(|id| list.remove(id));
        *ticket = Some(list.add(waker, false));
        drop(list);
        call_out(|| drop(old));
    }

    /// Ends a wait: its waker is not woken any more.
    pub fn leave(&self, ticket: Option<Ticket>) {
        let Some(Ticket(id)) = ticket else { return };
        let old = self.list().remove(id);
        call_out(|| drop(old));
    }

    /// Starts a wait for a caller that keeps no ticket; only a wake-up ends it. The returned ticket is for a
    /// caller that finds at once that it need not wait. Returns `None` if such a wait with the same waker is
    /// already active.
    pub fn wait_once(&self, waker: &Waker) -> Option<Ticket> {
        if self.list().waiting.iter().any(|other| other.once && other.waker.will_wake(waker)) {
            return None;
        }
        let waker = waker.clone();
        Some(self.list().add(waker, true))
    }

    /// Waits until `ask` returns `Ready`. Calls `ask` after each wake-up. Dropping the future ends the wait.
    pub fn until<T, A: FnMut() -> Poll<T>>(&self, ask: A) -> Until<'_, A> {
        Until { wakers: self, ask, ticket: None }
    }

    /// Wakes all waiters. Their wakers run on this thread, outside of every lock.
    pub fn wake_all(&self) {
        let waiting = std::mem::take(&mut self.list().waiting);
        for Waiting { waker, .. } in waiting {
            call_out(|| waker.wake());
        }
    }
}

/// The future of [`Wakers::until`].
#[must_use = "futures do nothing unless polled"]
pub struct Until<'a, A> {
    wakers: &'a Wakers,
    ask: A,
    ticket: Option<Ticket>,
}

// No field is pinned.
impl<A> Unpin for Until<'_, A> {}

impl<T, A: FnMut() -> Poll<T>> Future for Until<'_, A> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self { wakers, ask, ticket } = self.get_mut();
        match ask() {
            Poll::Pending => {
                wakers.wait(ticket, context.waker());
                // The event may have come between the check and the registration.
                ask()
            }
            ready => ready,
        }
    }
}

impl<A> Drop for Until<'_, A> {
    fn drop(&mut self) {
        self.wakers.leave(self.ticket.take());
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakers").field("waiting", &self.list().waiting.len()).finish()
    }
}

impl Wake for Wakers {
    fn wake(self: std::sync::Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        self.wake_all();
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut self.list().waiting);
        call_out(|| drop(waiting));
    }
}
