//! Chat sessions.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyMapping};
use realm::{ChatOptions, ChatTool, Message, Prompt};

use crate::arguments::count;
use crate::callbacks::Callbacks;
use crate::errors::Result;
use crate::generation::Generation;
use crate::grants::{How, tool, tool_functions};
use crate::handle::{Handle, not_picklable};
use crate::model::Model;
use crate::processors::{Keep, Raised};
use crate::request::{json, list, options};
use crate::results::Completion;
use crate::text::Text;
use crate::wait::Awaitable;

/// A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room
/// when the context is full.
///
///     >>> session = realm.ChatSession(model, system="You are brief.", tools=[weather], temperature=0)
///     >>> session.ask("What is the weather in Paris?").text
///     >>> for chunk in session.stream("And tomorrow?"):
///     ...     print(chunk.text, end="")
///     >>> json.dumps(session.messages)
///
/// - `system`: instructions for the model before the conversation; or `messages`: the beginning of the
///   conversation.
/// - `tools`: functions that the model may call, with keyword arguments. A function's arguments are read from
///   its signature, type hints and docstring; or a pair gives a definition in OpenAI's format and the
///   function. The model reads the result, JSON or text, or the text of an exception. A coroutine function is
///   awaited on the event loop that runs when the session is created. A definition without a function is a
///   tool that the application runs itself: a call of it ends the answer.
/// - `max_rounds` (8): the most rounds of tool calls for one question; after them the model must answer in
///   words.
/// - `overflow`: `"drop_oldest"` drops the oldest turns when the conversation no longer fits in the context,
///   and `dropped_messages` counts the dropped messages; `"refuse"` raises `LimitExceededError`.
/// - all others: options of `Model.generate`, for each answer.
///
/// A question that fails or is cancelled leaves the conversation as it was before the question. The session
/// answers one question at a time.
#[pyclass(frozen, module = "realm")]
pub(crate) struct ChatSession {
    handle: Handle<realm::ChatSession>,
    callbacks: Mutex<Vec<Py<Callbacks>>>,
    raised: Raised,
}

impl ChatSession {
    fn keep(&self, py: Python<'_>) -> Keep {
        let callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
        Keep {
            callbacks: callbacks.iter().map(|each| each.clone_ref(py)).collect(),
            raised: self.raised.clone(),
        }
    }

    fn end(&self, py: Python<'_>) {
        let callbacks = std::mem::take(&mut *self.callbacks.lock().unwrap_or_else(PoisonError::into_inner));
        drop(callbacks);
        self.handle.close(py);
    }
}

/// Converts a question: a text, or a message.
fn question(value: &Bound<'_, PyAny>) -> PyResult<Message> {
    if let Ok(Text(text)) = value.extract() {
        return Ok(Message::user(text));
    }
    match json(value) {
        Ok(message) if message.is_object() => Ok(message.into()),
        _ => Err(PyTypeError::new_err(
            "a question is a str, or a message such as {'role': 'user', 'content': '...'}",
        )),
    }
}

/// Converts tools, with their functions.
fn tools(given: &Bound<'_, PyAny>, options: &mut ChatOptions, keep: &mut Keep) -> PyResult<()> {
    static DEFINITION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = given.py();
    let (mut functions, mut definitions) = (Vec::new(), Vec::new());
    for each in given.try_iter()? {
        let each = each?;
        if each.cast::<PyMapping>().is_ok() {
            options.request.tools.push(json(&each)?);
            continue;
        }
        let (definition, function) = if each.is_callable() {
            (DEFINITION.import(py, "realm.tools", "definition")?.call1((&each,))?, each)
        } else {
            each.extract().map_err(|_| {
                PyTypeError::new_err(
                    "a tool is a function, a definition, or a pair of a definition and a function",
                )
            })?
        };
        let definition = json(&definition)?;
        functions.extend(tool_functions(&definition.to_string(), &function)?);
        definitions.push(definition);
    }
    let (owner, calls) = Callbacks::new(py, functions)?;
    let mut calls = calls.into_iter();
    for definition in definitions {
        if let (Some(function), Some(event_loop)) = (calls.next(), calls.next()) {
            let run = tool(function, event_loop, How::Keywords);
            options
                .tools
                .push(ChatTool::new_async(definition, run).map_err(|e| crate::errors::exception(&e))?);
        }
    }
    keep.callbacks.push(owner);
    Ok(())
}

#[pymethods]
impl ChatSession {
    #[new]
    #[pyo3(signature = (model, *, system=None, messages=None, tools=None, max_rounds=None, overflow=None, **options))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        model: &Model,
        system: Option<Text>,
        messages: Option<&Bound<'_, PyAny>>,
        tools: Option<&Bound<'_, PyAny>>,
        max_rounds: Option<&Bound<'_, PyAny>>,
        overflow: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Self> {
        let mut beginning: Vec<Message> =
            system.map(|Text(text)| Message::system(text)).into_iter().collect();
        if let Some(messages) = messages {
            beginning.extend(list(messages)?.into_iter().map(Message::from));
        }
        let (request, mut keep) = self::options(Prompt::Chat(beginning), options)?;
        keep.callbacks.extend(model.granted_now(py));
        let mut chat = ChatOptions { request, ..ChatOptions::default() };
        if let Some(tools) = tools {
            self::tools(tools, &mut chat, &mut keep)?;
        }
        if let Some(rounds) = count("max_rounds", max_rounds)? {
            chat.max_rounds = rounds;
        }
        if let Some(overflow) = overflow {
            chat.overflow = overflow.parse()?;
        }
        let session = realm::ChatSession::new(&model.handle.get()?, chat)?;
        let (callbacks, raised) = (Mutex::new(keep.callbacks), keep.raised);
        Ok(Self { handle: Handle::new("ChatSession", session), callbacks, raised })
    }

    /// Asks a question and waits for the answer. Its text is that of all rounds, and its usage their sum.
    fn ask(&self, py: Python<'_>, question: &Bound<'_, PyAny>) -> Result<Completion> {
        self.stream(py, question)?.finish(py)
    }

    /// Same as `ask`, to be awaited.
    fn ask_async(&self, py: Python<'_>, question: &Bound<'_, PyAny>) -> Result<Awaitable> {
        let (session, question, keep) = (self.handle.get()?, self::question(question)?, self.keep(py));
        let raised = keep.raised;
        let future =
            async move { session.ask_async(question).await.map_err(|error| raised.instead_of(error)) };
        Ok(Awaitable::new(future, Completion::convert).holding(keep.callbacks))
    }

    /// Asks a question and returns the running answer at once. Cancelling or dropping it removes the question
    /// again.
    fn stream(&self, py: Python<'_>, question: &Bound<'_, PyAny>) -> Result<Generation> {
        let (session, question) = (self.handle.get()?, self::question(question)?);
        let keep = self.keep(py);
        Ok(Generation::new(py.detach(|| session.stream(question))?, keep))
    }

    /// The messages so far, as a list of dicts in OpenAI's format. Assigning messages, for example those that
    /// `json.dumps` saved, continues from them.
    #[getter]
    fn messages<'py>(&self, py: Python<'py>) -> Result<Vec<Bound<'py, PyAny>>> {
        let messages = self.handle.get()?.messages();
        let one = |message: &Message| {
            pythonize::pythonize(py, message.as_json()).map_err(|e| PyTypeError::new_err(e.to_string()))
        };
        Ok(messages.iter().map(one).collect::<PyResult<_>>()?)
    }

    #[setter]
    fn set_messages(&self, messages: &Bound<'_, PyAny>) -> Result<()> {
        let messages = list(messages)?.into_iter().map(Message::from).collect();
        Ok(self.handle.get()?.set_messages(messages)?)
    }

    /// Removes the last question and everything that answered it; `False` if there is none.
    fn undo(&self) -> Result<bool> {
        Ok(self.handle.get()?.undo()?)
    }

    /// Removes all messages except the system messages at the beginning.
    fn clear(&self) -> Result<()> {
        Ok(self.handle.get()?.clear()?)
    }

    /// The number of messages dropped to make room in the context, since the beginning or the last `clear()`.
    #[getter]
    fn dropped_messages(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.dropped_messages())
    }

    /// True if a question is being answered.
    #[getter]
    fn busy(&self) -> PyResult<bool> {
        Ok(self.handle.get()?.is_busy())
    }

    /// Releases the session.
    fn close(&self, py: Python<'_>) {
        self.end(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.end(py);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // The functions clear themselves.
        let Ok(callbacks) = self.callbacks.try_lock() else { return Ok(()) };
        callbacks.iter().try_for_each(|each| visit.call(each))
    }

    fn __repr__(&self) -> String {
        match self.handle.get() {
            Ok(session) => format!("<realm.ChatSession of {} messages>", session.messages().len()),
            Err(_) => "<realm.ChatSession, closed>".into(),
        }
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("ChatSession"))
    }
}
