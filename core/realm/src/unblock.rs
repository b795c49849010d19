//! Calls that block, for tasks.

use std::future::Future;

use crate::Error;
use crate::error::ErrorCode;

/// Runs a call that blocks on a thread of its own, so that a task can wait for it: everything that has no `_async` form
/// of its own, such as [`Realm::load_program`](crate::Realm::load_program), a pull by the [`hub`](crate::hub), or
/// [`Model::stream`](crate::Model::stream) with a long prompt to encode. The call starts at once. Dropping the future
/// doesn't stop it; what it returns is then dropped. It costs a thread's start, some 20 microseconds.
///
/// # Errors
/// What `work` returns, `io` if no thread could be started, and `internal` if `work` panicked.
pub fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> + Send + 'static {
    let (send, receive) = realm_handover::channel(1);
    let started = std::thread::Builder::new().name("realm-call".into()).spawn(move || {
        // If the task is gone, nobody wants the result.
        let _ = send.try_send(work());
    });
    async move {
        started.map_err(|e| Error::new(ErrorCode::Io, e))?;
        let gone = || Error::new(ErrorCode::Internal, "the call stopped without a result");
        receive.recv().await.ok_or_else(gone)?
    }
}
