//! Running requests and what comes out of them.

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use realm::SharedGeneration;

use crate::errors::Result;
use crate::handle::{Handle, not_picklable};
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
        /// Of these, how many belong to the model's thought.
        reasoning_tokens: usize,
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

record! {
    /// A call of a tool that the model asks for.
    ToolCall {
        /// What the result names it by, in a message of the role `tool`.
        id: String,
        /// The tool's name. Nothing but the prompt keeps a model from making one up.
        name: String,
        /// The arguments: a JSON object, as a `str`. It may not fit the tool's schema.
        arguments: String,
    }
}

impl Usage {
    fn new(py: Python<'_>, usage: realm::Usage) -> PyResult<Py<Self>> {
        Py::new(
            py,
            Self {
                prompt_tokens: usage.prompt_tokens,
                cached_tokens: usage.cached_tokens,
                generated_tokens: usage.generated_tokens,
                reasoning_tokens: usage.reasoning_tokens,
                draft_tokens: usage.draft_tokens,
                accepted_tokens: usage.accepted_tokens,
            },
        )
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

fn tool_calls(py: Python<'_>, calls: &[realm::ToolCall]) -> PyResult<Vec<Py<ToolCall>>> {
    let call = |call: &realm::ToolCall| {
        let realm::ToolCall { id, name, arguments } = call.clone();
        Py::new(py, ToolCall { id, name, arguments })
    };
    calls.iter().map(call).collect()
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

    /// New text of the model's thought, which is not part of `text`.
    #[getter]
    fn reasoning(&self) -> &str {
        &self.0.reasoning
    }

    /// New tokens.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<Py<Token>>> {
        tokens(py, &self.0.tokens)
    }

    /// Tools that the model calls, each in one piece. Their spelling is not part of the text.
    #[getter]
    fn tool_calls(&self, py: Python<'_>) -> PyResult<Vec<Py<ToolCall>>> {
        tool_calls(py, &self.0.tool_calls)
    }

    /// In the first chunk, what the request asked for and the model could only do in another way.
    #[getter]
    fn warnings(&self) -> Vec<&str> {
        self.0.warnings.iter().map(String::as_str).collect()
    }

    /// `"stop"` (an end token, a stop string or the grammar's end), `"length"`, or `"tool_calls"`: a stop after calls.
    #[getter]
    fn finish_reason(&self) -> Option<&'static str> {
        self.0.finish.as_ref().map(|finish| finish.reason.as_str())
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
    /// The text, without the stop string that ended it, without tool calls and without thoughts.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// What the model thought before its answer; empty if it did not.
    #[getter]
    fn reasoning(&self) -> &str {
        &self.0.reasoning
    }

    /// The tokens, an end token included.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<Py<Token>>> {
        tokens(py, &self.0.tokens)
    }

    /// Tools that the model calls. Realm calls nothing.
    #[getter]
    fn tool_calls(&self, py: Python<'_>) -> PyResult<Vec<Py<ToolCall>>> {
        tool_calls(py, &self.0.tool_calls)
    }

    /// What the request asked for and the model could only do in another way: that its chat template knows no tools, for
    /// example. Sentences for a log.
    #[getter]
    fn warnings(&self) -> Vec<&str> {
        self.0.warnings.iter().map(String::as_str).collect()
    }

    /// `"stop"` (an end token, a stop string or the grammar's end), `"length"`, or `"tool_calls"`: a stop after calls.
    #[getter]
    fn finish_reason(&self) -> &'static str {
        self.0.finish_reason.as_str()
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
/// the request and frees its part of the KV cache at once. Each chunk goes to one reader; `cancel` works from any thread.
#[pyclass(frozen, module = "realm")]
pub(crate) struct Generation {
    handle: Handle<SharedGeneration>,
}

impl Generation {
    pub(crate) fn new(generation: realm::Generation) -> Self {
        Self { handle: Handle::new("Generation", generation.into()) }
    }

    pub(crate) fn convert(py: Python<'_>, generation: realm::Generation) -> PyResult<Py<PyAny>> {
        Self::new(generation).into_py_any(py)
    }

    fn stop(&self, py: Python<'_>) {
        // In a forked child there is nothing to end.
        if let Ok(generation) = self.handle.get() {
            py.detach(|| generation.cancel());
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
        let generation = self.handle.get()?;
        let finished = wait(py, generation.finish_async());
        if finished.is_err() {
            // KeyboardInterrupt and its like.
            self.stop(py);
        }
        Ok(Completion(finished??))
    }

    /// As `finish`, to be awaited.
    fn finish_async(&self) -> PyResult<Awaitable> {
        let generation = self.handle.get()?;
        Ok(Awaitable::new(async move { generation.finish_async().await }, Completion::convert))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<Chunk>> {
        let generation = self.handle.get()?;
        let next = wait(py, generation.next_async());
        if next.is_err() {
            // KeyboardInterrupt and its like.
            self.stop(py);
        }
        Ok(next?.transpose()?.map(Chunk))
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> PyResult<Awaitable> {
        let generation = self.handle.get()?;
        let next = async move { generation.next_async().await.transpose() };
        Ok(Awaitable::new(next, |py, chunk| match chunk {
            Some(chunk) => Chunk(chunk).into_py_any(py),
            None => Err(PyStopAsyncIteration::new_err(())),
        }))
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
        Err(not_picklable("Generation"))
    }
}

/// Something to await that is there already.
fn done() -> Awaitable {
    Awaitable::new(async { Ok::<_, PyErr>(()) }, |py, ()| Ok(py.None()))
}
