//! Between `main` and what a program exports.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::{Error, ErrorCode, FinishReason, Result};

/// What `main` may return, as the reason why the answer ended.
pub trait Outcome {
    /// The reason, or what went wrong.
    fn finish(self) -> Result<FinishReason>;
}

impl Outcome for () {
    fn finish(self) -> Result<FinishReason> {
        Ok(FinishReason::Stop)
    }
}

impl Outcome for FinishReason {
    fn finish(self) -> Result<FinishReason> {
        Ok(self)
    }
}

impl<T: Outcome, E: Into<Error>> Outcome for Result<T, E> {
    fn finish(self) -> Result<FinishReason> {
        self.map_err(Into::into)?.finish()
    }
}

/// The result of an asynchronous `main`. Calls of Realm never leave it waiting; a future that does wait waits for something
/// that nobody will bring.
///
/// # Errors
/// What it failed with, or `unsupported` if it waits.
pub fn finished(main: impl Future<Output: Outcome>) -> Result<FinishReason> {
    match pin!(main).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.finish(),
        Poll::Pending => {
            let why = "the program awaits something that is not Realm's, and would wait for ever";
            Err(Error::new(ErrorCode::Unsupported, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_may_return_nothing_a_reason_or_an_error_of_its_own() {
        assert_eq!(finished(async {}), Ok(FinishReason::Stop));
        assert_eq!(finished(async { Ok::<_, Error>(FinishReason::Length) }), Ok(FinishReason::Length));
        let failed = finished(async { Err::<(), _>("no such city".to_owned()) }).unwrap_err();
        assert_eq!(failed.to_string(), "failed: no such city");
    }

    #[test]
    fn a_future_that_nobody_wakes_is_an_error() {
        let stuck = finished(std::future::pending::<()>()).unwrap_err();
        assert_eq!(stuck.code, ErrorCode::Unsupported);
    }
}
