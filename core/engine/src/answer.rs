//! The result of a request, and its sender.

use std::sync::{Arc, OnceLock};

use realm_handover::{Receiver, Sender};

use crate::{Error, MemoryCharge};

/// Bytes of the channel that a request answers through.
pub(crate) const CHANNEL_BYTES: usize = 512;

/// A result that the engine is still computing. Dropping it cancels the request.
pub struct Answer<T> {
    receiver: Receiver<Result<T, Error>>,
    /// The charge for the result's memory while it waits here.
    _held: Option<Held>,
}

/// A slot for the charge of a result, filled before the result is sent.
type Held = Arc<OnceLock<MemoryCharge>>;

impl<T> Answer<T> {
    pub(crate) fn new(receiver: Receiver<Result<T, Error>>) -> Self {
        Self { receiver, _held: None }
    }

    /// Waits for the result. Blocks.
    ///
    /// # Errors
    /// The error that ended the request early.
    pub fn wait(self) -> Result<T, Error> {
        self.receiver.recv_blocking().unwrap_or(Err(Error::Stopped))
    }

    /// Waits for the result without blocking the thread, for tasks.
    ///
    /// # Errors
    /// The error that ended the request early.
    pub async fn wait_async(self) -> Result<T, Error> {
        self.receiver.recv().await.unwrap_or(Err(Error::Stopped))
    }
}

/// The sender of a request's only result. The tenant pays for the result until the caller takes it.
pub(crate) struct Reply<T> {
    sender: Sender<Result<T, Error>>,
    held: Held,
}

/// Creates a reply and the answer that waits for it.
pub(crate) fn charged<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = realm_handover::channel(1);
    let held = Held::default();
    (Reply { sender, held: Arc::clone(&held) }, Answer { receiver, _held: Some(held) })
}

impl<T> Reply<T> {
    /// Sends a result of `bytes` bytes and puts them on the account of `charge`.
    pub(crate) fn send(&self, result: Result<T, Error>, bytes: usize, mut charge: MemoryCharge) {
        charge.add(CHANNEL_BYTES + bytes);
        let _ = self.held.set(charge);
        // Fails if the caller is gone, who then needs no result.
        let _ = self.sender.try_send(result);
    }

    /// Sends the error that ended the request.
    pub(crate) fn fail(&self, error: Error) {
        drop(self.sender.send_anyway(Err(error)));
    }

    /// Returns whether the caller has stopped waiting.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
