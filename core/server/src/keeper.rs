//! The thread that has the store: it reads keys, writes what they used, and makes administration's changes
//! one after the other. No request waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use realm::ErrorCode;
use realm_protocol::ApiError;
use tokio::sync::oneshot;

use crate::keys::{Store, StoreError};
use crate::state::State;

/// The time between two looks at the store. Usage of this time is lost if the process is killed, and a key
/// that another process revokes is accepted for that long.
const EVERY: Duration = Duration::from_secs(1);

/// The most changes that wait.
const WAITING: usize = 256;

type Job = Box<dyn FnOnce(&State, &mut dyn Store) + Send>;

enum Message {
    Do(Job),
    Stop,
}

/// Sends changes to the thread.
#[derive(Clone)]
pub(crate) struct Keeper(SyncSender<Message>);

/// The other end, for [`run`].
pub(crate) struct Jobs(Receiver<Message>);

/// Stops the thread when it is dropped.
pub(crate) struct Stop(Keeper);

impl Drop for Stop {
    fn drop(&mut self) {
        // Without the thread there is nothing to stop.
        let _ = self.0.0.send(Message::Stop);
    }
}

impl Keeper {
    pub(crate) fn new() -> (Self, Jobs) {
        let (send, receive) = sync_channel(WAITING);
        (Self(send), Jobs(receive))
    }

    /// Returns what stops the thread.
    pub(crate) fn stop(&self) -> Stop {
        Stop(self.clone())
    }

    /// Runs work on the thread and returns its result. The work runs to its end even if the caller leaves.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State, &mut dyn Store) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |state, store| {
            // The caller may have left.
            let _ = send.send(work(state, store));
        });
        self.0.try_send(Message::Do(job)).map_err(|error| match error {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => stopped(),
        })?;
        receive.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Same as [`run`](Self::run), for threads. Blocks.
    pub(crate) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State, &mut dyn Store) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (send, receive) = std::sync::mpsc::channel();
        let job: Job = Box::new(move |state, store| {
            let _ = send.send(work(state, store));
        });
        self.0.send(Message::Do(job)).map_err(|_| stopped())?;
        receive.recv().unwrap_or_else(|_| Err(stopped()))
    }
}

fn busy() -> ApiError {
    let why = format!("{WAITING} changes wait already; try again later");
    ApiError::new(429, "rate_limit_error", ErrorCode::Overloaded, why).after(1)
}

fn stopped() -> ApiError {
    ApiError::new(503, "server_error", ErrorCode::Cancelled, "the server shuts down")
}

/// The failure of a store, for the log alone.
pub(crate) fn of_store(error: StoreError) -> ApiError {
    ApiError::new(500, "server_error", ErrorCode::Internal, error.to_string())
}

/// Runs until it is stopped; then makes the changes that wait and writes what is left.
pub(crate) fn run(state: &Arc<State>, mut store: Box<dyn Store>, jobs: &Jobs) {
    let mut next = Instant::now() + EVERY;
    loop {
        let stopped = match jobs.0.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Message::Do(job)) => {
                job(state, &mut *store);
                false
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        };
        if !stopped && Instant::now() < next {
            continue;
        }
        next = Instant::now() + EVERY;
        while stopped && let Ok(Message::Do(job)) = jobs.0.try_recv() {
            job(state, &mut *store);
        }
        if let Err(error) = look(state, &mut *store) {
            tracing::error!("{error}; the keys and limits in memory stay as they are");
        }
        if stopped {
            return;
        }
    }
}

fn look(state: &State, store: &mut dyn Store) -> Result<(), StoreError> {
    let used = state.ledger.take();
    if !used.is_empty() {
        let day = crate::keys::now() / (24 * 3600);
        if let Err(error) = store.add_usage(day, &used) {
            state.ledger.put_back(&used);
            return Err(error);
        }
    }
    if let Some(keys) = &state.keys
        && store.changed()?
    {
        keys.replace(store.keys()?);
    }
    Ok(())
}
