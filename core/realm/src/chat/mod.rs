//! Conversations that keep their messages and run tools.

mod turn;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::error::ErrorCode;
use crate::history;
use crate::task::{Task, TaskState};
use crate::tools::name_of;
use crate::{Completion, Error, Generation, Message, Model, Prompt, Request};

/// The most chunks that a reader may be behind before the conversation waits for it.
const CHANNEL: usize = 64;

/// The options of a [`ChatSession`].
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// The options of each answer. Its prompt is the beginning of the conversation: a system message, or
    /// earlier messages too. Its `tools` are those that the application runs itself; the session runs those
    /// in [`tools`](Self::tools).
    pub request: Request,
    /// The tools that the session runs.
    pub tools: Vec<ChatTool>,
    /// The most rounds of tool calls for one question. After them the model is asked once more, without
    /// tools, so that it answers in words.
    pub max_rounds: usize,
    /// The rule for a conversation that no longer fits in the context.
    pub overflow: Overflow,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self { request: Request::chat([]), tools: Vec::new(), max_rounds: 8, overflow: Overflow::default() }
    }
}

/// The rule for a conversation that no longer fits in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Drops the oldest turns, each a question with everything that answered it. System messages stay.
    ///
    /// [`ChatSession::dropped_messages`] counts the dropped messages.
    #[default]
    DropOldest,
    /// Refuses the question with `limit-exceeded`.
    Refuse,
}

impl std::str::FromStr for Overflow {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "drop_oldest" => Ok(Self::DropOldest),
            "refuse" => Ok(Self::Refuse),
            other => {
                let why = format!("overflow is `drop_oldest` or `refuse`, not `{other}`");
                Err(Error::new(ErrorCode::InvalidArgument, why))
            }
        }
    }
}

/// The result of a tool: JSON, or an error message.
type Returned = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// A function of the application that gets a call's arguments as JSON.
type Call = Arc<dyn Fn(String) -> Returned + Send + Sync>;

/// A tool that a [`ChatSession`] runs: its definition in OpenAI's format, and the application's function.
#[derive(Clone)]
pub struct ChatTool {
    definition: Value,
    name: String,
    call: Call,
}

impl ChatTool {
    /// Creates a tool from a function that receives its arguments as JSON text and returns JSON text. If the
    /// function returns an error, the model reads its message.
    ///
    /// # Errors
    /// `invalid-argument` for a definition without a name.
    pub fn new(
        definition: Value,
        call: impl Fn(String) -> Result<String, String> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::new_async(definition, move |arguments| std::future::ready(call(arguments)))
    }

    /// Same as [`new`](Self::new), for an async function.
    ///
    /// # Errors
    /// `invalid-argument` for a definition without a name.
    pub fn new_async<F>(
        definition: Value,
        call: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> Result<Self, Error>
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        let Some(name) = name_of(&definition).map(str::to_owned) else {
            let why =
                "a tool's definition needs a name: {\"type\": \"function\", \"function\": {\"name\": …}}";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        };
        Ok(Self { definition, name, call: Arc::new(move |arguments| Box::pin(call(arguments))) })
    }
}

impl fmt::Debug for ChatTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTool").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room
/// when the context is full. A clone is cheap and is the same conversation. It answers one question at a
/// time.
///
/// A question that fails, is cancelled or is dropped leaves the conversation as it was before the question.
#[derive(Clone)]
pub struct ChatSession(Arc<Session>);

struct Session {
    model: Model,
    options: ChatOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    dropped: usize,
    /// The task that answers the current question.
    running: Option<TaskState>,
    /// Counts questions: only the latest one may add to the messages.
    turn: u64,
}

impl State {
    fn is_busy(&self) -> bool {
        self.running.as_ref().is_some_and(|task| !task.is_over())
    }

    /// Returns the conversation if no question is being answered.
    ///
    /// # Errors
    /// `invalid-argument` while a question is being answered.
    fn idle(&mut self) -> Result<&mut Self, Error> {
        if self.is_busy() {
            let why = "the session is answering a question: read that answer to its end or cancel it first";
            return Err(Error::new(ErrorCode::InvalidArgument, why));
        }
        Ok(self)
    }
}

impl ChatSession {
    /// Starts a conversation.
    ///
    /// # Errors
    /// `unsupported` for a model without a chat template; `invalid-argument` for a prompt that is not a
    /// conversation, for two tools of the same name, and for `max_rounds` of 0 with tools.
    pub fn new(model: &Model, mut options: ChatOptions) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorCode::InvalidArgument, why));
        let Prompt::Chat(messages) = std::mem::replace(&mut options.request.prompt, Prompt::Chat(Vec::new()))
        else {
            return invalid("a session begins with messages; a text or tokens are for `generate`");
        };
        if !model.info().chat_template && !model.has_program() {
            return Err(realm_tokenizer::Error::NoTemplate.into());
        }
        for (at, tool) in options.tools.iter().enumerate() {
            if options.tools[..at].iter().any(|other| other.name == tool.name) {
                return invalid(&format!("two tools are named `{}`", tool.name));
            }
        }
        if options.max_rounds == 0 && !options.tools.is_empty() {
            return invalid("max_rounds is 0, so no tool could ever be called; leave the tools out instead");
        }
        options.request.tools.extend(options.tools.iter().map(|tool| tool.definition.clone()));
        let state = State { messages, ..State::default() };
        Ok(Self(Arc::new(Session { model: model.clone(), options, state: Mutex::new(state) })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a question and returns the stream of the answer at once. Tools run meanwhile on threads other
    /// than the reader's. Text that the model writes before it calls tools is part of the stream, and the
    /// calls are in its chunks. The last chunk has the sums of usage and times over all rounds. Dropping the
    /// stream cancels the question.
    ///
    /// # Errors
    /// `invalid-argument` while another question is being answered; otherwise the same as [`Model::stream`].
    pub fn stream(&self, question: impl Into<Message>) -> Result<Generation, Error> {
        let mut state = self.lock();
        let before = state.idle()?.messages.clone();
        state.turn += 1;
        let turn = state.turn;
        let messages = before.into_iter().chain([question.into()]).collect();
        let (send, receive) = realm_handover::channel(CHANNEL);
        let task = Task::spawn("realm-chat", turn::answer(self.clone(), turn, messages, send))?;
        state.running = Some(task.state());
        Ok(Generation::of_task(receive, task, self.0.model.engine()))
    }

    /// Asks a question and waits for the answer. Its text is that of all rounds. Blocks.
    ///
    /// # Errors
    /// Same as [`stream`](Self::stream), and the error that ended the answer early.
    pub fn ask(&self, question: impl Into<Message>) -> Result<Completion, Error> {
        self.stream(question)?.finish()
    }

    /// Same as [`ask`](Self::ask), for tasks.
    ///
    /// # Errors
    /// Same as [`ask`](Self::ask).
    pub async fn ask_async(&self, question: impl Into<Message>) -> Result<Completion, Error> {
        self.stream(question)?.finish_async().await
    }

    /// Returns the messages so far, in OpenAI's format. [`set_messages`](Self::set_messages) takes them back;
    /// JSON can store them.
    pub fn messages(&self) -> Vec<Message> {
        self.lock().messages.clone()
    }

    /// Replaces the messages; the next question continues from them.
    ///
    /// # Errors
    /// `invalid-argument` while a question is being answered.
    pub fn set_messages(&self, messages: Vec<Message>) -> Result<(), Error> {
        let mut state = self.lock();
        state.idle()?.messages = messages;
        Ok(())
    }

    /// Removes the last question and everything that answered it. Returns `false` if there is none.
    ///
    /// # Errors
    /// `invalid-argument` while a question is being answered.
    pub fn undo(&self) -> Result<bool, Error> {
        Ok(history::undo(&mut self.lock().idle()?.messages))
    }

    /// Removes all messages except the system messages at the beginning.
    ///
    /// # Errors
    /// `invalid-argument` while a question is being answered.
    pub fn clear(&self) -> Result<(), Error> {
        let mut state = self.lock();
        let messages = &mut state.idle()?.messages;
        messages.truncate(history::beginning(messages));
        state.dropped = 0;
        Ok(())
    }

    /// Returns the number of messages dropped to make room in the context, since the beginning or the last
    /// [`clear`](Self::clear).
    pub fn dropped_messages(&self) -> usize {
        self.lock().dropped
    }

    /// Returns whether a question is being answered.
    pub fn is_busy(&self) -> bool {
        self.lock().is_busy()
    }
}

impl fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSession").field("messages", &self.lock().messages.len()).finish_non_exhaustive()
    }
}
