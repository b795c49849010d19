//! Admission: the party that may refuse a request before it starts, and counts what it uses.

use realm::Usage;

use crate::ApiError;

/// Decides on the requests of one caller. A server implements it with the caller's limits.
pub trait Gate: Send + Sync {
    /// Admits a call whose prompts have `prompt_tokens` and whose answers have at most `max_tokens`, over all
    /// its choices. Runs before any of its work is queued, on the thread that prepares it.
    ///
    /// # Errors
    /// The failure that the caller gets in place of an answer.
    fn admit(&self, prompt_tokens: usize, max_tokens: usize) -> Result<Box<dyn Permit>, ApiError>;

    /// Returns a failure as the caller may see it. By default as it is.
    fn shown(&self, error: ApiError) -> ApiError {
        error
    }
}

/// A call that was admitted. Dropping it ends the call, whether it was answered or its caller left.
pub trait Permit: Send {
    /// Counts tokens that were generated just now.
    fn generated(&mut self, tokens: usize);

    /// Reports what one choice used, when it ends. Its tokens were counted by
    /// [`generated`](Self::generated).
    fn finished(&mut self, usage: &Usage) {
        let _ = usage;
    }
}

/// Admits every call, for services inside an application.
pub(crate) struct Open;

impl Gate for Open {
    fn admit(&self, _: usize, _: usize) -> Result<Box<dyn Permit>, ApiError> {
        Ok(Box::new(Open))
    }
}

impl Permit for Open {
    fn generated(&mut self, _: usize) {}
}
