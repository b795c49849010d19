//! Running requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use realm_engine::LoadedModel;
use realm_handover::{Receiver, block_on};

use crate::answer::AnswerReader;
use crate::completion::Collector;
use crate::error::ErrorCode;
use crate::task::Task;
use crate::{Chunk, Completion, Error};

/// A running request: a `Stream` of chunks for tasks, and an iterator for threads (`for chunk in
/// generation`). Dropping it cancels the request and frees its part of the KV cache.
pub struct Generation {
    inner: Source,
    /// Separates thoughts and tool calls from the engine's text.
    answer: AnswerReader,
    /// Keeps the engine running while the generation exists; `None` if a server computes.
    _model: Option<Arc<LoadedModel>>,
}

impl Generation {
    pub(crate) fn new(
        inner: realm_engine::Generation,
        answer: AnswerReader,
        model: Arc<LoadedModel>,
    ) -> Self {
        Self { inner: Source::Engine(inner), answer, _model: Some(model) }
    }

    /// Creates a generation from chunks that are answers already.
    pub(crate) fn of_source(source: Box<dyn ChunkSource>, model: Option<Arc<LoadedModel>>) -> Self {
        Self { inner: Source::Other(Some(source)), answer: AnswerReader::default(), _model: model }
    }

    /// Creates a generation from the chunks of a task, which is cancelled with the generation.
    pub(crate) fn of_task(
        chunks: Receiver<Result<Chunk, Error>>,
        task: Task,
        model: Option<Arc<LoadedModel>>,
    ) -> Self {
        Self::of_source(Box::new(Running { chunks, _task: task }), model)
    }

    /// Ends the request; no more chunks follow.
    pub fn cancel(&mut self) {
        match &mut self.inner {
            Source::Engine(generation) => generation.cancel(),
            Source::Other(source) => *source = None,
        }
    }

    /// Waits for the end and joins the remaining chunks. Blocks.
    ///
    /// # Errors
    /// The error that ended the request early.
    pub fn finish(self) -> Result<Completion, Error> {
        let mut collector = Collector::default();
        for chunk in self {
            collector.push(chunk?);
        }
        collector.finish()
    }

    /// Same as [`finish`](Self::finish), for tasks.
    ///
    /// # Errors
    /// The error that ended the request early.
    pub async fn finish_async(mut self) -> Result<Completion, Error> {
        let mut collector = Collector::default();
        while let Some(chunk) = self.next_async().await {
            collector.push(chunk?);
        }
        collector.finish()
    }

    /// Returns the next chunk; `None` after the last one. Blocks.
    pub fn next_blocking(&mut self) -> Option<Result<Chunk, Error>> {
        match &mut self.inner {
            Source::Engine(generation) => {
                let chunk = generation.next()?;
                Some(self.read(chunk))
            }
            Source::Other(_) => block_on(self.next_async()),
        }
    }

    /// Returns the next chunk, for tasks that do not use `StreamExt`.
    pub async fn next_async(&mut self) -> Option<Result<Chunk, Error>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        use futures_core::Stream;
        match &mut self.inner {
            Source::Engine(generation) => {
                let next = Pin::new(generation).poll_next(context);
                next.map(|chunk| chunk.map(|chunk| self.read(chunk)))
            }
            Source::Other(source) => poll_source(source, context),
        }
    }

    /// Separates thoughts and tool calls from the text of one of the engine's chunks.
    fn read(&mut self, chunk: Result<realm_engine::Chunk, realm_engine::Error>) -> Result<Chunk, Error> {
        let mut chunk = Chunk::from(chunk?);
        self.answer.read(&mut chunk);
        Ok(chunk)
    }
}

/// The source of the chunks.
enum Source {
    Engine(realm_engine::Generation),
    /// `None` after the last chunk.
    Other(Option<Box<dyn ChunkSource>>),
}

/// A source of chunks besides the engine: a tenant's program, a task, or a server. Dropping it cancels the
/// request.
pub(crate) trait ChunkSource: Send + Sync {
    /// Polls for the next chunk; `None` if the source has stopped.
    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>>;
}

/// A task and the channel of its chunks.
struct Running {
    chunks: Receiver<Result<Chunk, Error>>,
    _task: Task,
}

impl ChunkSource for Running {
    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        self.chunks.poll_recv(context)
    }
}

/// Polls a source for its next chunk; drops the source after the last one.
fn poll_source(
    source: &mut Option<Box<dyn ChunkSource>>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Chunk, Error>>> {
    let Some(running) = source else { return Poll::Ready(None) };
    running.poll_recv(context).map(|chunk| {
        let chunk = chunk.unwrap_or_else(|| Err(stopped()));
        if chunk.as_ref().map_or(true, |chunk| chunk.finish.is_some()) {
            *source = None;
        }
        Some(chunk)
    })
}

fn stopped() -> Error {
    Error::new(ErrorCode::Internal, "the run stopped without an end")
}

// `Generation` is not an `Iterator` itself: with `StreamExt` in scope, every adapter would be ambiguous.
impl IntoIterator for Generation {
    type Item = Result<Chunk, Error>;
    type IntoIter = Chunks;

    fn into_iter(self) -> Chunks {
        Chunks(self)
    }
}

/// The chunks of a [`Generation`], as an iterator that blocks.
pub struct Chunks(Generation);

impl Iterator for Chunks {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_blocking()
    }
}

impl futures_core::Stream for Generation {
    type Item = Result<Chunk, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

impl realm_handover::Source for Generation {
    type Item = Result<Chunk, Error>;

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }

    fn is_last(item: &Self::Item) -> bool {
        item.as_ref().map_or(true, |chunk| chunk.finish.is_some())
    }
}
