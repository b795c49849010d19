//! Running requests and what comes out of them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyStopAsyncIteration, PyTypeError};
use pyo3::prelude::*;
use realm::FinishReason;

use crate::errors::{Result, exception, of_code};
use crate::handle::dispose;
use crate::process::Process;
use crate::record::record;
use crate::wait::{Awaitable, wait};

record! {
    /// Tokens used.
    Usage {
        /// Of the prompt.
        prompt_tokens: usize,
        /// Of these, how many were computed by an earlier request.
        cached_tokens: usize,
        /// Generated, an end token included.
        generated_tokens: usize,
        /// Computed on the chance that they would follow.
        draft_tokens: usize,
        /// Of these, how many did.
        accepted_tokens: usize,
    }
}

record! {
    /// Time used, in seconds.
    Timings {
        /// Waiting for a place in the batch.
        queued: f64,
        /// From there to the first token.
        prefill: f64,
        /// From the first token to the last.
        decode: f64,
    }
}

record! {
    /// A token that might have come.
    TokenLogprob {
        /// The token's id.
        id: u32,
        /// In nats.
        logprob: f32,
    }
}

record! {
    /// A generated token.
    Token {
        /// Its id.
        id: u32,
        /// Its log-probability in nats, where the request asked for it.
        logprob: Option<f32>,
        /// The likeliest tokens in its place, where the request asked for them.
        top: Vec<Py<TokenLogprob>>,
    }
}

impl Usage {
    fn new(py: Python<'_>, usage: realm::Usage) -> PyResult<Py<Self>> {
        let realm::Usage { prompt_tokens, cached_tokens, generated_tokens, draft_tokens, accepted_tokens } =
            usage;
        Py::new(py, Self { prompt_tokens, cached_tokens, generated_tokens, draft_tokens, accepted_tokens })
    }
}

impl Timings {
    fn new(py: Python<'_>, timings: realm::Timings) -> PyResult<Py<Self>> {
        let (queued, prefill, decode) = (timings.queued, timings.prefill, timings.decode);
        let [queued, prefill, decode] = [queued, prefill, decode].map(|time| time.as_secs_f64());
        Py::new(py, Self { queued, prefill, decode })
    }
}

pub(crate) fn logprobs(py: Python<'_>, top: &[realm::TokenLogprob]) -> PyResult<Vec<Py<TokenLogprob>>> {
    top.iter().map(|t| Py::new(py, TokenLogprob { id: t.id, logprob: t.logprob })).collect()
}

fn tokens(py: Python<'_>, tokens: &[realm::Token]) -> PyResult<Vec<Py<Token>>> {
    let token = |token: &realm::Token| {
        Py::new(py, Token { id: token.id, logprob: token.logprob, top: logprobs(py, &token.top)? })
    };
    tokens.iter().map(token).collect()
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// A piece of an answer. `finish_reason`, `usage` and `timings` are `None` in all but the last one.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Chunk(realm::Chunk);

#[pymethods]
impl Chunk {
    /// New text; may be empty while a character or a stop string is unfinished.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// New tokens.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<Py<Token>>> {
        tokens(py, &self.0.tokens)
    }

    /// `"stop"` (an end token, a stop string or the grammar's end) or `"length"`.
    #[getter]
    fn finish_reason(&self) -> Option<&'static str> {
        self.0.finish.as_ref().map(|finish| reason(finish.reason))
    }

    /// Tokens used.
    #[getter]
    fn usage(&self, py: Python<'_>) -> PyResult<Option<Py<Usage>>> {
        self.0.finish.as_ref().map(|finish| Usage::new(py, finish.usage)).transpose()
    }

    /// Time used.
    #[getter]
    fn timings(&self, py: Python<'_>) -> PyResult<Option<Py<Timings>>> {
        self.0.finish.as_ref().map(|finish| Timings::new(py, finish.timings)).transpose()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!(
            "Chunk(text={}, finish_reason={})",
            slf.getattr("text")?.repr()?,
            slf.getattr("finish_reason")?.repr()?
        ))
    }
}

/// A whole answer.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Completion(realm::Completion);

#[pymethods]
impl Completion {
    /// The text, without the stop string that ended it.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// The tokens, an end token included.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<Py<Token>>> {
        tokens(py, &self.0.tokens)
    }

    /// `"stop"` (an end token, a stop string or the grammar's end) or `"length"`.
    #[getter]
    fn finish_reason(&self) -> &'static str {
        reason(self.0.finish_reason)
    }

    /// Tokens used.
    #[getter]
    fn usage(&self, py: Python<'_>) -> PyResult<Py<Usage>> {
        Usage::new(py, self.0.usage)
    }

    /// Time used.
    #[getter]
    fn timings(&self, py: Python<'_>) -> PyResult<Py<Timings>> {
        Timings::new(py, self.0.timings)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!(
            "Completion(text={}, finish_reason={}, usage={})",
            slf.getattr("text")?.repr()?,
            slf.getattr("finish_reason")?.repr()?,
            slf.getattr("usage")?.repr()?
        ))
    }

    fn __str__(&self) -> &str {
        &self.0.text
    }
}

impl Completion {
    pub(crate) fn convert(py: Python<'_>, completion: realm::Completion) -> PyResult<Py<PyAny>> {
        Self(completion).into_py_any(py)
    }
}

/// A running request: iterate over it with `for` or `async for`. Leaving its `with` block, `cancel()`, or dropping it ends
/// the request and frees its part of the KV cache at once. One reader at a time; `cancel` works from any thread.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Generation {
    shared: Arc<Shared>,
    process: Process,
}

/// A generation between polls; whoever polls holds the lock for so long and no longer.
struct Shared(Mutex<State>);

struct State {
    running: Running,
    /// Of whoever waits, to tell them of `cancel`.
    reader: Option<Waker>,
}

type Finish = Pin<Box<dyn Future<Output = std::result::Result<realm::Completion, realm::Error>> + Send>>;

enum Running {
    Chunks(Box<realm::Generation>),
    Finish(Finish),
    Ended,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<realm::Chunk, realm::Error>>> {
        let mut state = self.lock();
        let Running::Chunks(generation) = &mut state.running else { return Poll::Ready(None) };
        let next = std::pin::pin!(generation.next_async()).poll(context);
        match &next {
            Poll::Pending => state.reader = Some(context.waker().clone()),
            Poll::Ready(None) => state.running = Running::Ended,
            Poll::Ready(Some(_)) => {}
        }
        next
    }

    /// The error is `None` if there is nothing to finish. No exception yet: the lock is held, and whoever has the GIL may
    /// wait for it.
    fn poll_finish(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<realm::Completion, Option<realm::Error>>> {
        let mut state = self.lock();
        let Running::Finish(finish) = &mut state.running else { return Poll::Ready(Err(None)) };
        let result = finish.as_mut().poll(context).map_err(Some);
        match &result {
            Poll::Pending => state.reader = Some(context.waker().clone()),
            Poll::Ready(_) => state.running = Running::Ended,
        }
        result
    }

    /// From chunks to the end of all.
    fn start_finish(&self) {
        let mut state = self.lock();
        if let Running::Chunks(generation) = std::mem::replace(&mut state.running, Running::Ended) {
            state.running = Running::Finish(Box::pin(generation.finish_async()));
        }
    }

    fn cancel(&self) -> Running {
        let mut state = self.lock();
        let running = std::mem::replace(&mut state.running, Running::Ended);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        running
    }
}

impl Generation {
    pub(crate) fn new(generation: realm::Generation) -> Self {
        let state = State { running: Running::Chunks(Box::new(generation)), reader: None };
        Self { shared: Arc::new(Shared(Mutex::new(state))), process: Process::current() }
    }

    pub(crate) fn convert(py: Python<'_>, generation: realm::Generation) -> PyResult<Py<PyAny>> {
        Self::new(generation).into_py_any(py)
    }

    fn stop(&self, py: Python<'_>) {
        // In a forked child the lock may be held by a thread that is not there.
        if self.process.is_current() {
            dispose(py, self.process, self.shared.cancel());
        }
    }
}

#[pymethods]
impl Generation {
    /// Ends the request; nothing more comes out of it.
    fn cancel(&self, py: Python<'_>) {
        self.stop(py);
    }

    /// As `cancel`.
    fn close(&self, py: Python<'_>) {
        self.stop(py);
    }

    /// As `cancel`, for `contextlib.aclosing`.
    fn aclose(&self, py: Python<'_>) -> Awaitable {
        self.stop(py);
        done()
    }

    /// Waits for the end and puts the rest together.
    pub(crate) fn finish(&self, py: Python<'_>) -> Result<Completion> {
        self.process.check("Generation")?;
        self.shared.start_finish();
        let finished = wait(py, poll_fn(|context| self.shared.poll_finish(context)));
        if finished.is_err() {
            self.stop(py);
        }
        Ok(Completion(finished?.map_err(unfinished)?))
    }

    /// As `finish`, to be awaited.
    fn finish_async(&self) -> PyResult<Awaitable> {
        self.process.check("Generation")?;
        let shared = Arc::clone(&self.shared);
        let future = async move {
            shared.start_finish();
            poll_fn(|context| shared.poll_finish(context)).await.map_err(unfinished)
        };
        Ok(Awaitable::new(future, Completion::convert))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<Chunk>> {
        self.process.check("Generation")?;
        match wait(py, poll_fn(|context| self.shared.poll_next(context))) {
            Ok(next) => Ok(next.transpose()?.map(Chunk)),
            // KeyboardInterrupt and its like.
            Err(error) => {
                self.stop(py);
                Err(error.into())
            }
        }
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> PyResult<Awaitable> {
        self.process.check("Generation")?;
        let shared = Arc::clone(&self.shared);
        let future = async move {
            match poll_fn(|context| shared.poll_next(context)).await {
                Some(chunk) => chunk.map(Chunk).map_err(|error| exception(&error)),
                None => Err(PyStopAsyncIteration::new_err(())),
            }
        };
        Ok(Awaitable::new(future, |py, chunk| chunk.into_py_any(py)))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.stop(py);
    }

    fn __aenter__(slf: Py<Self>) -> Awaitable {
        Awaitable::new(async move { Ok::<_, PyErr>(slf) }, |_, slf| Ok(slf.into_any()))
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> Awaitable {
        self.stop(py);
        done()
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("cannot pickle a Generation: it is a running request of this process"))
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let process = self.process;
        if process.is_current() {
            let mut running = Some(self.shared.cancel());
            Python::try_attach(|py| running.take().map(|running| dispose(py, process, running)));
            // At the interpreter's end the operating system takes everything back.
            std::mem::forget(running);
        } else {
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

fn unfinished(error: Option<realm::Error>) -> PyErr {
    let why = "the generation was cancelled, or has been read to its end";
    error.map_or_else(|| of_code("cancelled", why), |error| exception(&error))
}

/// Something to await that is there already.
fn done() -> Awaitable {
    Awaitable::new(async { Ok::<_, PyErr>(()) }, |py, ()| Ok(py.None()))
}
