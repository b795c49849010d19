//! Reads an HTTP call and answers it.

use std::sync::Arc;

use futures_util::future::try_join_all;
use realm::{EmbedOptions, Generation, Model, Request, unblock};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::openai::types::ModelList;
use crate::openai::{
    ChatRequest, ChatWriter, CompletionRequest, CompletionWriter, EmbeddingInput, EmbeddingRequest, Writer,
};
use crate::{ApiError, Events, Models, OneModel, json};

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

/// Answers the calls of OpenAI's clients:
///
/// | method | path |
/// |---|---|
/// | `POST` | `/v1/chat/completions` |
/// | `POST` | `/v1/completions` |
/// | `POST` | `/v1/embeddings` |
/// | `GET` | `/v1/models` and `/v1/models/NAME` |
///
/// `/v1` may be left out. Cloning a service is cheap; clones share everything.
#[derive(Clone)]
pub struct Service {
    models: Arc<dyn Models>,
    strict: bool,
}

/// The number of vectors that are computed at once for one request.
const EMBEDDINGS_AT_ONCE: usize = 64;

impl Service {
    /// Creates a service that answers with `models`.
    pub fn new(models: impl Models + 'static) -> Self {
        Self { models: Arc::new(models), strict: false }
    }

    /// Creates a service that answers with one model, whatever name requests give.
    pub fn of_model(model: Model) -> Self {
        Self::new(OneModel::new(model))
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

    /// Answers a call. Every failure is an answer, too. Dropping the future cancels the call's requests.
    pub async fn handle(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.answer(method, path, body).await.unwrap_or_else(Answer::from)
    }

    async fn answer(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, ApiError> {
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let allowed = |expected: &str| match method.eq_ignore_ascii_case(expected) {
            true => Ok(()),
            false => Err(ApiError::no_method(format!("{path} answers {expected}, not {method}"))),
        };
        match path {
            "/chat/completions" => {
                allowed("POST")?;
                self.chat(json::object(body)?).await
            }
            "/completions" => {
                allowed("POST")?;
                self.completions(json::object(body)?).await
            }
            "/embeddings" => {
                allowed("POST")?;
                self.embeddings(json::object(body)?).await
            }
            "/models" => {
                allowed("GET")?;
                let models = Arc::clone(&self.models);
                let found = on_a_thread(move || models.list()).await?;
                let data = found.into_iter().map(Into::into).collect();
                Ok(Answer::json(&ModelList { object: "list", data }, &[]))
            }
            "/responses" => Err(ApiError::no_path(
                "the Responses API is not available; use chat completions (in the AI SDK `openai.chat(NAME)`)",
            )),
            _ => match path.strip_prefix("/models/") {
                Some(name) => {
                    allowed("GET")?;
                    let (models, name) = (Arc::clone(&self.models), decoded(name));
                    let found = on_a_thread(move || models.find(&name)).await?;
                    Ok(Answer::json(&crate::openai::types::Model::from(found), &[]))
                }
                None => Err(ApiError::no_path(format!(
                    "there is no {path}; there are /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/models"
                ))),
            },
        }
    }

    async fn chat(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = ChatRequest::read(body)?;
        self.check(&request.ignored)?;
        let model = self.models.model(&request.model).await?;
        let generations = start(&model, request.requests().collect(), "messages").await?;
        if request.stream {
            let writer = ChatWriter::new(&request, model);
            return Ok(Answer::events(generations, Box::new(writer), &request.ignored));
        }
        let completions = try_join_all(generations.into_iter().map(Generation::finish_async)).await?;
        Ok(Answer::json(&request.answer(completions, model.tokenizer()), &request.ignored))
    }

    async fn completions(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let request = CompletionRequest::read(body)?;
        self.check(&request.ignored)?;
        let model = self.models.model(&request.model).await?;
        let generations = start(&model, request.requests(), "prompt").await?;
        if request.stream {
            let ignored = request.ignored.clone();
            let writer = CompletionWriter::new(request, model);
            return Ok(Answer::events(generations, Box::new(writer), &ignored));
        }
        let completions = try_join_all(generations.into_iter().map(Generation::finish_async)).await?;
        Ok(Answer::ok(request.answer(completions, model.tokenizer()), &request.ignored))
    }

    async fn embeddings(&self, body: Map<String, Value>) -> Result<Answer, ApiError> {
        let mut request = EmbeddingRequest::read(body)?;
        self.check(&request.ignored)?;
        let model = self.models.model(&request.model).await?;
        request.check_dimensions(model.info().hidden)?;
        let (inputs, encoder) = (std::mem::take(&mut request.inputs), model.clone());
        let encode = move |input| match input {
            EmbeddingInput::Text(text) => encoder.encode(&text),
            EmbeddingInput::Tokens(tokens) => tokens,
        };
        let inputs = unblock(move || Ok(inputs.into_iter().map(encode).collect::<Vec<_>>())).await?;
        let options = EmbedOptions::default();
        let mut vectors = Vec::with_capacity(inputs.len());
        for some in inputs.chunks(EMBEDDINGS_AT_ONCE) {
            let computed = try_join_all(some.iter().map(|tokens| model.embed_async(tokens, &options))).await;
            vectors.extend(computed.map_err(|error| ApiError::from(error).prompt_is("input"))?);
        }
        let tokens = inputs.iter().map(Vec::len).sum();
        Ok(Answer::json(&request.answer(vectors, tokens), &request.ignored))
    }

    fn check(&self, ignored: &[String]) -> Result<(), ApiError> {
        let unknown = ignored.iter().find(|field| self.strict && !field.starts_with("messages["));
        unknown.map_or(Ok(()), |field| Err(ApiError::unknown(field)))
    }
}

/// Starts requests on a thread of their own: long prompts and grammars take time. If one request can't start,
/// all are cancelled.
async fn start(model: &Model, requests: Vec<Request>, prompt: &str) -> Result<Vec<Generation>, ApiError> {
    let model = model.clone();
    let started = unblock(move || requests.into_iter().map(|request| model.stream(request)).collect()).await;
    started.map_err(|error| ApiError::from(error).prompt_is(prompt))
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
            Err(error) => ApiError::internal(format!("the answer is no JSON: {error}")).into(),
        }
    }

    fn ok(text: String, ignored: &[String]) -> Self {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(ignored_fields(ignored));
        Self { status: 200, headers, body: Body::Json(text) }
    }

    fn events(generations: Vec<Generation>, writer: Box<dyn Writer>, ignored: &[String]) -> Self {
        let mut headers = vec![
            ("content-type", "text/event-stream; charset=utf-8".to_owned()),
            ("cache-control", "no-cache".to_owned()),
        ];
        headers.extend(ignored_fields(ignored));
        Self { status: 200, headers, body: Body::Events(Events::new(generations, writer)) }
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

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("realm-error-code", error.realm_code().to_owned()),
        ];
        headers.extend(error.retry_after().map(|seconds| ("retry-after", seconds.to_string())));
        Self { status: error.status(), headers, body: Body::Json(error.to_json().to_string()) }
    }
}
