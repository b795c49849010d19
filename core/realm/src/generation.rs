//! Running requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::answer::AnswerReader;
use crate::completion::Collector;
use crate::error::ErrorCode;
use crate::model::Shared;
use crate::task::Task;
use crate::{Chunk, Completion, Error};

/// A running request: a `Stream` of chunks for tasks, and an iterator for threads (`for chunk in
/// generation`). Dropping it cancels the request and frees its part of the KV cache.
pub struct Generation {
    inner: Source,
    /// Separates thoughts and tool calls from the answer.
    answer: AnswerReader,
    /// Keeps the engine running while the generation exists.
    _model: Arc<Shared>,
}

impl Generation {
    pub(crate) fn new(inner: realm_engine::Generation, answer: AnswerReader, model: Arc<Shared>) -> Self {
        Self { inner: Source::Engine(inner), answer, _model: model }
    }

    pub(crate) fn of_program(reply: realm_sandbox::Reply, model: Arc<Shared>) -> Self {
        Self { inner: Source::Program(Some(Box::new(reply))), answer: AnswerReader::default(), _model: model }
    }

    /// Creates a generation from the chunks of a task, which is cancelled with the generation.
    pub(crate) fn of_task(
        chunks: realm_handover::Receiver<Result<Chunk, Error>>,
        task: Task,
        model: Arc<Shared>,
    ) -> Self {
        let inner = Source::Task(Some(Box::new(Running { chunks, _task: task })));
        Self { inner, answer: AnswerReader::default(), _model: model }
    }

    /// Ends the request; no more chunks follow.
    pub fn cancel(&mut self) {
        match &mut self.inner {
            Source::Engine(generation) => generation.cancel(),
            Source::Program(reply) => *reply = None,
            Source::Task(running) => *running = None,
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
        let next = match &mut self.inner {
            Source::Engine(generation) => generation.next()?.map_err(Error::from),
            Source::Program(reply) => {
                let chunk = reply.as_ref()?.chunks.recv_blocking().ok_or_else(stopped);
                of_reply(reply, chunk)
            }
            Source::Task(running) => {
                let chunk = running.as_ref()?.chunks.recv_blocking();
                return Some(of_task(running, chunk));
            }
        };
        Some(self.read(next))
    }

    /// Returns the next chunk, for tasks that do not use `StreamExt`.
    pub async fn next_async(&mut self) -> Option<Result<Chunk, Error>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk, Error>>> {
        use futures_core::Stream;
        let next = match &mut self.inner {
            Source::Engine(generation) => {
                Pin::new(generation).poll_next(context).map(|chunk| chunk.map(|c| c.map_err(Error::from)))
            }
            Source::Program(reply) => {
                let Some(running) = reply else { return Poll::Ready(None) };
                let next = running.chunks.poll_recv(context);
                next.map(|chunk| Some(of_reply(reply, chunk.ok_or_else(stopped))))
            }
            Source::Task(running) => {
                let Some(task) = running else { return Poll::Ready(None) };
                let next = task.chunks.poll_recv(context);
                return next.map(|chunk| Some(of_task(running, chunk)));
            }
        };
        next.map(|chunk| chunk.map(|chunk| self.read(chunk)))
    }

    /// Separates thoughts and tool calls from a chunk's text.
    fn read(&mut self, chunk: Result<realm_engine::Chunk, Error>) -> Result<Chunk, Error> {
        let mut chunk = Chunk::from(chunk?);
        self.answer.read(&mut chunk);
        Ok(chunk)
    }
}

/// The source of the chunks.
enum Source {
    Engine(realm_engine::Generation),
    /// `None` after the last chunk.
    Program(Option<Box<realm_sandbox::Reply>>),
    /// `None` after the last chunk.
    Task(Option<Box<Running>>),
}

/// A task and the channel of its chunks.
struct Running {
    chunks: realm_handover::Receiver<Result<Chunk, Error>>,
    _task: Task,
}

/// Returns a task's chunk; drops the task after the last one.
fn of_task(running: &mut Option<Box<Running>>, chunk: Option<Result<Chunk, Error>>) -> Result<Chunk, Error> {
    let chunk = chunk.unwrap_or_else(|| Err(stopped()));
    if chunk.as_ref().map_or(true, |chunk| chunk.finish.is_some()) {
        *running = None;
    }
    chunk
}

type Next = Result<Result<realm_engine::Chunk, realm_sandbox::Error>, Error>;

/// Returns a program's chunk; drops the program's reply after the last one.
fn of_reply(
    reply: &mut Option<Box<realm_sandbox::Reply>>,
    chunk: Next,
) -> Result<realm_engine::Chunk, Error> {
    let chunk = chunk.and_then(|chunk| chunk.map_err(Error::from));
    if chunk.as_ref().map_or(true, |chunk| chunk.finish.is_some()) {
        *reply = None;
    }
    chunk
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
