//! The code between a program's `main` and its exports.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::{Error, ErrorCode, FinishReason, Result};

/// A type that `main` may return, converted to the reason why the answer ended.
pub trait Outcome {
    /// Returns the reason, or the error.
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

/// Returns the result of an asynchronous `main`. Realm's functions never return a pending future; if `main`
/// is pending, it waits for an event that will never come.
///
/// # Errors
/// The error of `main`, or `unsupported` if it is pending.
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
    fn a_future_without_a_waker_is_an_error() {
        let stuck = finished(std::future::pending::<()>()).unwrap_err();
        assert_eq!(stuck.code, ErrorCode::Unsupported);
    }
}
