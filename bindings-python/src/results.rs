//! Results of requests.

use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::errors::{Result, invalid};
use crate::record::{Fields, record, with_methods};
use crate::text::Text;

record! {
    /// The numbers of tokens used.
    Usage {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Those of the prompt's tokens that an earlier request computed.
        cached_tokens: usize,
        /// Tokens generated, including an end token.
        generated_tokens: usize,
        /// Those of the generated tokens that belong to the model's thought.
        reasoning_tokens: usize,
        /// Tokens computed on the chance that they follow.
        draft_tokens: usize,
        /// Those of the draft tokens that did follow.
        accepted_tokens: usize,
    }
}

record! {
    /// The time used, in seconds.
    Timings {
        /// The time of waiting for a place in the batch.
        queued: f64,
        /// The time from there to the first token.
        prefill: f64,
        /// The time from the first token to the last.
        decode: f64,
    }
}

record! {
    /// A token and its log-probability.
    TokenLogprob {
        /// The token's id.
        id: u32,
        /// The log-probability, in nats.
        logprob: f32,
    }
}

record! {
    /// A generated token.
    Token {
        /// Its id.
        id: u32,
        /// Its log-probability in nats, if the request asked for it.
        logprob: Option<f32>,
        /// The likeliest tokens in its place, if the request asked for them.
        top: Vec<Py<TokenLogprob>>,
    }
}

record! {
    /// A tool call that the model asks for.
    ToolCall {
        /// The id that the result, a message of the role `tool`, refers to.
        id: String,
        /// The tool's name. The model may make up a name that no tool has.
        name: String,
        /// The arguments: a JSON object, as a `str`. It may not fit the tool's schema.
        arguments: String,
    }
}

impl Usage {
    fn new(py: Python<'_>, usage: realm::Usage) -> PyResult<Py<Self>> {
        let realm::Usage {
            prompt_tokens,
            cached_tokens,
            generated_tokens,
            reasoning_tokens,
            draft_tokens,
            accepted_tokens,
        } = usage;
        let usage = Self {
            prompt_tokens,
            cached_tokens,
            generated_tokens,
            reasoning_tokens,
            draft_tokens,
            accepted_tokens,
        };
        Py::new(py, usage)
    }

    fn core(&self) -> realm::Usage {
        realm::Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            generated_tokens: self.generated_tokens,
            reasoning_tokens: self.reasoning_tokens,
            draft_tokens: self.draft_tokens,
            accepted_tokens: self.accepted_tokens,
        }
    }
}

impl Timings {
    fn new(py: Python<'_>, timings: realm::Timings) -> PyResult<Py<Self>> {
        let (queued, prefill, decode) = (timings.queued, timings.prefill, timings.decode);
        let [queued, prefill, decode] = [queued, prefill, decode].map(|time| time.as_secs_f64());
        Py::new(py, Self { queued, prefill, decode })
    }

    fn core(&self) -> PyResult<realm::Timings> {
        let time = |seconds| Duration::try_from_secs_f64(seconds).map_err(|e| invalid(&e.to_string()));
        Ok(realm::Timings {
            queued: time(self.queued)?,
            prefill: time(self.prefill)?,
            decode: time(self.decode)?,
        })
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

fn core_tokens(tokens: &[Bound<'_, Token>]) -> Vec<realm::Token> {
    let likely = |t: &Py<TokenLogprob>| realm::TokenLogprob { id: t.get().id, logprob: t.get().logprob };
    let token = |token: &Bound<'_, Token>| {
        let Token { id, logprob, top } = token.get();
        realm::Token { id: *id, logprob: *logprob, top: top.iter().map(likely).collect() }
    };
    tokens.iter().map(token).collect()
}

fn core_calls(calls: &[Bound<'_, ToolCall>]) -> Vec<realm::ToolCall> {
    let call = |call: &Bound<'_, ToolCall>| {
        let ToolCall { id, name, arguments } = call.get();
        realm::ToolCall { id: id.clone(), name: name.clone(), arguments: arguments.clone() }
    };
    calls.iter().map(call).collect()
}

fn tool_calls(py: Python<'_>, calls: &[realm::ToolCall]) -> PyResult<Vec<Py<ToolCall>>> {
    let call = |call: &realm::ToolCall| {
        let realm::ToolCall { id, name, arguments } = call.clone();
        Py::new(py, ToolCall { id, name, arguments })
    };
    calls.iter().map(call).collect()
}

/// The attributes of an answer, whole or in chunks.
const ANSWER: &[&str] =
    &["text", "tokens", "tool_calls", "finish_reason", "usage", "timings", "reasoning", "warnings"];

/// A part of an answer. `finish_reason`, `usage` and `timings` are `None` in all chunks but the last one.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Chunk(pub(crate) realm::Chunk);

impl Fields for Chunk {
    const FIELDS: &'static [&'static str] = ANSWER;
}

with_methods! { Chunk {
    #[new]
    #[pyo3(signature = (text, tokens, tool_calls, finish_reason=None, usage=None, timings=None, reasoning=Text::default(), warnings=vec![]))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        text: Text,
        tokens: Vec<Bound<'_, Token>>,
        tool_calls: Vec<Bound<'_, ToolCall>>,
        finish_reason: Option<&str>,
        usage: Option<Bound<'_, Usage>>,
        timings: Option<Bound<'_, Timings>>,
        reasoning: Text,
        warnings: Vec<String>,
    ) -> Result<Self> {
        let finish = match finish_reason {
            None => None,
            Some(reason) => Some(realm::Finish {
                reason: reason.parse()?,
                usage: usage.map(|usage| usage.get().core()).unwrap_or_default(),
                timings: timings.map(|timings| timings.get().core()).transpose()?.unwrap_or_default(),
            }),
        };
        let (tokens, tool_calls) = (core_tokens(&tokens), core_calls(&tool_calls));
        Ok(Self(realm::Chunk { text: text.0, reasoning: reasoning.0, tokens, tool_calls, warnings, finish }))
    }

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

    /// In the first chunk, options of the request that the model could serve only in another way.
    #[getter]
    fn warnings(&self) -> Vec<&str> {
        self.0.warnings.iter().map(String::as_str).collect()
    }

    /// New tokens.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<Py<Token>>> {
        tokens(py, &self.0.tokens)
    }

    /// New tool calls, each complete. Their spelling is not part of the text.
    #[getter]
    fn tool_calls(&self, py: Python<'_>) -> PyResult<Vec<Py<ToolCall>>> {
        tool_calls(py, &self.0.tool_calls)
    }

    /// `"stop"` (an end token, a stop string or the grammar's end), `"length"`, or `"tool_calls"`: a stop
    /// after tool calls.
    #[getter]
    fn finish_reason(&self) -> Option<&'static str> {
        self.0.finish.as_ref().map(|finish| finish.reason.as_str())
    }

    /// The number of tokens used.
    #[getter]
    fn usage(&self, py: Python<'_>) -> PyResult<Option<Py<Usage>>> {
        self.0.finish.as_ref().map(|finish| Usage::new(py, finish.usage)).transpose()
    }

    /// The time used.
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
} }

/// A whole answer.
#[pyclass(frozen, module = "realm", skip_from_py_object)]
pub(crate) struct Completion(pub(crate) realm::Completion);

impl Fields for Completion {
    const FIELDS: &'static [&'static str] = ANSWER;
}

with_methods! { Completion {
    #[new]
    #[pyo3(signature = (text, tokens, tool_calls, finish_reason, usage, timings, reasoning=Text::default(), warnings=vec![]))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        text: Text,
        tokens: Vec<Bound<'_, Token>>,
        tool_calls: Vec<Bound<'_, ToolCall>>,
        finish_reason: &str,
        usage: Bound<'_, Usage>,
        timings: Bound<'_, Timings>,
        reasoning: Text,
        warnings: Vec<String>,
    ) -> Result<Self> {
        let (tokens, tool_calls) = (core_tokens(&tokens), core_calls(&tool_calls));
        let (usage, timings) = (usage.get().core(), timings.get().core()?);
        let finish_reason = finish_reason.parse()?;
        let (text, reasoning) = (text.0, reasoning.0);
        Ok(Self(realm::Completion {
            text,
            reasoning,
            tokens,
            tool_calls,
            warnings,
            finish_reason,
            usage,
            timings,
        }))
    }

    /// The text, without the stop string that ended it, without tool calls and without thoughts.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// The model's thought before its answer; empty if it had none.
    #[getter]
    fn reasoning(&self) -> &str {
        &self.0.reasoning
    }

    /// Options of the request that the model could serve only in another way, for example tools that its chat
    /// template does not know. Sentences for a log.
    #[getter]
    fn warnings(&self) -> Vec<&str> {
        self.0.warnings.iter().map(String::as_str).collect()
    }

    /// The tokens, including an end token.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<Py<Token>>> {
        tokens(py, &self.0.tokens)
    }

    /// The tool calls of the answer. Realm does not run them.
    #[getter]
    fn tool_calls(&self, py: Python<'_>) -> PyResult<Vec<Py<ToolCall>>> {
        tool_calls(py, &self.0.tool_calls)
    }

    /// `"stop"` (an end token, a stop string or the grammar's end), `"length"`, or `"tool_calls"`: a stop
    /// after tool calls.
    #[getter]
    fn finish_reason(&self) -> &'static str {
        self.0.finish_reason.as_str()
    }

    /// The number of tokens used.
    #[getter]
    fn usage(&self, py: Python<'_>) -> PyResult<Py<Usage>> {
        Usage::new(py, self.0.usage)
    }

    /// The time used.
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
} }

impl Completion {
    pub(crate) fn convert(py: Python<'_>, completion: realm::Completion) -> PyResult<Py<PyAny>> {
        Self(completion).into_py_any(py)
    }
}
