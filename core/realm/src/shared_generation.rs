//! Generations that several threads hold.

use std::task::{Context, Poll};

use realm_handover::{Shared, block_on};

use crate::completion::Collector;
use crate::{Chunk, Completion, Error, Generation};

/// A [`Generation`] that several threads and tasks hold: any of them may [`cancel`](Self::cancel) it while
/// another waits for its next chunk, which bindings for languages with signals and handles need. Each chunk
/// goes to one reader. The request is cancelled when the last clone is dropped, even if a read is pending.
#[derive(Clone)]
pub struct SharedGeneration {
    generation: Shared<Generation>,
}

impl From<Generation> for SharedGeneration {
    fn from(generation: Generation) -> Self {
        Self { generation: generation.into() }
    }
}

impl SharedGeneration {
    /// Ends the request at once and frees its part of the KV cache. Waiting readers get the end of the
    /// stream.
    pub fn cancel(&self) {
        self.generation.cancel();
    }

    /// Returns whether the request was cancelled before it ended.
    pub fn is_cancelled(&self) -> bool {
        self.generation.is_cancelled()
    }

    /// Returns the next chunk; `None` after the last one and after [`cancel`](Self::cancel). Blocks.
    pub fn next_blocking(&self) -> Option<Result<Chunk, Error>> {
        block_on(self.generation.next())
    }

    /// Same as [`next_blocking`](Self::next_blocking), for tasks. Dropping the future loses no chunk.
    pub async fn next_async(&self) -> Option<Result<Chunk, Error>> {
        self.generation.next().await
    }

    /// Returns the next chunk, for callers that cannot keep a future. If there is none yet, the context's
    /// waker is woken once when there may be one.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        self.generation.poll_next(context)
    }

    /// Waits for the end and joins the remaining chunks. Blocks.
    ///
    /// # Errors
    /// The error that ended the request early; `cancelled` after [`cancel`](Self::cancel).
    pub fn finish(&self) -> Result<Completion, Error> {
        let mut collector = Collector::default();
        while let Some(chunk) = self.next_blocking() {
            collector.push(chunk?);
        }
        collector.finish()
    }

    /// Same as [`finish`](Self::finish), for tasks.
    ///
    /// # Errors
    /// The error that ended the request early; `cancelled` after [`cancel`](Self::cancel).
    pub async fn finish_async(&self) -> Result<Completion, Error> {
        let mut collector = Collector::default();
        while let Some(chunk) = self.next_async().await {
            collector.push(chunk?);
        }
        collector.finish()
    }
}
