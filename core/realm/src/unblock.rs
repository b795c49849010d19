//! Futures of calls that block.

use std::future::Future;

use crate::Error;
use crate::error::ErrorCode;

/// Runs a blocking call on a thread of its own, so that a task can wait for it. Use it for everything that
/// has no `_async` form, such as [`Realm::load_program`](crate::Realm::load_program), a pull by the
/// [`hub`](crate::hub), or [`Model::stream`](crate::Model::stream) with a long prompt to encode. The call
/// starts at once. Dropping the future does not stop it; its result is then dropped. Each call starts a
/// thread, which takes some 20 microseconds.
///
/// # Errors
/// The error that `work` returns; `io` if no thread could be started; `internal` if `work` panicked.
pub fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> + Send + 'static {
    let (send, receive) = realm_handover::channel(1);
    let started = std::thread::Builder::new().name("realm-call".into()).spawn(move || {
        // If the future was dropped, the result is not needed.
        let _ = send.try_send(work());
    });
    async move {
        started.map_err(|e| Error::new(ErrorCode::Io, e))?;
        let gone = || Error::new(ErrorCode::Internal, "the call stopped without a result");
        receive.recv().await.ok_or_else(gone)?
    }
}
