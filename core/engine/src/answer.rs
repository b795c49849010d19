//! A result to come, and where it comes from.

use std::sync::{Arc, OnceLock};

use realm_handover::{Receiver, Sender};

use crate::task::CHANNEL_BYTES;
use crate::{Error, MemoryCharge};

/// A result to come. Dropping it gives the request up.
pub struct Answer<T> {
    receiver: Receiver<Result<T, Error>>,
    /// What the result takes of its tenant's memory while it waits here.
    _held: Option<Held>,
}

/// The place for a result's charge, which is there as soon as the result is.
type Held = Arc<OnceLock<MemoryCharge>>;

impl<T> Answer<T> {
    pub(crate) fn new(receiver: Receiver<Result<T, Error>>) -> Self {
        Self { receiver, _held: None }
    }

    /// Waits for it. Blocks.
    ///
    /// # Errors
    /// What ended the request early.
    pub fn wait(self) -> Result<T, Error> {
        self.receiver.recv_blocking().unwrap_or(Err(Error::Stopped))
    }

    /// As [`wait`](Self::wait), for tasks.
    ///
    /// # Errors
    /// As above.
    pub async fn wait_async(self) -> Result<T, Error> {
        self.receiver.recv().await.unwrap_or(Err(Error::Stopped))
    }
}

/// Where a request's only result goes, which its tenant pays for until it is taken.
pub(crate) struct Reply<T> {
    sender: Sender<Result<T, Error>>,
    held: Held,
}

/// A reply, and the answer that waits for it.
pub(crate) fn charged<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = realm_handover::channel(1);
    let held = Held::default();
    (Reply { sender, held: Arc::clone(&held) }, Answer { receiver, _held: Some(held) })
}

impl<T> Reply<T> {
    /// Sends a result of so many `bytes`, which are on the account that `charge` is for.
    pub(crate) fn send(&self, result: Result<T, Error>, bytes: usize, mut charge: MemoryCharge) {
        charge.add(CHANNEL_BYTES + bytes);
        let _ = self.held.set(charge);
        // If the caller is gone, nobody wants to know.
        let _ = self.sender.try_send(result);
    }

    /// Sends the error that ended the request.
    pub(crate) fn fail(&self, error: Error) {
        drop(self.sender.send_anyway(Err(error)));
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
