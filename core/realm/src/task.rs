//! A future that a thread of its own drives: for requests that call functions of the application's.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};
use std::thread::Thread;

use crate::Error;
use crate::error::ErrorCode;

/// Waits for a future on the calling thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let control = Arc::new(Control::default());
    // Nobody else has it, so it is not cancelled and runs to its end.
    match drive(&control, future) {
        Some(value) => value,
        None => unreachable!("only a task's handle cancels"),
    }
}

/// The handle of a running task. Dropping it ends the task: its future is dropped as soon as it returns from what it calls.
pub(crate) struct Task(Arc<Control>);

/// Says whether a task still runs, without keeping it running.
#[derive(Clone)]
pub(crate) struct TaskState(Arc<Control>);

#[derive(Default)]
struct Control {
    thread: OnceLock<Thread>,
    /// Apart from the thread's own token, which anything that blocks within the future may use up.
    woken: AtomicBool,
    cancelled: AtomicBool,
    ended: AtomicBool,
}

impl Control {
    fn unpark(&self) {
        self.woken.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Wake for Control {
    fn wake(self: Arc<Self>) {
        self.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.unpark();
    }
}

/// Polls a future on the calling thread until it is ready; `None` if it was cancelled before.
fn drive<T>(control: &Arc<Control>, future: impl Future<Output = T>) -> Option<T> {
    // Before the first look at the flags: a wake that comes earlier has set one.
    let _ = control.thread.set(std::thread::current());
    let mut future = pin!(future);
    let waker = Waker::from(Arc::clone(control));
    let mut context = Context::from_waker(&waker);
    while !control.cancelled.load(Ordering::Acquire) {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        while !control.woken.swap(false, Ordering::AcqRel) {
            std::thread::park();
        }
    }
    None
}

impl Task {
    /// Starts a thread that drives `work`.
    ///
    /// # Errors
    /// `io` if no thread could be started.
    pub(crate) fn spawn(name: &str, work: impl Future<Output = ()> + Send + 'static) -> Result<Self, Error> {
        let control = Arc::new(Control::default());
        let own = Ended(Arc::clone(&control));
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let own = own;
                drive(&own.0, work);
            })
            .map_err(|e| Error::new(ErrorCode::Io, format_args!("no thread for the request: {e}")))?;
        Ok(Self(control))
    }

    /// What says whether it still runs.
    pub(crate) fn state(&self) -> TaskState {
        TaskState(Arc::clone(&self.0))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.unpark();
    }
}

impl TaskState {
    /// Whether its handle was dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Whether it has ended or was cancelled.
    pub(crate) fn is_over(&self) -> bool {
        self.is_cancelled() || self.0.ended.load(Ordering::Acquire)
    }
}

/// Notes the end, also where the future panics.
struct Ended(Arc<Control>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    struct OnDrop(mpsc::Sender<()>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn dropping_the_handle_drops_what_waits() {
        let (dropped, wait) = mpsc::channel();
        let guard = OnDrop(dropped);
        let task = Task::spawn("test", async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let task = task.unwrap();
        let state = task.state();
        assert!(!state.is_over());
        drop(task);
        assert!(state.is_over());
        wait.recv_timeout(Duration::from_secs(20)).expect("the future was kept");
    }

    #[test]
    fn a_wake_during_a_call_that_blocks_is_not_lost() {
        let (send, receive) = realm_handover::channel(1);
        let ready = block_on(async move {
            let mut receive = pin!(receive.recv());
            let mut sent = false;
            std::future::poll_fn(move |context| {
                let next = receive.as_mut().poll(context);
                if next.is_pending() && !sent {
                    sent = true;
                    send.try_send(7).unwrap();
                    // Uses the thread's token up, as blocking on anything else does.
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                next
            })
            .await
        });
        assert_eq!(ready, Some(7));
    }
}
