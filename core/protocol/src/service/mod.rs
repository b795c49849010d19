//! Reads an HTTP call and answers it.
//!
//! - `route`: the paths.
//! - `work`: a call's generations, from prompts to answers.
//! - `openai`, `responses`, `anthropic`, `ollama`, `tokens`: the calls of each protocol.

mod anthropic;
mod ollama;
mod openai;
mod responses;
mod route;
mod tokens;
mod work;

use std::sync::Arc;

use realm::{Model, unblock};
use serde::Serialize;

use self::route::Route;
pub(crate) use self::work::Started;
pub use self::work::start_one as start;
use crate::gate::{Gate, Open};
use crate::ollama::OllamaRequest;
use crate::openai::Writer;
use crate::{ApiError, Dialect, Events, Extras, Models, OneModel, json};

/// The answer to a call.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers, with names in lower case:
    ///
    /// - `content-type`, and `cache-control` with events;
    /// - `retry-after` in seconds, if another attempt is worthwhile;
    /// - `realm-ignored-fields`, a list of the body's unknown fields;
    /// - `realm-error-code`, a failure's [`ErrorCode`](realm::ErrorCode).
    pub headers: Vec<(&'static str, String)>,
    /// The body to send.
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    /// A JSON text.
    Json(String),
    /// Events that are sent over time.
    Events(Events),
}

/// Answers the calls of clients:
///
/// | method | path | protocol |
/// |---|---|---|
/// | `POST` | `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` | OpenAI's |
/// | `POST` | `/v1/responses`, `/v1/responses/input_tokens` | OpenAI's |
/// | `GET` | `/v1/models` and `/v1/models/NAME` | OpenAI's |
/// | `POST` | `/v1/messages`, `/v1/messages/count_tokens` | Anthropic's |
/// | `POST` | `/api/chat`, `/api/generate`, `/api/embed`, `/api/show` | ollama's |
/// | `GET` | `/api/tags`, `/api/version` | ollama's |
/// | `POST` | `/tokenize`, `/detokenize` | vLLM's and llama.cpp's |
///
/// `/v1` may be left out. Cloning a service is cheap; clones share everything.
#[derive(Clone)]
pub struct Service {
    models: Arc<dyn Models>,
    gate: Arc<dyn Gate>,
    strict: bool,
}

impl Service {
    /// Creates a service that answers with `models`.
    pub fn new(models: impl Models + 'static) -> Self {
        Self::with_gate(Arc::new(models), Arc::new(Open))
    }

    /// Creates a service for one caller, whose calls `gate` admits.
    pub fn with_gate(models: Arc<dyn Models>, gate: Arc<dyn Gate>) -> Self {
        Self { models, gate, strict: false }
    }

    /// Creates a service that answers with one model, whatever name requests give.
    pub fn of_model(model: Model) -> Self {
        Self::new(OneModel::new(model))
    }

    /// Returns the calls that a service answers: the method and the path, in which `NAME` stands for a
    /// model's name.
    pub fn routes() -> impl Iterator<Item = (&'static str, String)> {
        route::all()
    }

    /// Refuses bodies with an unknown field instead of ignoring the field. Inside messages unknown fields are
    /// still ignored, since clients send answers back as they came.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Returns the model of a name.
    ///
    /// # Errors
    /// Status 404 if there is none, or the error of its load.
    pub async fn model(&self, name: &str) -> Result<Model, ApiError> {
        self.models.model(name).await
    }

    /// Returns the model of a request, with the program and the adapter that it names.
    async fn model_for(&self, name: &str, extras: &Extras) -> Result<Model, ApiError> {
        let model = self.models.model(name).await?;
        self.models.equipped(model, extras).await
    }

    /// Answers a call. Every failure is an answer, too, in the form of the path's protocol. Dropping the
    /// future cancels the call's requests.
    pub async fn handle(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        match self.answer(method, path, body).await {
            Ok(answer) => answer,
            Err(error) => Answer::failure(&self.gate.shown(error), Dialect::of_path(path)),
        }
    }

    async fn answer(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, ApiError> {
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let path = path.strip_prefix("/v1").unwrap_or(path);
        if let Some(what) = Route::not_stored(method, path) {
            return Err(ApiError::not_stored(what));
        }
        if Route::ranks(path) {
            return Err(ApiError::no_ranks());
        }
        let Some(route) = Route::of(path) else {
            return Err(ApiError::no_path(format!("there is no {path}; {}", Route::list())));
        };
        if !method.eq_ignore_ascii_case(route.method()) {
            return Err(ApiError::no_method(format!("{path} answers {}, not {method}", route.method())));
        }
        match route {
            Route::Chat => self.chat(json::object(body)?).await,
            Route::Completions => self.completions(json::object(body)?).await,
            Route::Embeddings => self.embeddings(json::object(body)?).await,
            Route::Models => self.list().await,
            Route::Model(name) => self.find(name).await,
            Route::Responses => self.responses(json::object(body)?).await,
            Route::InputTokens => self.input_tokens(json::object(body)?).await,
            Route::Messages => self.messages(json::object(body)?).await,
            Route::CountTokens => self.count_tokens(json::object(body)?).await,
            Route::OllamaChat => self.lines(OllamaRequest::chat(json::object(body)?)?).await,
            Route::OllamaGenerate => self.lines(OllamaRequest::generate(json::object(body)?)?).await,
            Route::OllamaEmbed => self.embed(json::object(body)?).await,
            Route::OllamaShow => self.show(json::object(body)?).await,
            Route::OllamaTags => self.tags().await,
            Route::OllamaVersion => Ok(Self::version()),
            Route::Tokenize => self.tokenize(json::object(body)?).await,
            Route::Detokenize => self.detokenize(json::object(body)?).await,
        }
    }

    fn check(&self, ignored: &[String]) -> Result<(), ApiError> {
        let unknown = ignored.iter().find(|field| self.strict && !field.starts_with("messages["));
        unknown.map_or(Ok(()), |field| Err(ApiError::unknown(field)))
    }

    fn events(&self, started: Started, writer: Box<dyn Writer>, ignored: &[String]) -> Answer {
        let events = Events::new(started, writer, Arc::clone(&self.gate));
        let mut headers = vec![
            ("content-type", events.framing().content_type().to_owned()),
            ("cache-control", "no-cache".to_owned()),
        ];
        headers.extend(ignored_fields(ignored));
        Answer { status: 200, headers, body: Body::Events(events) }
    }
}

/// The error for a body without a model's name.
fn no_model_named() -> ApiError {
    ApiError::invalid("model", "model is missing; name one, GET /v1/models lists those that are here")
}

/// Runs work that may read the disk on a thread of its own.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    unblock(move || Ok(work())).await?
}

/// Decodes a part of a path with escapes such as `%41`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Answer {
    fn json<T: Serialize>(value: &T, ignored: &[String]) -> Self {
        match serde_json::to_string(value) {
            Ok(text) => Self::ok(text, ignored),
            Err(error) => {
                let error = ApiError::internal(format!("the answer is no JSON: {error}"));
                Self::failure(&error, Dialect::OpenAi)
            }
        }
    }

    fn ok(text: String, ignored: &[String]) -> Self {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(ignored_fields(ignored));
        Self { status: 200, headers, body: Body::Json(text) }
    }

    /// Returns the answer to a call that failed.
    pub fn failure(error: &ApiError, dialect: Dialect) -> Self {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("realm-error-code", error.realm_code().to_owned()),
        ];
        headers.extend(error.retry_after().map(|seconds| ("retry-after", seconds.to_string())));
        let body = Body::Json(error.to_json_in(dialect).to_string());
        Self { status: error.status(), headers, body }
    }
}

/// Returns the header that lists unknown fields. The names come from strangers and a header is limited, so
/// their number, length and characters are restricted.
fn ignored_fields(ignored: &[String]) -> Option<(&'static str, String)> {
    const MOST: usize = 20;
    const LONGEST: usize = 64;
    let plain = |name: &String| {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "_-.[]".contains(c) { c } else { '?' };
        name.chars().take(LONGEST).map(allowed).collect::<String>()
    };
    let names: Vec<_> = ignored.iter().take(MOST).map(plain).collect();
    (!names.is_empty()).then(|| ("realm-ignored-fields", names.join(", ")))
}
