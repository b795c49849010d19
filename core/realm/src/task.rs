//! Futures that a thread of their own drives, for requests that call the application's functions.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use realm_handover::{Wakers, block_on};

use crate::Error;
use crate::error::ErrorCode;

/// The handle of a running task. Dropping it ends the task: its future is dropped as soon as it returns from
/// the current poll.
pub(crate) struct Task(Arc<Control>);

/// Says whether a task still runs, without keeping it running.
#[derive(Clone)]
pub(crate) struct TaskState(Arc<Control>);

#[derive(Default)]
struct Control {
    cancelled: AtomicBool,
    ended: AtomicBool,
    /// Wakes the task's thread on a cancel.
    waiting: Wakers,
}

/// Polls a future on this thread until it is ready or the task is cancelled.
fn drive(control: &Control, work: impl Future<Output = ()>) {
    let cancelled =
        || if control.cancelled.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending };
    let (mut work, mut cancelled) = (pin!(work), control.waiting.until(cancelled));
    block_on(std::future::poll_fn(|context| match Pin::new(&mut cancelled).poll(context) {
        Poll::Pending => work.as_mut().poll(context),
        over => over,
    }));
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

    /// Returns a value that says whether the task still runs.
    pub(crate) fn state(&self) -> TaskState {
        TaskState(Arc::clone(&self.0))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.waiting.wake_all();
    }
}

impl TaskState {
    /// Returns whether the task's handle was dropped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Returns whether the task has ended or was cancelled.
    pub(crate) fn is_over(&self) -> bool {
        self.is_cancelled() || self.0.ended.load(Ordering::Acquire)
    }
}

/// Records the end when dropped, so also if the future panics.
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
}
